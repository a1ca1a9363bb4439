"""Copies of images for the page, made on demand and kept in memory up to a limit."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SIDES = (160, 1024, 2560)
"""Longest sides in pixels that the page may ask for: a tile, the picture, the picture enlarged."""
_TINY = 64  # longest side, in pixels, of images that are sent without loss
_KEPT_BYTES = 64 * 2**20

Open = Callable[[str, int], Image.Image]
"""Opens an image by name as upright RGB, its shorter side reduced to about a number of pixels; ValueError if it cannot
be read."""


@dataclass(frozen=True)
class Pool:
    """The images to label."""

    images: str
    """What `fit` and `predict` are given to find them."""
    root: Path
    names: tuple[str, ...]
    """N paths relative to `root`, as the verbs call the images."""
    open: Open


class Pictures:
    """JPEG or PNG copies of a pool's images; the most recently used ones are kept.

    Args:
        pool: the images.
        kept_bytes: most bytes kept.
    """

    def __init__(self, pool: Pool, kept_bytes: int = _KEPT_BYTES) -> None:
        self._pool, self._most = pool, kept_bytes
        self._kept: OrderedDict[tuple[int, int], tuple[bytes, str]] = OrderedDict()
        self._lock, self.size = threading.Lock(), 0

    def get(self, image: int, side: int) -> tuple[bytes, str]:
        """Return an image as (content, media type).

        Raises:
            ValueError: the file cannot be read.
        """
        key = (image, side)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = _encoded(self._pool.open(self._pool.names[image], side), side)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self.size += len(made[0])
            while self.size > self._most:
                _, (content, _) = self._kept.popitem(last=False)
                self.size -= len(content)
        return made


def _encoded(picture: Image.Image, side: int) -> tuple[bytes, str]:
    picture.thumbnail((side, side))
    content = io.BytesIO()
    # JPEG blurs the few pixels of a tiny image, which the page enlarges.
    kind, options = ("png", {}) if max(picture.size) <= _TINY else ("jpeg", {"quality": 85})
    picture.save(content, kind, **options)
    return content.getvalue(), f"image/{kind}"
