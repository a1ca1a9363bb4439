"""IDX files, the format of MNIST and Fashion-MNIST (yann.lecun.com/exdb/mnist)."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from tapetum.data.sources.arrays import Pixels, Split

_IDX_NAMES = {"train": ("train",), "test": ("t10k", "test")}


def find_idx(folder: Path, split: Split) -> tuple[Path, Path] | None:
    """Find the image and label files of a split (`train-images-idx3-ubyte`, gzipped or not); None if there are none.

    Raises:
        ValueError: several files match, or the labels are missing.
    """
    for prefix in _IDX_NAMES[split]:
        found: dict[str, list[Path]] = {}
        for part, dims in (("images", "idx3"), ("labels", "idx1")):
            files = sorted(folder.glob(f"*{prefix}-{part}?{dims}-ubyte")) or sorted(
                folder.glob(f"*{prefix}-{part}?{dims}-ubyte.gz")
            )
            found[part] = files
        if len(found["images"]) == 1 and len(found["labels"]) == 1:
            return found["images"][0], found["labels"][0]
        if found["images"]:
            names = ", ".join(path.name for path in (*found["images"], *found["labels"]))
            raise ValueError(f"{folder} must hold one IDX file of {split} images and one of labels, not {names}")
    return None


def read_idx(path: Path) -> Pixels:
    """Read an IDX file of unsigned bytes, gzipped or not (format: yann.lecun.com/exdb/mnist).

    Raises:
        ValueError: the file is damaged, of another type, or not as long as its header says.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch it again from its publisher") from error
    header = 4 + 4 * raw[3] if len(raw) >= 4 else 4
    if len(raw) < header or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: fetch it again from its publisher")
    shape = tuple(np.frombuffer(raw[4:header], dtype=">u4").astype(int).tolist())
    if len(raw) - header != math.prod(shape):
        raise ValueError(f"{path} has {len(raw) - header} bytes of data where its header says {shape}: fetch it again")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)
