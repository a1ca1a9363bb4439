"""Predictions as lines of CSV or JSON, one for each image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Neighbour(NamedTuple):
    """A labelled image beside a predicted one."""

    path: str
    label: str
    weight: float


class Row(NamedTuple):
    """What is said of one image."""

    path: str
    label: str | None
    """None where the image could not be read."""
    confidence: float | None
    neighbours: Sequence[Neighbour]
    problem: str | None = None
    """Why the image could not be read."""
    in_domain: float | None = None
    """How much the image is like labelled ones, where the method says so."""


def csv_header(num_neighbours: int, has_domain: bool) -> bytes:
    """The first line."""
    names = ["path", "label", "confidence", "calibrated", *(["in_domain"] if has_domain else [])]
    for i in range(1, num_neighbours + 1):
        names += [f"neighbour_{i}", f"neighbour_{i}_label", f"neighbour_{i}_weight"]
    return csv_text([[*names, "problem"]])


def csv_lines(rows: Iterable[Row], num_neighbours: int, is_calibrated: bool, has_domain: bool) -> bytes:
    """A line for each row; what an unreadable image has no value for is empty."""
    return csv_text(_cells(rows, num_neighbours, "yes" if is_calibrated else "no", has_domain))


def json_lines(rows: Iterable[Row], is_calibrated: bool, has_domain: bool) -> bytes:
    """A JSON object in a line for each row."""
    lines = []
    for row in rows:
        content = row._asdict() | {"neighbours": [n._asdict() for n in _rounded(row.neighbours)]}
        if row.confidence is not None:
            content["confidence"] = round(row.confidence, 6)
        domain = content.pop("in_domain")
        if has_domain:
            content["in_domain"] = None if domain is None else round(domain, 6)
        # As ASCII: file names may hold bytes that are no text.
        lines.append(json.dumps(content | {"calibrated": is_calibrated}) + "\n")
    return "".join(lines).encode()


def _cells(rows: Iterable[Row], num_neighbours: int, calibrated: str, has_domain: bool) -> Iterator[list[str]]:
    for row in rows:
        cells = [row.path, row.label or "", _number(row.confidence), calibrated if row.label is not None else ""]
        cells += [_number(row.in_domain)] if has_domain else []
        for neighbour in _rounded(row.neighbours):
            cells += [neighbour.path, neighbour.label, f"{neighbour.weight:g}"]
        cells += [""] * (4 + has_domain + 3 * num_neighbours - len(cells))
        yield [*cells, row.problem or ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _rounded(neighbours: Sequence[Neighbour]) -> list[Neighbour]:
    return [n._replace(weight=round(n.weight, 6)) for n in neighbours]


def csv_text(cells: Iterable[Sequence[str]]) -> bytes:
    """Lines of CSV; file names keep the bytes that they have."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue().encode(errors="surrogateescape")
