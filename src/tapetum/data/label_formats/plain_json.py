"""JSON of paths and labels: an object `{"1.jpg": "cat", ...}`, or a list of objects or pairs of path and label."""

from collections.abc import Iterator
from typing import Any

from tapetum.data.label_formats.entries import Entry, JsonObject, as_label, no_field, shown


def recognises(content: Any) -> bool:
    """Return whether the content is in this format, which is tried last."""
    return True


def read(content: Any, field: str | None) -> Iterator[Entry]:
    """Yield the entries; null means no label.

    Raises:
        ValueError: an item is not a path and a label; names it.
    """
    no_field(field)
    items = content.pairs if isinstance(content, JsonObject) else content
    for number, item in enumerate(items.items() if isinstance(items, dict) else items, start=1):
        place = f"entry {number}"
        image, label = _pair(item, place)
        if label is None:
            continue
        if isinstance(label, int) and not isinstance(label, bool):
            label = str(label)
        if not (isinstance(image, str) and isinstance(label, str) and image.strip() and label.strip()):
            raise ValueError(
                f"{place}: {shown(image)} and {shown(label)} are not a path and a label: write two strings"
            )
        yield Entry(place, image.strip(), as_label(label, place))


def _pair(item: Any, where: str) -> tuple[Any, Any]:
    """Return path and label of an item of a list or of an object, whose items are tuples."""
    if isinstance(item, dict):
        odd = next((key for key in item if key not in ("path", "label")), None)
        if odd is not None:
            raise ValueError(f"{where}: unknown key {shown(odd)}: the keys must be path and label")
        return item.get("path"), item.get("label")
    if isinstance(item, (list, tuple)) and len(item) == 2:
        return item[0], item[1]
    raise ValueError(f'{where}: {shown(item)} is not a path and a label: write {{"path": ..., "label": ...}}')
