"""The formats of label files, and how to recognise and write each: a new one is a module here and a line below."""

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from tapetum.data.label_formats import answers, coco, cvat, fiftyone, imagefolder, label_studio, plain_json
from tapetum.data.label_formats.entries import Entry, Item, parse_json
from tapetum.data.label_formats.rows import Row, rows_of_csv, rows_of_lines, safe_class, safe_path, without_apostrophe


class _JsonReader(Protocol):
    def recognises(self, content: Any, /) -> bool: ...
    def read(self, content: Any, field: str | None, /) -> Iterator[Entry]: ...


class _RowReader(Protocol):
    def recognises(self, fields: Collection[str], /) -> bool: ...
    def read(self, rows: Iterator[Row], field: str | None, /) -> Iterator[Entry]: ...


_OF_JSON: tuple[_JsonReader, ...] = (label_studio, coco, fiftyone, plain_json)
_OF_LINES: tuple[_RowReader, ...] = (imagefolder, answers)
_LINES = (".jsonl", ".ndjson")
_HEAD = 1 << 16  # bytes of a first line that are looked at


def read_entries(suffix: str, content: bytes, field: str | None = None) -> Iterator[Entry] | None:
    """Read the entries of a file in any format but that of `path,label` lines and lists of names.

    Args:
        suffix: the ending of the file's name, in lower case.
        content: the whole file.
        field: which of several fields holds the labels.

    Returns:
        The entries, which raise ValueError where one is wrong; None if the file is CSV of no format known here.

    Raises:
        ValueError: the content is not what its ending says, or no format is recognised. Errors lack the file's name.

    Example:
        >>> next(read_entries(".json", b'{"classes": ["cat"], "labels": {"1": 0}}'))
        Entry(place="label of '1'", image='1', label='cat', naming='stem')
    """
    if suffix == ".xml":
        return cvat.read(content, field)
    if suffix == ".json":
        return _read_json(_text(content), field)
    if suffix in _LINES:
        return _read_lines(_text(content), field)
    if imagefolder.recognises(first_fields(content)):
        entries = imagefolder.read(rows_of_csv(_text(content)), field)
        return (entry._replace(label=without_apostrophe(entry.label)) for entry in entries)
    return None


def first_fields(content: bytes) -> list[str]:
    """Return the fields of the first line of a CSV; none if it is no CSV."""
    line = content[:_HEAD].split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").rstrip("\r")
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not text in UTF-8 ({error}): save it as such") from None


def _read_json(text: str, field: str | None) -> Iterator[Entry]:
    try:
        content, repeated = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error}): correct it, or save it as CSV") from None
    if not isinstance(content, (list, dict)) or not content:
        raise ValueError('holds no labels: write a JSON object such as {"1.jpg": "cat"}')
    reader = next(reader for reader in _OF_JSON if reader.recognises(content))
    if repeated is not None and reader is not plain_json:
        raise ValueError(f"has the key {repeated[:80]!r} twice in one object: delete one of the two")
    return reader.read(content, field)


def _read_lines(text: str, field: str | None) -> Iterator[Entry]:
    rows = list(rows_of_lines(text))
    first = next((row for _, row in rows if row is not None), None)
    if first is None:
        raise ValueError('holds no labels: write lines such as {"file_name": "1.jpg", "label": "cat"}')
    for reader in _OF_LINES:
        if reader.recognises(first):
            return reader.read(iter(rows), field)
    raise ValueError('has lines of an unknown kind: write lines such as {"file_name": "1.jpg", "label": "cat"}')


def _write_csv(items: Sequence[Item], classes: Sequence[str], folder: str) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label"))
    for item in items:
        if item.label is not None:
            name = f"./{item.name}" if item.name[:1].isspace() else safe_path(item.name)  # readers strip blanks
            writer.writerow((name, safe_class(item.label)))
    return text.getvalue()


Write = Callable[[Sequence[Item], Sequence[str], str], str]
"""Makes the text of a file from items, their classes in order, and the name of the images' folder."""
WRITERS: Mapping[str, Mapping[str, Write]] = {
    "label-studio": {".json": label_studio.write},
    "cvat": {".xml": cvat.write},
    "coco": {".json": coco.write},
    "fiftyone": {".json": fiftyone.write},
    "imagefolder": {".jsonl": imagefolder.write_lines, ".csv": imagefolder.write_csv},
    "csv": {".csv": _write_csv},
}
"""Format -> ending of the file's name -> how to write it."""
