"""Reads weights: of run folders, safetensors, torch, Paddle and Keras. Code in files is never run."""

import io
import mmap
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from tapetum.engine.checkpoint import CHECKPOINTS, latest_checkpoint
from tapetum.interchange.weights.keras_files import is_saved_model, read_keras
from tapetum.interchange.weights.paddle_files import read_paddle
from tapetum.system.notices import notify
from tapetum.system.strangers import check_pickle, refuse_bomb, short_reason

_PICKLES = 5
"""In a file as torch wrote it before 1.6: a magic number, a version, a machine, the content, and keys of storages."""
_MOST_VALUES = 10**5 * 5
_LONGEST_NAME = 10_000


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
    read = _READERS.get(path.suffix.lower())
    if read is None:
        known = ", ".join(_READERS)
        raise ValueError(f"{path} is not a file of weights: give one that ends in {known}.")
    return read(path)


def _read_run(folder: Path) -> dict[str, Tensor]:
    checkpoint = latest_checkpoint(folder / CHECKPOINTS, notify)
    if checkpoint is None:
        raise ValueError(f"{folder} holds no checkpoint: give the folder of a run that has saved one, or a file.")
    return dict(checkpoint.tensors)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # not only SafetensorError: torch may know no such type, or have no such memory
        reason = short_reason(error)
        raise ValueError(f"{path} is cut short or not a safetensors file ({reason}): get it again.") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        _check_torch(path)
        # A namespace only holds values: DINO's and timm's trainings keep their arguments in one beside the weights.
        with torch.serialization.safe_globals([Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        return _tensors(content, path)
    except Exception as error:  # torch's reader fails in many ways on files that it was not made for
        raise ValueError(
            f"{path} holds more than tensors, or is damaged, and is not opened ({short_reason(error)[:120]}): "
            "save a state dict."
        ) from error


def _check_torch(path: Path) -> None:
    """Refuse pickles and archives that would cost far more than their size; torch itself refuses those with code."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            refuse_bomb(path, sum(member.file_size for member in archive.infolist()))
            for member in archive.infolist():
                if member.filename.endswith(".pkl"):
                    check_pickle(io.BytesIO(archive.read(member)))
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for _ in range(_PICKLES):
            check_pickle(cast(IO[bytes], content))


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Name the tensors in nested dictionaries, which may hold each other, and themselves."""
    found: dict[str, Tensor] = {}
    left: list[tuple[str, Any]] = [("", content)]
    values = size = 0
    while left:
        name, value = left.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type != "cpu":
                raise ValueError(f"{name[:80]} is sparse, quantized, nested or without values")
            found[name] = value
            size += value.nbytes
            refuse_bomb(path, size)  # one number may stand for any number of them
        elif isinstance(value, dict):
            left += [(f"{name}.{key}" if name else str(key), item) for key, item in reversed(list(value.items()))]
        values += 1
        if values + len(left) > _MOST_VALUES or len(name) > _LONGEST_NAME:
            raise ValueError("its dictionaries hold each other without end")
    return found


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _read_safetensors,
    **dict.fromkeys((".pt", ".pth", ".tar", ".bin", ".ckpt"), _read_torch),
    ".pdparams": read_paddle,
    ".h5": read_keras,
}
"""The end of a file's name -> what reads it."""
