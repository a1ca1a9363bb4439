"""IDX files, the format of MNIST and Fashion-MNIST (yann.lecun.com/exdb/mnist)."""

import math
import zlib
from pathlib import Path

import numpy as np

from tapetum.data.sources.arrays import Pixels, Split
from tapetum.system.strangers import read_unpacked, refuse_bomb, short_reason

_IDX_NAMES = {"train": ("train",), "test": ("t10k", "test")}
_MOST_DIMS = 4


def find_idx(folder: Path, split: Split) -> tuple[Path, Path] | None:
    """Find the image and label files of a split (`train-images-idx3-ubyte`, gzipped or not); None if there are none.

    Raises:
        ValueError: several files match, or the labels are missing.
    """
    for prefix in _IDX_NAMES[split]:
        found: dict[str, list[Path]] = {}
        for part, dims in (("images", "idx3"), ("labels", "idx1")):
            name = f"*{prefix}-{part}?{dims}-ubyte"
            plain, packed = (sorted(p for p in folder.glob(name + end) if p.is_file()) for end in ("", ".gz"))
            found[part] = plain or packed
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
        head = read_unpacked(path, 4)
        header = 4 + 4 * head[3] if len(head) == 4 and head[:3] == b"\0\0\x08" else 0
        sizes = read_unpacked(path, header)[4:]
        if not 4 < header <= 4 + 4 * _MOST_DIMS or len(sizes) < header - 4:
            raise ValueError("it is not an IDX file of unsigned bytes")
        shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
        # The file may hold more or less than its header says: as much is read, and one byte to see that it ends.
        refuse_bomb(path, math.prod(shape))
        raw = read_unpacked(path, header + math.prod(shape) + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({short_reason(error)}): fetch it again from its publisher") from error
    found, wanted = len(raw) - header, math.prod(shape)
    if found != wanted:
        more = "more than its header's" if found > wanted else f"{found}"
        raise ValueError(f"{path} has {more} bytes of data where its header says {shape}: fetch it again")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)
