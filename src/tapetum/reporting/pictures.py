"""Small copies of images: as text to embed in a page, and side by side on contact sheets."""

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from tapetum.data.images.stores import Store

SHEET_IMAGES = 24
"""Greatest number of images on a contact sheet, in rows of 12."""
_SHEET_COLUMNS = 12
_SIDE = 64  # longer side, in pixels, of an image on a sheet
_TINY = 40  # longer side, in pixels, up to which an image is enlarged without smoothing


class Thumbnail(NamedTuple):
    """A small copy of an image."""

    uri: str
    """The picture itself, as `data:image/...`."""
    is_tiny: bool
    """Whether it should be enlarged without smoothing."""


class Thumbnails:
    """Thumbnails of the images of one store, each made once.

    Args:
        store: images of any sizes.
        side: longest side of a thumbnail, in pixels.
    """

    def __init__(self, store: Store, side: int = 96) -> None:
        self._store, self._side = store, side
        self.of = lru_cache(maxsize=4096)(self._of)

    def _of(self, index: int) -> Thumbnail:
        image = _image(self._store, index)
        is_tiny = max(image.size) <= _TINY
        image.thumbnail((self._side, self._side))
        return Thumbnail(data_uri(image), is_tiny)


def data_uri(image: Image.Image) -> str:
    """Encode an image as text to embed in a page: PNG up to 16 pixels, else JPEG."""
    content = io.BytesIO()
    # JPEG blurs the few pixels of a tiny image; for larger images, PNG would take many times the space.
    kind = "png" if max(image.size) <= 16 else "jpeg"
    image.save(content, kind, **({"quality": 82} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def contact_sheet(store: Store, indices: Sequence[int]) -> Image.Image:
    """Place some images of a store side by side, 64 pixels each."""
    rows, columns = -(-len(indices) // _SHEET_COLUMNS), min(len(indices), _SHEET_COLUMNS)
    sheet = Image.new("RGB", (columns * (_SIDE + 2), rows * (_SIDE + 2)), "white")
    for place, index in enumerate(indices):
        image = _image(store, index).convert("RGB")
        image.thumbnail((2 * _SIDE, 2 * _SIDE))
        scale = _SIDE / max(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size])
        sheet.paste(image, (place % columns * (_SIDE + 2), place // columns * (_SIDE + 2)))
    return sheet


def _image(store: Store, index: int) -> Image.Image:
    pixels = store.read(np.array([index]))[0].permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
