"""Reads labels from files: CSV, a text file that lists the images that keep their own labels, and formats of others."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence

from tapetum.data.label_formats.entries import Entry, as_label, shown
from tapetum.data.label_formats.formats import read_entries
from tapetum.data.label_formats.rows import without_apostrophe
from tapetum.data.labels.kept_labels import keep_listed
from tapetum.data.labels.labels import NONE_OF_THESE, Labels, labels_from_names
from tapetum.data.labels.name_matcher import NameMatcher
from tapetum.system.addresses import Address, Place
from tapetum.system.remote import read_bytes

_PATH_COLUMNS = {"path", "file", "filename", "file_name", "image", "image_id", "id", "name"}
_LABEL_COLUMNS = {"label", "class", "category", "species", "target"}
"""Names that a header may give the two columns."""
_MOST_FIELDS = 100  # more than two are an error, which shows some of them
_HINT = " (a header, if there is one, must be path,label)"


def read_label_file(
    path: Place,
    names: Sequence[str],
    root: Place | None = None,
    own: Callable[[], Labels | None] = lambda: None,
    field: str | None = None,
) -> Labels:
    """Read labels from a file, whose format is chosen by the ending of its name and recognised by its content.

    - `.json`, `.jsonl`, `.xml` and CSV with a column `file_name`: see `tapetum.data.label_formats`;
    - `.txt` without a comma in its first line: one name or one index per line, as in the published splits of SimCLR and
      PAWS. These images keep the labels that they come with; all others are unlabelled (see `keep_listed`);
    - anything else: CSV of `path,label` lines, with or without the header `path,label`. Fields are separated by commas,
      or by semicolons or tabs if the first line has no comma.

    Args:
        path: the file, in UTF-8, here or on another machine. Paths in it may be absolute, relative to `root` or to the
            file's folder, or unique bare file names, with or without their ending. Images that it does not name are
            unlabelled.
        names: the store's names; for arrays, the row numbers.
        root: the folder the names are relative to; None for stores that are not files.
        own: returns the labels that the images come with; called only for lists of names or indices.
        field: which field of the file holds the labels, if there are several.

    Raises:
        ValueError: the file cannot be read, or has an unknown image or column, two labels for one image, a line
            without a label, a faulty index, or only one class; names file, line, value and the fix.
    """
    if path.suffix.lower() == ".txt" and field is None:
        lines = read_lines(path, "labels file")
        if "," not in lines[0][1]:
            return keep_listed(path, lines, NameMatcher(names, root, path.parent), own())
    return labels_in(_content(path), path, names, root, field)


def labels_in(
    content: bytes, path: Place, names: Sequence[str], root: Place | None = None, field: str | None = None
) -> Labels:
    """Read labels from the content of a file, as `read_label_file` does.

    Args:
        content: the bytes of the file.
        path: where it lies or will lie.
        names, root, field: as for `read_label_file`.

    Raises:
        ValueError: as there.
    """
    try:
        entries = read_entries(path.suffix.lower(), content, field)
    except ValueError as error:
        raise ValueError(f"labels file {path} {error}") from None
    if entries is None and field is not None:
        raise ValueError(f"{path} has no field {field!r} to choose: leave out ':{field}'")
    matcher = NameMatcher(names, root, path.parent)
    if entries is None:
        return _labels_of(path, _csv_entries(path, content), matcher, _HINT)
    return _labels_of(path, _named(path, entries), matcher)


def _named(path: Place, entries: Iterator[Entry]) -> Iterator[Entry]:
    """Begin the errors of a reader that does not know the file with its name."""
    try:
        yield from entries
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None


def read_answers(path: Place, matcher: NameMatcher) -> dict[int, str]:
    """Read a CSV of path,label lines while somebody labels: it may be empty yet, or name a single class.

    Returns:
        Image -> class or `NONE_OF_THESE`, in the order of the file.

    Raises:
        ValueError: the file cannot be read, names an unknown image, or has two labels for one.
    """
    content = _content(path)
    if content.decode(errors="replace").strip("\ufeff \t\r\n").lower() in ("", "path,label"):
        return {}
    return _class_of(path, _csv_entries(path, content), matcher)


def _labels_of(path: Place, entries: Iterator[Entry], matcher: NameMatcher, hint: str = "") -> Labels:
    class_of = _class_of(path, entries, matcher, hint)
    try:
        return labels_from_names(matcher.names, [class_of.get(image) for image in range(len(matcher.names))])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _class_of(path: Place, entries: Iterator[Entry], matcher: NameMatcher, hint: str = "") -> dict[int, str]:
    class_of: dict[int, str] = {}
    place_of: dict[int, str] = {}
    for place, name, label, naming in entries:
        where = f"{path}, {place}"
        try:
            image = matcher.find(name, naming)
        except ValueError as error:
            raise ValueError(f"{where}: {error}{hint if place == 'line 1' else ''}") from None
        label = label or NONE_OF_THESE
        if class_of.setdefault(image, label) != label:
            raise ValueError(
                f"{where}: {shown(name)} is labelled {shown(label)}, but {shown(class_of[image])} at "
                f"{place_of[image]}: delete one of the two"
            )
        place_of[image] = place
    return class_of


def _csv_entries(path: Place, content: bytes) -> Iterator[Entry]:
    for line, fields in _rows(path, content, "strict"):
        if len(fields) != 2 or not all(fields):
            raise ValueError(
                f"{path}, line {line}: {shown(','.join(fields[:9]))} is not path,label: write two fields and one comma"
            )
        label = as_label(without_apostrophe(fields[1]), f"{path}, line {line}")
        yield Entry(f"line {line}", fields[0], label)


def csv_rows(path: Place, errors: str = "strict") -> list[tuple[int, list[str]]]:
    """Read (line number, stripped fields) of all lines that are not blank; the header is checked and left out."""
    return _rows(path, _content(path), errors)


def _content(path: Place, what: str = "labels file") -> bytes:
    if isinstance(path, Address):
        try:
            return read_bytes(path)
        except FileNotFoundError:
            raise ValueError(f"there is no {what} {path}: check the address") from None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{what} {path} cannot be read ({error.strerror}): check the path") from error


def _rows(path: Place, content: bytes, errors: str) -> list[tuple[int, list[str]]]:
    try:
        text = content.decode("utf-8-sig", errors=errors)
        first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
        delimiter = next((sign for sign in ",;\t" if sign in first), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        stripped = ((reader.line_num, [field.strip() for field in row[:_MOST_FIELDS]]) for row in reader)
        rows = [(line, fields) for line, fields in stripped if any(fields)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"labels file {path} is not CSV in UTF-8 ({error}): save it as such") from error
    header = [field.lower() for field in rows[0][1]] if rows else []
    is_known = len(header) in (1, 2) and header[0] in _PATH_COLUMNS and _LABEL_COLUMNS.issuperset(header[1:])
    if is_known or {"path", "label"} & set(header):
        line, fields = rows.pop(0)
        if not is_known:
            odd = next((f for f in fields if f.lower() not in ("path", "label")), ",".join(fields[:9]))
            raise ValueError(f"{path}, line {line}: unknown column {shown(odd)}: the header must be path,label")
    if not rows:
        raise ValueError(f"labels file {path} is empty: write one path,label line per labelled image")
    return rows


def read_lines(path: Place, what: str) -> list[tuple[int, str]]:
    """Read (line number, stripped text) of all lines of a UTF-8 file that are not blank.

    Args:
        path: the file.
        what: what errors call the file, e.g. "labels file".

    Raises:
        ValueError: the file cannot be read, is not text, or is empty.
    """
    try:
        text = _content(path, what).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {path} is not text in UTF-8 ({error}): save it as such") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"{what} {path} is empty: write one name a line")
    return lines
