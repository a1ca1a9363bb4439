"""Small copies of images: as text that a page can hold, and beside each other on contact sheets."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from tapetum.data.images.stores import Store

SHEET_IMAGES = 24
"""Images on a contact sheet, at most, in rows of 12."""
_SHEET_COLUMNS = 12
_SIDE = 64  # pixels of an image on a sheet
_TINY = 40  # pixels up to which an image is shown pixel by pixel


class Pictures:
    """Thumbnails of the images of one store, each made once.

    Args:
        store: of images of any sizes.
        side: longest side of a thumbnail, pixels.
    """

    def __init__(self, store: Store, side: int = 96) -> None:
        self._store, self._side = store, side
        self.uri = lru_cache(maxsize=4096)(self._uri)

    def tag(self, index: int, description: str) -> str:
        """An <img> of an image; `description`, already escaped, for those who cannot see it."""
        uri, is_tiny = self.uri(index)
        return f'<img{" class=tiny" * is_tiny} src="{uri}" alt="{description}">'

    def _uri(self, index: int) -> tuple[str, bool]:
        """(data URI, whether it should be enlarged without smoothing)."""
        pixels = self._store.read(np.array([index]))[0].permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        is_tiny = max(image.size) <= _TINY
        image.thumbnail((self._side, self._side))
        content = io.BytesIO()
        # JPEG smears the few pixels of a tiny image; from some size on PNG would be many times larger.
        if max(image.size) <= 16:
            image.save(content, "PNG")
            kind = "png"
        else:
            image.save(content, "JPEG", quality=82)
            kind = "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}", is_tiny


def picture(store: Store, index: int) -> Image.Image:
    """An image in RGB, no side longer than 128 pixels."""
    pixels = store.read(np.array([index]))[0].permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)).convert("RGB")
    image.thumbnail((2 * _SIDE, 2 * _SIDE))
    return image


def contact_sheet(store: Store, indices: Sequence[int]) -> Image.Image:
    """Some images of a store beside each other, 64 pixels each."""
    rows, columns = -(-len(indices) // _SHEET_COLUMNS), min(len(indices), _SHEET_COLUMNS)
    sheet = Image.new("RGB", (columns * (_SIDE + 2), rows * (_SIDE + 2)), "white")
    for place, index in enumerate(indices):
        image = picture(store, index)
        scale = _SIDE / max(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size])
        sheet.paste(image, (place % columns * (_SIDE + 2), place // columns * (_SIDE + 2)))
    return sheet
