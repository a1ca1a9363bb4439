from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from label_page import pool_of
from PIL import Image

from tapetum.labelling.session import Session

COLOURS = ((220, 40, 30), (40, 190, 60), (40, 70, 220))


def save_images(folder: Path, names: list[str]) -> None:
    """Images of 20x16 pixels, red, green and blue in turn, each a little different."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        red, green, blue = (min(255, value + number % 9) for value in COLOURS[number % 3])
        image = Image.new("RGB", (20, 16), (red, green, blue))
        image.putpixel((number % 20, 3), (255, 255, 255))
        image.save(path, "PNG")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve images, in one subfolder or none."""
    save_images(tmp_path / "photos", [f"{'deep/' if i > 8 else ''}{i:02}.png" for i in range(12)])
    return tmp_path / "photos"


@pytest.fixture
def open_session(photos: Path, tmp_path: Path) -> Callable[..., Session]:
    """Open a session on the twelve images, as often as a test likes."""

    def opened(**options: Path) -> Session:
        return Session(pool_of(photos), tmp_path / "labels.csv", "ann", **options)

    return opened


@pytest.fixture
def session(open_session: Callable[..., Session]) -> Session:
    return open_session()
