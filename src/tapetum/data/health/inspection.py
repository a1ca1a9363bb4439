"""Inspects every image of a pool once: whether it can be read, how large it is, and what it looks like."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tapetum.data.health.duplicates import difference_hashes, grey_rows, thumbnail
from tapetum.data.images.cache import THREADED_FROM_PIXELS
from tapetum.data.images.decoding import UnreadableImage, read_upright
from tapetum.data.images.stores import FileStore, Store
from tapetum.system.notices import ReportProgress

_AT_A_TIME = 4096  # images between two reports


@dataclass(frozen=True)
class Inspection:
    """What was found about N images. Rows of unreadable images are zero."""

    sizes: npt.NDArray[np.int64]
    """(N, 2) heights and widths of the upright images."""
    modes: list[str]
    """Pillow mode in which each is stored: "RGB", "L" (grey), "P" (palette), "CMYK", ...; "" if unreadable."""
    digests: npt.NDArray[np.uint64]
    """(N,) hashes of decoded pixels: equal for equal pixels, whatever the file."""
    hashes: npt.NDArray[np.uint64]
    """(N,) difference hashes: close for images that look alike."""
    thumbnails: npt.NDArray[np.uint8]
    """(N, 432) thumbnails of 12x12 pixels in colour."""
    unreadable: dict[int, str]
    """Index of each image that cannot be decoded, and the reason."""


class _Seen(NamedTuple):
    height: int
    width: int
    mode: str
    digest: int
    grey: npt.NDArray[np.uint8]
    thumbnail: npt.NDArray[np.uint8]


def inspect(store: Store, report: ReportProgress | None = None, threads: int = 2) -> Inspection:
    """Decode every image and record its size, mode, hashes and thumbnail.

    Args:
        store: any store.
        report: called with (images inspected, all images) from time to time.
        threads: number of images decoded in parallel if they are photographs.
    """
    look = _looker(store)
    sizes = np.zeros((len(store), 2), dtype=np.int64)
    modes = [""] * len(store)
    digests = np.zeros(len(store), dtype=np.uint64)
    grey = np.zeros((len(store), 72), dtype=np.uint8)
    thumbnails = np.zeros((len(store), 432), dtype=np.uint8)
    unreadable = {}
    some = [seen.height * seen.width for seen in map(look, range(min(8, len(store)))) if isinstance(seen, _Seen)]
    are_photographs = sum(some) >= THREADED_FROM_PIXELS * len(some)
    at_once = store.at_once if isinstance(store, FileStore) else 1
    with ThreadPoolExecutor(max(threads, at_once)) as pool:
        run = pool.map if are_photographs or at_once > 1 else map
        for start in range(0, len(store), _AT_A_TIME):
            stop = min(start + _AT_A_TIME, len(store))
            for i, seen in enumerate(run(look, range(start, stop)), start=start):
                if isinstance(seen, str):
                    unreadable[i] = seen
                    continue
                sizes[i] = seen.height, seen.width
                modes[i], digests[i], grey[i], thumbnails[i] = seen.mode, seen.digest, seen.grey, seen.thumbnail
            if report is not None:
                report(stop, len(store))
    return Inspection(sizes, modes, digests, difference_hashes(grey), thumbnails, unreadable)


def _looker(store: Store) -> Callable[[int], _Seen | str]:
    """Return a function that inspects the image of an index and returns what it saw, or why the image is unreadable."""

    def look(index: int) -> _Seen | str:
        try:
            image, mode = _image(store, index)
        except UnreadableImage as error:
            return error.reason
        width, height = image.size
        content = hashlib.blake2b(np.asarray(image).tobytes(), digest_size=8, salt=_salt(height, width)).digest()
        return _Seen(height, width, mode, int.from_bytes(content, "little"), grey_rows(image), thumbnail(image))

    return look


def _salt(height: int, width: int) -> bytes:
    """Make a salt that gives images with equal bytes but different shapes different hashes."""
    return height.to_bytes(8, "little") + width.to_bytes(8, "little")


def _image(store: Store, index: int) -> tuple[Image.Image, str]:
    if isinstance(store, FileStore):
        return read_upright(store.file(index))
    (pixels,) = store.read(np.array([index]))
    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    return image.convert("RGB"), image.mode
