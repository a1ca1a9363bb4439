"""The table that `predict` writes, as CSV or JSON lines: labels and confidences.

`tapetum.reporting.predictions_table` describes it.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from tapetum.data.label_formats.entries import as_label, as_name, shown
from tapetum.data.label_formats.rows import rows_of_csv, rows_of_lines, whole, without_apostrophe


class Prediction(NamedTuple):
    """One row of the table."""

    place: str
    """Position in the file."""
    path: str
    label: str
    confidence: float | None
    """From 0 to 1; None where the label is none of the classes."""


def read(text: str) -> Iterator[Prediction]:
    """Yield the rows of all images that could be read.

    Raises:
        ValueError: it is no such table; names the line.
    """
    is_json = text.lstrip().startswith("{")
    for place, row in whole(rows_of_lines(text)) if is_json else rows_of_csv(text):
        lacking = next((key for key in ("path", "label", "confidence") if key not in row), None)
        if lacking is not None:
            raise ValueError(f"{place}: there is no {lacking!r}: give a table that `tapetum predict` wrote")
        label = row["label"] if is_json else without_apostrophe(row["label"])
        if label:
            confidence = _confidence(row["confidence"], place)
            yield Prediction(place, as_name(row["path"], place), as_label(label, place), confidence)


def _confidence(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        confidence = float(value)
    except (TypeError, ValueError):
        confidence = math.nan
    if not 0 <= confidence <= 1:
        raise ValueError(f"{where}: confidence is {shown(value)}: it must be a number from 0 to 1")
    return confidence
