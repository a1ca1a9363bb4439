"""The log of answers that the label page writes (`tapetum.labelling.answer_log`): the last line of an image counts.

A line has the image as `path`, and its label after the answer as `new`: "" is none of the classes, null is no label. A
crash may cut a line off, so lines that are no JSON are passed over.
"""

from collections.abc import Collection, Iterator

from tapetum.data.label_formats.entries import Entry, as_label, as_name, no_field
from tapetum.data.label_formats.rows import Row


def recognises(fields: Collection[str]) -> bool:
    """Return whether the keys of a JSON line are those of this format."""
    return {"path", "old", "new"} <= set(fields)


def read(rows: Iterator[Row], field: str | None) -> Iterator[Entry]:
    """Yield the last label of each image; an empty one means none of the classes.

    Raises:
        ValueError: a line has no path, or a label that is no text; names it.
    """
    no_field(field)
    last: dict[str, Entry | None] = {}
    for place, row in rows:
        if row is not None:
            name, new = as_name(row.get("path"), place), row.get("new")
            label = new if new is None or new == "" else as_label(new, place)
            last[name] = None if label is None else Entry(place, name, label)
    yield from (entry for entry in last.values() if entry is not None)
