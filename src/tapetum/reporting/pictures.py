"""Small copies of images, as text that a page can hold."""

from __future__ import annotations

import base64
import io
from functools import lru_cache

import numpy as np
from PIL import Image

from tapetum.data.stores import Store

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
