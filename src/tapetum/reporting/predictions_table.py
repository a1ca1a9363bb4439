"""Predictions as lines of CSV or JSON, one per image, or as arrays, one per column.

Spreadsheets run cells that begin with a sign such as "=" as formulas, and names come from anywhere. So in CSV, a path
that begins with one is written as ./PATH, which is the same file, and a class after an apostrophe.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tapetum.data.label_formats.rows import safe_class, safe_path
from tapetum.data.labels.labels import NONE_OF_THESE

_FIRST_NAMES = ("path", "label", "confidence", "calibrated", "in_domain")
_LONGEST = 1 << 20
"""So many bytes of a file's first line are read."""


class Neighbour(NamedTuple):
    """A labelled image near a predicted one."""

    path: str
    label: str
    weight: float


class Row(NamedTuple):
    """The prediction for one image."""

    path: str
    label: str | None
    """None if the image could not be read; "none of these" if it is of no class."""
    confidence: float | None
    neighbours: Sequence[Neighbour]
    problem: str | None = None
    """Why the image could not be read."""
    in_domain: float | None = None
    """How much the image resembles labelled ones, from 0 to 1."""
    method_in_domain: float | None = None
    """The same by the method's own measure, if it has one."""

    def rejected(self, least: float) -> "Row":
        """The row without a class, if the image resembles labelled ones less than `least`."""
        is_like = self.in_domain is None or self.in_domain >= least
        return self if is_like else self._replace(label=NONE_OF_THESE, confidence=None)


class Columns(NamedTuple):
    """What all rows of a table have in common."""

    num_neighbours: int
    is_calibrated: bool
    has_own_measure: bool = False
    """Whether there is a `method_in_domain`."""


def is_predictions(path: Path) -> bool:
    """Whether a file is a table of predictions, as CSV or JSON lines."""
    with path.open("rb") as file:
        line = file.readline(_LONGEST)
    is_json = line.startswith(b'{"path": ') and b'"neighbours"' in line
    return is_json or line.startswith(csv_text([_FIRST_NAMES]).rstrip())


def csv_header(columns: Columns) -> bytes:
    """Make the first line."""
    names = [*_FIRST_NAMES]
    names += ["method_in_domain"] if columns.has_own_measure else []
    for i in range(1, columns.num_neighbours + 1):
        names += [f"neighbour_{i}", f"neighbour_{i}_label", f"neighbour_{i}_weight"]
    return csv_text([[*names, "problem"]])


def csv_lines(rows: Iterable[Row], columns: Columns) -> bytes:
    """Make one line per row; fields for which an unreadable image has no value are empty."""
    return csv_text(_cells(rows, columns))


def as_columns(rows: Sequence[Row], columns: Columns) -> dict[str, npt.NDArray[Any]]:
    """Make an array for each column but `path`: text (empty if there is none), or float64 (NaN if there is none)."""
    calibrated = "yes" if columns.is_calibrated else "no"
    found: dict[str, list[Any]] = {
        "label": [row.label or "" for row in rows],
        "confidence": [row.confidence for row in rows],
        "calibrated": ["" if row.confidence is None else calibrated for row in rows],
        "in_domain": [row.in_domain for row in rows],
    }
    if columns.has_own_measure:
        found["method_in_domain"] = [row.method_in_domain for row in rows]
    for i in range(columns.num_neighbours):
        near = [row.neighbours[i] if row.neighbours else Neighbour("", "", math.nan) for row in rows]
        found[f"neighbour_{i + 1}"] = [neighbour.path for neighbour in near]
        found[f"neighbour_{i + 1}_label"] = [neighbour.label for neighbour in near]
        found[f"neighbour_{i + 1}_weight"] = [neighbour.weight for neighbour in near]
    found["problem"] = [row.problem or "" for row in rows]
    is_number = {name: name.endswith(("confidence", "in_domain", "_weight")) for name in found}
    return {name: np.array(values, np.float64 if is_number[name] else object) for name, values in found.items()}


def json_lines(rows: Iterable[Row], columns: Columns) -> bytes:
    """Make one line per row, each a JSON object."""
    lines = []
    for row in rows:
        content = row._asdict() | {"neighbours": [n._asdict() for n in _rounded(row.neighbours)]}
        if row.confidence is not None:
            content["confidence"] = round(row.confidence, 6)
        if not columns.has_own_measure:
            del content["method_in_domain"]
        for name in content.keys() & {"in_domain", "method_in_domain"}:
            content[name] = None if content[name] is None else round(content[name], 6)
        # As ASCII, because file names may contain bytes that are not text.
        lines.append(json.dumps(content | {"calibrated": columns.is_calibrated}) + "\n")
    return "".join(lines).encode()


def _cells(rows: Iterable[Row], columns: Columns) -> Iterator[list[str]]:
    calibrated = "yes" if columns.is_calibrated else "no"
    num_cells = 5 + columns.has_own_measure + 3 * columns.num_neighbours
    for row in rows:
        cells = [safe_path(row.path), safe_class(row.label or ""), _number(row.confidence)]
        cells += [calibrated if row.confidence is not None else "", _number(row.in_domain)]
        cells += [_number(row.method_in_domain)] if columns.has_own_measure else []
        for neighbour in _rounded(row.neighbours):
            cells += [safe_path(neighbour.path), safe_class(neighbour.label), f"{neighbour.weight:g}"]
        cells += [""] * (num_cells - len(cells))
        yield [*cells, row.problem or ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _rounded(neighbours: Sequence[Neighbour]) -> list[Neighbour]:
    return [n._replace(weight=round(n.weight, 6)) for n in neighbours]


def csv_text(cells: Iterable[Sequence[str]]) -> bytes:
    """Make lines of CSV; file names keep their original bytes."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue().encode(errors="surrogateescape")
