"""From a folder without labels to a trusted classifier, by the page of `tapetum label` in a real browser.

    python benchmarks/label_walk.py NAME [--goal 90] [--answers 20] [--rounds 6] [--steps 100]

Somebody who knows the truth, but nothing else, labels scikit-learn's digits: 1,297 images in a folder, while 500
others, in files that the page never sees, judge each run. A round is so many answers by keyboard, on the images that
the page asks for, and a training that the page starts. It ends when the goal, in percent of the 500, is reached.
Written to docs/results/label_walk/NAME.json: for each round labels, key strokes and clicks so far, the accuracy that
the page expects, the accuracy on the 500, and the minutes of the machine. Needs selenium, Chromium and its driver.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from side_by_side import machine

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from label_page import Page, chromium, pool_of, served, until  # noqa: E402

import tapetum  # noqa: E402
from tapetum.data.sources.digits import read_digits  # noqa: E402
from tapetum.labelling.session import Session  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "label_walk"
HOURS = 7200.0  # seconds
ENTER = "\ue007"


def save_digits(folder: Path) -> tuple[dict[str, str], Path]:
    """Write the pool without its classes, and the others in a folder per class; returns the truth of the pool."""
    truth = {}
    for split in ("train", "test"):
        for number, (pixels, value) in enumerate(zip(*read_digits(split))):
            name = f"{number:04}.png"
            place = folder / "pool" if split == "train" else folder / "test" / str(value)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - pixels).save(place / name)
            if split == "train":
                truth[name] = str(value)
    return truth, folder / "test"


class Person:
    """Knows what a digit is, and counts key strokes and clicks."""

    def __init__(self, page: Page, truth: dict[str, str]) -> None:
        self.page, self.truth, self.strokes = page, truth, 0

    def press(self, *keys: str) -> None:
        self.page.press(*keys)
        self.strokes += len(keys)

    def answer(self) -> None:
        """Label the image in sight: by its class's key, or by naming a class that has none yet."""
        digit = self.truth[self.page.shown()]
        classes = self.page.texts("#classes .name")
        if digit in classes:
            self.press(str((classes.index(digit) + 1) % 10))
        else:
            self.press("n", digit, ENTER)

    def train(self, session: Session, steps: int) -> dict[str, Any]:
        """Start a training on the page and wait for its end, and for what follows it; returns the run."""
        self.page.open("train")
        self.page.run("document.querySelector('.card select').value = 'steps'")
        self.page.run("document.querySelector('.card input').value = arguments[0]", steps)
        self.page.click("#start")
        self.strokes += 3 + len(str(steps))  # opening, choosing, typing and starting
        until(lambda: (session.training.state() or {})["phase"] in ("done", "failed", "stopped"), HOURS)
        assert session.training.state()["phase"] == "done", session.training.state()
        until(lambda: self.page.run("return state.training.phase === 'done'"))
        self.page.open("label")
        self.strokes += 1
        return session.training.finished()[-1]


def share_right(run: str, test: Path, table: Path) -> float:
    """Percent of images, in a folder per class, that a run predicts rightly; a class that it does not know is wrong."""
    tapetum.predict(run, test, table)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return 100 * sum(row["label"] == row["path"].partition("/")[0] for row in rows) / len(rows)


def walk(folder: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    truth, test = save_digits(folder)
    session = Session(pool_of(folder / "pool"), folder / "labels.csv", "somebody")
    rounds: list[dict[str, Any]] = []
    with chromium(folder / "browser", 1180, 760) as driver, served(session) as address:
        person, began = Person(Page(driver, address), truth), time.perf_counter()
        while len(rounds) < given.rounds:
            for _ in range(given.answers):
                person.answer()
            run = person.train(session, given.steps)
            minutes = (time.perf_counter() - began) / 60
            unseen = share_right(run["run"], test, folder / f"{len(rounds)}.csv")
            rounds.append(
                {
                    "labels": len(session.answers.labels),
                    "strokes": person.strokes,
                    "expected": run["top1"],
                    "interval": run["interval"],
                    "unseen": unseen,
                    "minutes": round(minutes, 2),
                }
            )
            print(json.dumps(rounds[-1]), flush=True)
            if unseen >= given.goal:
                break
            began += time.perf_counter() - began - 60 * minutes  # judging is not part of the walk
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--goal", type=float, default=90.0, help="percent right on images that the page never sees")
    parser.add_argument("--answers", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=6, help="at most")
    parser.add_argument("--steps", type=int, default=100, help="of a training")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rounds = walk(Path(place), given)
    given.folder.mkdir(parents=True, exist_ok=True)
    found = {"images": 1297, "judges": 500, "goal": given.goal, "answers": given.answers, "steps": given.steps}
    found |= {"rounds": rounds, "machine": machine()}
    (given.folder / f"{given.name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
