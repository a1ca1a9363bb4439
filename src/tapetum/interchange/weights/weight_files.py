"""Reads weights: of run folders, safetensors, torch, Paddle and Keras. Code in files is never run."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tapetum.engine.checkpoint import CHECKPOINTS, latest_checkpoint
from tapetum.interchange.weights.keras_files import is_saved_model, read_keras
from tapetum.interchange.weights.paddle_files import read_paddle
from tapetum.system.notices import notify


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a run's last checkpoint or of a file, by name; keys of nested dictionaries join with dots.

    Args:
        source: the folder of a run; a file: .safetensors, .pt, .pth, .pth.tar, .bin or .ckpt, Paddle's .pdparams,
            Keras's .h5; or the folder of a SavedModel. The last three come with torch's names and orders of axes.

    Raises:
        ValueError: the source does not exist or cannot be read as nothing but tensors.
    """
    path = Path(source)
    if path.is_dir():
        return read_keras(path) if is_saved_model(path) else _read_run(path)
    if not path.is_file():
        raise ValueError(f"there is nothing at {path}: give the folder of a run or a file of weights.")
    if path.suffix not in _READERS:
        known = ", ".join(_READERS)
        raise ValueError(f"{path} is not a file of weights: give one that ends in {known}.")
    return _READERS[path.suffix](path)


def _read_run(folder: Path) -> dict[str, Tensor]:
    checkpoint = latest_checkpoint(folder / CHECKPOINTS, notify)
    if checkpoint is None:
        raise ValueError(f"{folder} holds no checkpoint: give the folder of a run that has saved one, or a file.")
    return dict(checkpoint.tensors)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is cut short or not a safetensors file ({error}): get it again.") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        # A namespace only holds values: DINO's and timm's trainings keep their arguments in one beside the weights.
        with torch.serialization.safe_globals([Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader fails in many ways on files that it was not made for
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path} holds more than tensors, or is damaged, and is not opened ({reason}): save a state dict."
        ) from error
    return dict(_tensors(content, ""))


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}.{key}" if name else str(key))


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _read_safetensors,
    **dict.fromkeys((".pt", ".pth", ".tar", ".bin", ".ckpt"), _read_torch),
    ".pdparams": read_paddle,
    ".h5": read_keras,
}
"""The end of a file's name -> what reads it."""
