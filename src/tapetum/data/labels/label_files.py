"""Reads labels from files: CSV, JSON, or a text file that lists the images that keep their own labels."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tapetum.data.labels.kept_labels import keep_listed
from tapetum.data.labels.labels import Labels, labels_from_names
from tapetum.data.labels.name_matcher import NameMatcher

_PATH_COLUMNS = {"path", "file", "filename", "file_name", "image", "image_id", "id", "name"}
_LABEL_COLUMNS = {"label", "class", "category", "species", "target"}
"""Names that a header may give the two columns."""


class _Entry(NamedTuple):
    place: str
    """Position in the file, e.g. "line 3"."""
    image: str
    label: str


def read_label_file(
    path: Path, names: Sequence[str], root: Path | None = None, own: Callable[[], Labels | None] = lambda: None
) -> Labels:
    """Read labels from a file, whose format is chosen by the ending of its name.

    - `.json`: `{"1.jpg": "cat", ...}`, or a list of `{"path": "1.jpg", "label": "cat"}` or of `["1.jpg", "cat"]`;
      null means no label;
    - `.txt` without a comma in its first line: one name or one index per line, as in the published splits of SimCLR and
      PAWS. These images keep the labels that they come with; all others are unlabelled (see `keep_listed`);
    - anything else: CSV of `path,label` lines, with or without the header `path,label`. Fields are separated by commas,
      or by semicolons or tabs if the first line has no comma.

    Args:
        path: the file, in UTF-8. Paths in it may be absolute, relative to `root` or to the file's folder, or unique
            bare file names, with or without their ending. Images that it does not name are unlabelled.
        names: the store's names; for arrays, the row numbers.
        root: the folder the names are relative to; None for stores that are not files.
        own: returns the labels that the images come with; called only for lists of names or indices.

    Raises:
        ValueError: the file cannot be read, or has an unknown image or column, two labels for one image, a line
            without a label, a faulty index, or only one class; names file, line, value and the fix.
    """
    path = Path(path)
    matcher = NameMatcher(names, root, path.parent)
    if path.suffix.lower() == ".json":
        return _labels_of(path, _json_entries(path), matcher, names)
    if path.suffix.lower() == ".txt":
        lines = read_lines(path, "labels file")
        if "," not in lines[0][1]:
            return keep_listed(path, lines, matcher, own())
    return _labels_of(path, _csv_entries(path), matcher, names)


def _labels_of(path: Path, entries: Iterator[_Entry], matcher: NameMatcher, names: Sequence[str]) -> Labels:
    class_of: list[str | None] = [None] * len(names)
    place_of: dict[int, str] = {}
    for place, name, label in entries:
        where = f"{path}, {place}"
        try:
            image = matcher.find(name)
        except ValueError as error:
            hint = " (a header, if there is one, must be path,label)" if place == "line 1" else ""
            raise ValueError(f"{where}: {error}{hint}") from None
        if class_of[image] not in (None, label):
            raise ValueError(
                f"{where}: {name!r} is labelled {label!r}, but {class_of[image]!r} at {place_of[image]}: delete one of "
                "the two"
            )
        class_of[image] = label
        place_of[image] = place
    try:
        return labels_from_names(names, class_of)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _csv_entries(path: Path) -> Iterator[_Entry]:
    for line, fields in csv_rows(path):
        if len(fields) != 2 or not all(fields):
            raise ValueError(
                f"{path}, line {line}: {','.join(fields)!r} is not path,label: write two fields and one comma"
            )
        yield _Entry(f"line {line}", *fields)


def csv_rows(path: Path, errors: str = "strict") -> list[tuple[int, list[str]]]:
    """Read (line number, stripped fields) of all lines that are not blank; the header is checked and left out."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors=errors) as file:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            reader = csv.reader(file, delimiter=next((sign for sign in ",;\t" if sign in first), ","))
            stripped = ((reader.line_num, [field.strip() for field in row]) for row in reader)
            rows = [(line, fields) for line, fields in stripped if any(fields)]
    except OSError as error:
        raise ValueError(f"labels file {path} cannot be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"labels file {path} is not CSV in UTF-8 ({error}): save it as such") from error
    header = [field.lower() for field in rows[0][1]] if rows else []
    is_pair = len(header) == 2 and header[0] in _PATH_COLUMNS and header[1] in _LABEL_COLUMNS
    if is_pair or {"path", "label"} & set(header):
        line, fields = rows.pop(0)
        if not is_pair:
            odd = next((f for f in fields if f.lower() not in ("path", "label")), ",".join(fields))
            raise ValueError(f"{path}, line {line}: unknown column {odd!r}: the header must be path,label")
    if not rows:
        raise ValueError(f"labels file {path} is empty: write one path,label line per labelled image")
    return rows


class _Object(list[tuple[str, Any]]):
    """A JSON object as a list of (key, value) pairs in order, including repeated keys."""


def _json_entries(path: Path) -> Iterator[_Entry]:
    for number, item in enumerate(_json_items(path), start=1):
        place = f"entry {number}"
        image, label = _json_pair(item, f"{path}, {place}")
        if label is None:
            continue
        if isinstance(label, int) and not isinstance(label, bool):
            label = str(label)
        if not (isinstance(image, str) and isinstance(label, str) and image.strip() and label.strip()):
            raise ValueError(f"{path}, {place}: {image!r} and {label!r} are not a path and a label: write two strings")
        if not label.isprintable():
            raise ValueError(f"{path}, {place}: label {label!r} cannot be printed: use letters, digits and punctuation")
        yield _Entry(place, image.strip(), label.strip())


def _json_items(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_Object)
    except OSError as error:
        raise ValueError(f"labels file {path} cannot be read ({error.strerror}): check the path") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"labels file {path} is not JSON ({error}): correct it, or save it as CSV") from error
    if not isinstance(content, list) or not content:
        raise ValueError(f'labels file {path} holds no labels: write a JSON object such as {{"1.jpg": "cat"}}')
    return content


def _json_pair(item: Any, where: str) -> tuple[Any, Any]:
    """Return path and label of an item from a list or from an object, whose items are tuples."""
    if isinstance(item, _Object):
        odd = next((key for key, _ in item if key not in ("path", "label")), None)
        if odd is not None:
            raise ValueError(f"{where}: unknown key {odd!r}: the keys must be path and label")
        return dict(item).get("path"), dict(item).get("label")
    if isinstance(item, (list, tuple)) and len(item) == 2:
        return item[0], item[1]
    raise ValueError(f'{where}: {item!r} is not a path and a label: write {{"path": ..., "label": ...}}')


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """Read (line number, stripped text) of all lines of a UTF-8 file that are not blank.

    Args:
        path: the file.
        what: what errors call the file, e.g. "labels file".

    Raises:
        ValueError: the file cannot be read, is not text, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{what} {path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {path} is not text in UTF-8 ({error}): save it as such") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"{what} {path} is empty: write one name a line")
    return lines
