"""Hugging Face's `imagefolder`: metadata.csv or metadata.jsonl beside the images, with their names as `file_name`.

Format: https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence

from tapetum.data.label_formats.entries import Entry, Item, as_label, as_name, chosen_field
from tapetum.data.label_formats.rows import Row, safe_class, safe_path, whole

_NAME = "file_name"
_LABEL = ("label", "labels")


def recognises(fields: Collection[str]) -> bool:
    """Return whether the columns of a CSV, or the keys of a JSON line, are those of this format."""
    return _NAME in fields


def names_its_labels(fields: Collection[str]) -> bool:
    """Return whether there is a column that can hold nothing but labels."""
    return recognises(fields) and any(name in fields for name in _LABEL)


def read(rows: Iterator[Row], field: str | None) -> Iterator[Entry]:
    """Yield an entry for each row that has a label.

    Args:
        rows: those of the CSV or JSON lines.
        field: the column of labels; None for `label`, `labels`, or the only further column.

    Raises:
        ValueError: a row without a file name, or it is not clear which column holds the labels; names the place.
    """
    held = list(whole(rows))
    columns = dict.fromkeys(key for _, row in held for key in row if key != _NAME)
    column = chosen_field(list(columns), _LABEL, field)
    for place, row in held:
        name, label = as_name(row.get(_NAME), place), row.get(column)
        if label is not None and label != "":
            yield Entry(place, name, as_label(label, place), "beside")


def write_csv(items: Sequence[Item], classes: Sequence[str], folder: str) -> str:
    """Make metadata.csv; images without a label have an empty one."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((_NAME, _LABEL[0]))
    writer.writerows((safe_path(item.name), safe_class(item.label or "")) for item in items)
    return text.getvalue()


def write_lines(items: Sequence[Item], classes: Sequence[str], folder: str) -> str:
    """Make metadata.jsonl; images without a label have null."""
    rows = ({_NAME: item.name, _LABEL[0]: item.label} for item in items)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
