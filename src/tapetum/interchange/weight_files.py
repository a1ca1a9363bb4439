"""Reads files of weights: run folders, safetensors and torch's format. Code in them is never run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tapetum.engine.checkpoint import CHECKPOINTS, latest_checkpoint
from tapetum.system.notices import notify

_TORCH_SUFFIXES = (".pt", ".pth", ".tar", ".bin", ".ckpt")


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a run's last checkpoint or of a file, by name; keys of nested dictionaries join with dots.

    Raises:
        ValueError: the source does not exist or cannot be read as nothing but tensors.
    """
    path = Path(source)
    if path.is_dir():
        checkpoint = latest_checkpoint(path / CHECKPOINTS, notify)
        if checkpoint is None:
            raise ValueError(f"{path} holds no checkpoint: give the folder of a run that has saved one, or a file.")
        return dict(checkpoint.tensors)
    if not path.is_file():
        raise ValueError(f"there is nothing at {path}: give the folder of a run or a file of weights.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is cut short or not a safetensors file ({error}): get it again.") from error
    if path.suffix not in _TORCH_SUFFIXES:
        known = ", ".join((".safetensors", *_TORCH_SUFFIXES))
        raise ValueError(f"{path} is not a file of weights: give one that ends in {known}.")
    try:
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
