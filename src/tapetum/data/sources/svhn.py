"""Reads SVHN's MATLAB files (ufldl.stanford.edu/housenumbers) with scipy's reader, which builds only arrays."""

import os
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tapetum.data.sources.arrays import Pixels, Split
from tapetum.system.strangers import refuse_bomb, short_reason

_HEADER = 128  # bytes
_PACKED = 15  # the kind of a part that zlib has packed
_CHUNK = 2**20


def find_mat(folder: Path, split: Split) -> Path | None:
    """Find the cropped digits of a split, `train_32x32.mat` or `test_32x32.mat`; None if there are none."""
    path = folder / f"{split}_32x32.mat"
    return path if path.is_file() else None


def _refuse_mat_bomb(path: Path) -> None:
    """Refuse a file whose packed parts unpack to too much. What they say of their sizes is not believed."""
    found = 0
    with path.open("rb") as file:
        order: Literal["little", "big"] = "big" if file.read(_HEADER)[-2:] == b"MI" else "little"
        while len(tag := file.read(8)) == 8:
            kind, size = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
            if kind != _PACKED:
                file.seek(size, os.SEEK_CUR)
                continue
            unpack, rest = zlib.decompressobj(), b""
            while not unpack.eof and (rest or size):
                if not rest:
                    rest = file.read(min(size, _CHUNK))
                    size = size - len(rest) if rest else 0
                found += len(unpack.decompress(rest, _CHUNK))
                refuse_bomb(path, found)
                rest = unpack.unconsumed_tail
            file.seek(size, os.SEEK_CUR)


def read_mat(path: Path) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Read the images `X` (H, W, C, N) and labels `y` (N, 1) of a file.

    Returns:
        images (N, C, H, W) uint8; digits (N,) int64, 0..9; in the file, the label 10 means digit 0.

    Raises:
        ValueError: the file is damaged, of another version, or lacks these arrays.
    """
    from scipy.io import loadmat  # slow to import, and most runs do not need it

    try:
        _refuse_mat_bomb(path)
        content = loadmat(path, variable_names=("X", "y"))
        images, values = content["X"], content["y"].astype(np.int64).ravel()
        if images.dtype != np.uint8 or images.ndim != 4 or len(values) != images.shape[3] or not len(values):
            raise ValueError(f"X is {images.dtype} of shape {images.shape} with {len(values)} labels")
        if values.min() < 0 or values.max() > 10:
            raise ValueError(f"labels span {values.min()}..{values.max()}")
    except Exception as error:  # scipy's reader raises nearly any type on damaged files
        raise ValueError(
            f"{path} is not a file of SVHN's cropped digits ({short_reason(error)}): fetch train_32x32.mat "
            "and test_32x32.mat from the publisher"
        ) from error
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), values % 10
