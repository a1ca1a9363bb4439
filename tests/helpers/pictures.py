"""Small image files under given names, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def save_pictures(folder: str | Path, names: Iterable[str]) -> Path:
    """Write an image of 8x6 pixels under each name, no two the same; returns the folder."""
    for number, name in enumerate(names):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number, 0, 0)).save(path)
    return Path(folder)
