"""What the last run thinks: reads the tables of `predict`, `suggest` and `review`, and ranks and groups images."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tapetum.data.label_formats.rows import without_apostrophe
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.system.checksums import refuse_changed

_UNLIKE = 0.05
"""Images that resemble the labelled ones less than this share of these do each other are asked as "none of these"."""


class Suggestion(NamedTuple):
    """An image that `suggest` chose."""

    image: int
    reason: str


class Suspect(NamedTuple):
    """A label that `review` takes for wrong."""

    image: int
    label: str
    """The label at that time."""
    suggested: str | None
    """What the run predicts without it; None for a copy of an image with another label."""
    reason: str
    copies: tuple[int, ...] = ()
    """The copies of it, some of which have other labels."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for a pool of N images."""

    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    """(N,) indices into `classes`; -1 where there is no prediction."""
    confidence: npt.NDArray[np.float64]
    """(N,) from 0 to 1."""
    neighbours: npt.NDArray[np.int64]
    """(N, K) the labelled images that each prediction rests on; -1 for none, or for one outside the pool."""
    neighbour_labels: npt.NDArray[np.int64]
    """(N, K) their classes when the run was trained."""
    weights: npt.NDArray[np.float64]
    """(N, K) their shares."""
    in_domain: npt.NDArray[np.float64]
    """(N,) how much an image resembles labelled ones, from 0 to 1; 1 if unknown."""
    is_calibrated: bool

    def of(self, image: int) -> dict[str, object]:
        """Return class and confidence of one image, for the page and the log."""
        if self.labels[image] < 0:
            return {}
        sure = round(float(self.confidence[image]), 4)
        return {"predicted": self.classes[self.labels[image]], "confidence": sure}

    def basis(self, image: int) -> list[tuple[int, str, float]]:
        """Return (image, class, share) of the labelled images that a prediction rests on."""
        columns = self.neighbours[image], self.neighbour_labels[image], self.weights[image]
        return [(i, self.classes[c], w) for i, c, w in zip(*(column.tolist() for column in columns)) if i >= 0]

    def doubtful(self) -> list[int]:
        """Return all predicted images, the least certain first."""
        return [i for i in np.argsort(self.confidence, kind="stable").tolist() if self.labels[i] >= 0]

    def group(self, name: str) -> list[int]:
        """Return the images predicted to be of a class, the most certain first; or those of `NONE_OF_THESE`."""
        unlike = (self.in_domain < _UNLIKE) & (self.labels >= 0)
        if name == NONE_OF_THESE:
            rank, members = self.in_domain, np.flatnonzero(unlike)
        else:
            number = self.classes.index(name) if name in self.classes else -2
            rank, members = -self.confidence, np.flatnonzero((self.labels == number) & ~unlike)
        return members[np.argsort(rank[members], kind="stable")].tolist()


def read_predictions(path: Path, index: Mapping[str, int]) -> Predictions:
    """Read a table that `predict` wrote.

    Args:
        path: the CSV.
        index: name -> image; rows of others are passed over.

    Raises:
        ValueError: it is not such a table.
    """
    rows = _rows(path, "label", "confidence")
    first = next(rows, {})
    num_neighbours = sum(name.startswith("neighbour_") and name.count("_") == 1 for name in first)
    table = _Table(len(index), num_neighbours, index)
    for row in chain([first], rows):
        if row.get("label") and row.get("confidence"):
            table.add(row)
    return table.done()


class _Table:
    """Collects rows; classes are numbered in the order of appearance."""

    def __init__(self, count: int, num_neighbours: int, index: Mapping[str, int]) -> None:
        self.position: dict[str, int] = {}
        self.index = index
        self.labels = np.full(count, -1, np.int64)
        self.confidence, self.in_domain = np.zeros(count), np.ones(count)
        self.neighbours = np.full((count, num_neighbours), -1, np.int64)
        self.neighbour_labels = np.zeros((count, num_neighbours), np.int64)
        self.weights = np.zeros((count, num_neighbours))
        self.is_calibrated = False

    def add(self, row: Mapping[str, str]) -> None:
        image = self._image(row["path"])
        if image < 0:
            return
        self.labels[image] = self._class(row["label"])
        self.confidence[image] = float(row["confidence"])
        self.in_domain[image] = float(row.get("in_domain") or 1)
        self.is_calibrated |= row.get("calibrated") == "yes"
        for k in range(self.neighbours.shape[1]):
            if name := row[f"neighbour_{k + 1}"]:
                self.neighbours[image, k] = self._image(name)
                self.neighbour_labels[image, k] = self._class(row[f"neighbour_{k + 1}_label"])
                self.weights[image, k] = float(row[f"neighbour_{k + 1}_weight"])

    def done(self) -> Predictions:
        measured = self.labels, self.confidence, self.neighbours, self.neighbour_labels, self.weights, self.in_domain
        return Predictions(tuple(self.position), *measured, self.is_calibrated)

    def _image(self, path: str) -> int:
        return _image(path, self.index)

    def _class(self, text: str) -> int:
        return self.position.setdefault(without_apostrophe(text), len(self.position))


def read_suggestions(path: Path, index: Mapping[str, int]) -> list[Suggestion]:
    """Read a table that `suggest` wrote, the best image first; rows of unknown images are passed over."""
    found = [Suggestion(_image(row["path"], index), row["reason"]) for row in _rows(path, "reason")]
    return [suggestion for suggestion in found if suggestion.image >= 0]


def read_suspects(folder: Path, index: Mapping[str, int]) -> list[Suspect]:
    """Read what `review` found: labels to look at again, then copies with different labels."""
    found = []
    for row in _rows(folder / "label_errors.csv", "label", "suggested", "doubt"):
        reason = f"doubt {float(row['doubt']):.2f}"
        label, suggested = (without_apostrophe(row[key]) for key in ("label", "suggested"))
        found.append(Suspect(_image(row["path"], index), label, suggested, reason))
    groups: dict[str, list[tuple[int, str]]] = {}
    for row in _rows(folder / "conflicts.csv", "group", "label"):
        if (image := _image(row["path"], index)) >= 0:
            groups.setdefault(row["group"], []).append((image, without_apostrophe(row["label"])))
    for group in groups.values():
        for image, label in group:
            copies = tuple(other for other, _ in group if other != image)
            found.append(Suspect(image, label, None, "a copy of it has another label", copies))
    return [suspect for suspect in found if suspect.image >= 0]


def _rows(path: Path, *needed: str) -> Iterator[dict[str, str]]:
    """Read a table with the columns `path` and those that are needed."""
    refuse_changed(path)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.DictReader(file, restval="")
        missing = {"path", *needed} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{path} has no column {sorted(missing)[0]}: give a table that Tapetum wrote.")
        yield from rows


def _image(path: str, index: Mapping[str, int]) -> int:
    """Find an image by its path in a table, which may be written as ./PATH; -1 if there is none."""
    return index.get(path, index.get(path.removeprefix("./"), -1))
