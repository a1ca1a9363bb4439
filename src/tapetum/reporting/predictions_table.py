"""Predictions as lines of CSV or JSON, one per image."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Neighbour(NamedTuple):
    """A labelled image near a predicted one."""

    path: str
    label: str
    weight: float


class Row(NamedTuple):
    """The prediction for one image."""

    path: str
    label: str | None
    """None if the image could not be read."""
    confidence: float | None
    neighbours: Sequence[Neighbour]
    problem: str | None = None
    """Why the image could not be read."""
    in_domain: float | None = None
    """How similar the image is to labelled ones, if the method reports it."""


def csv_header(num_neighbours: int, has_domain: bool) -> bytes:
    """Make the first line."""
    names = ["path", "label", "confidence", "calibrated", *(["in_domain"] if has_domain else [])]
    for i in range(1, num_neighbours + 1):
        names += [f"neighbour_{i}", f"neighbour_{i}_label", f"neighbour_{i}_weight"]
    return csv_text([[*names, "problem"]])


def csv_lines(rows: Iterable[Row], num_neighbours: int, is_calibrated: bool, has_domain: bool) -> bytes:
    """Make one line per row; fields for which an unreadable image has no value are empty."""
    return csv_text(_cells(rows, num_neighbours, "yes" if is_calibrated else "no", has_domain))


def json_lines(rows: Iterable[Row], is_calibrated: bool, has_domain: bool) -> bytes:
    """Make one line per row, each a JSON object."""
    lines = []
    for row in rows:
        content = row._asdict() | {"neighbours": [n._asdict() for n in _rounded(row.neighbours)]}
        if row.confidence is not None:
            content["confidence"] = round(row.confidence, 6)
        domain = content.pop("in_domain")
        if has_domain:
            content["in_domain"] = None if domain is None else round(domain, 6)
        # As ASCII, because file names may contain bytes that are not text.
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
    """Make lines of CSV; file names keep their original bytes."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue().encode(errors="surrogateescape")
