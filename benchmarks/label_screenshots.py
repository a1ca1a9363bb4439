"""Takes the pictures of the label page for docs/images, from the real page in a real browser.

    python benchmarks/label_screenshots.py --photos DIR [--labels N] [--steps S] [--output FOLDER]

The first picture shows a photograph of DIR. For the others, N of scikit-learn's digits (default 50) get their labels,
and the page trains S steps on them (default 200); then every digit is predicted. Needs selenium, Chromium and
its driver.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from label_page import Page, chromium, pool_of, served, until  # noqa: E402

from tapetum.labelling.session import Session  # noqa: E402

HOURS = 7200.0  # seconds
KINDS = {
    "bird": (1_500_000, 1_610_000, 1_795_000, 2_057_000),
    "reptile": (1_660_000, 1_760_000),
    "dog": (2_085_000, 2_114_000),
    "insect": (2_165_000, 2_282_000),
}
"""Kind -> first and last numbers of WordNet, once or twice, by which ImageNet names its photographs."""
VIEWS = {"label": "label_page.png", "grid": "label_grid.png", "review": "label_review.png"}


def save_digits(folder: Path) -> dict[str, str]:
    """Write the digits as files; returns their classes."""
    digits = load_digits()
    folder.mkdir()
    classes = {}
    for number, (image, value) in enumerate(zip(digits.images, digits.target)):
        name = f"{number:04}.png"
        Image.fromarray(np.rint(255 - image * (255 / 16)).astype(np.uint8)).save(folder / name)
        classes[name] = str(value)
    return classes


def save(driver, path: Path) -> None:
    """Save what is in sight in 256 colours, a third of the size."""
    driver.save_screenshot(str(path))
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def kind_of(name: str) -> str | None:
    """Tell what a photograph shows, by its name; None if it is none of the kinds."""
    number = int(name[1:9])
    for kind, ends in KINDS.items():
        if any(first <= number <= last for first, last in zip(ends[::2], ends[1::2])):
            return kind
    return None


def photographs(driver, photos: Path, folder: Path, output: Path) -> None:
    """A photograph of an animal, with their kinds beside it."""
    found = pool_of(photos.resolve())
    names = tuple(name for name in found.names if kind_of(name))
    session = Session(replace(found, names=names), folder / "photos.csv", "ann")
    for image in session.queue.next("", 24):
        session.answers.give({image: kind_of(names[image])}, "key")
    with served(session) as address:
        page = Page(driver, address)
        page.shown()
        save(driver, output / VIEWS["label"])


def mistaken(session: Session, group: str, classes: dict[str, str]) -> list[str]:
    """Name the images of a page of the grid that are of another class."""
    names = [item["name"] for item in session.group(group, 60)["items"]]
    return [name for name in names if classes[name] != group]


def digits(driver, folder: Path, output: Path, labels: int, steps: int) -> None:
    """A training, and what it predicts."""
    classes = save_digits(folder / "digits")
    session = Session(pool_of(folder / "digits"), folder / "digits.csv", "ann")
    wanted = sorted(session.queue.next("", labels), key=lambda image: classes[session.pool.names[image]])
    for image in wanted:
        session.answers.give({image: classes[session.pool.names[image]]}, "key")
    with served(session) as address:
        page = Page(driver, address)
        page.open("train")
        page.run("document.querySelector('.card select').value = 'steps'")
        page.run("document.querySelector('.card input').value = arguments[0]", steps)
        page.click("#start")
        until(lambda: (session.training.state() or {})["phase"] in ("done", "failed", "stopped"), HOURS)
        until(lambda: page.run("return state.predicted && state.training.phase === 'done'"))
        page.open("grid")
        wrong = {name: mistaken(session, name, classes) for name in sorted(set(classes.values()))}
        most = max(wrong, key=lambda name: len(wrong[name]))
        for view in ("grid", "review"):
            page.open(view)
            if view == "grid":
                page.run("return document.querySelector('select')").send_keys(f"predicted {most}")
                until(lambda: f" are {most}" in page.text("button.main"))
                page.run("const box = document.querySelector('.scroller'); box.scrollTop = box.scrollHeight")
                time.sleep(1)
                for name in wrong[most]:
                    page.run("document.querySelector(`.tile[title='${arguments[0]}']`)?.click()", name)
            until(lambda: page.run("return [...document.images].every((image) => image.complete)"))
            save(driver, output / VIEWS[view])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, chromium(Path(place) / "browser", 1180, 760) as driver:
        folder = Path(place)
        photographs(driver, given.photos, folder, given.output)
        digits(driver, folder, given.output, given.labels, given.steps)


if __name__ == "__main__":
    main()
