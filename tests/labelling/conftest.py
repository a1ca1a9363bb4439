from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from label_page import pool_of
from PIL import Image

from tapetum.labelling.processes import Process
from tapetum.labelling.session import Session
from tapetum.reporting.predictions_table import Columns, Neighbour, Row, csv_header, csv_lines

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


def predicted(tmp_path: Path, names: list[str]) -> None:
    """Files as run 001 would have left them: even images are red, odd ones blue, image 11 is unlike all others."""
    folder = tmp_path / "labels.runs"
    (folder / "001").mkdir(parents=True)
    summary = {"versions": {}, "heldout_top1": 75.0, "heldout_interval": [40.9, 92.9], "num_labels": 9}
    (folder / "001" / "summary.json").write_text(json.dumps(summary))
    job = {"number": 1, "run": str(folder / "001"), "phase": "done", "process": Process(0, ""), "began": time.time()}
    (folder / "001.json").write_text(json.dumps(job | {"counts": {"red": 6, "blue": 5}, "command": []}))
    rows = [
        Row(
            name, "red" if i % 2 == 0 else "blue", 0.5 + i / 30, [Neighbour(names[0], "red", 0.6)], in_domain=1 - i / 11
        )
        for i, name in enumerate(names)
    ]
    columns = Columns(1, False)
    (folder / "001.predictions.csv").write_bytes(csv_header(columns) + csv_lines(rows, columns))
    (folder / "001.suggestions.csv").write_text(f"path,reason\n{names[8]},typical\n{names[1]},doubt\n")
    (folder / "001.review").mkdir()
    errors = f"path,label,suggested,doubt\n{names[2]},blue,red,0.9\n{names[3]},blue,red,0.8\n"
    (folder / "001.review" / "label_errors.csv").write_text(errors)
    (folder / "001.review" / "conflicts.csv").write_text(f"group,path,label\n1,{names[6]},red\n1,{names[9]},blue\n")
    (folder / "001.review" / "review.html").write_text("")


@pytest.fixture
def found(open_session: Callable[..., Session], photos: Path, tmp_path: Path) -> Session:
    """A session with predictions, suggestions and suspects."""
    predicted(tmp_path, sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png")))
    return open_session()
