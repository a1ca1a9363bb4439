"""Labels from CSV files: one line `path,label` per labelled image."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tapetum.data.labels import Labels, labels_from_names


class _NameMatcher:
    """Finds the image that a line of a label file means: by absolute path, relative path or bare file name."""

    def __init__(self, names: Sequence[str], root: Path | None, folder: Path) -> None:
        self._index = {name: i for i, name in enumerate(names)}
        self._bare: dict[str, list[str]] = {}
        for name in names:
            self._bare.setdefault(PurePosixPath(name).name, []).append(name)
        # As written and with links followed: a label file may spell either.
        self._roots = [] if root is None else [Path(os.path.abspath(root)), root.resolve()]
        self._folder = Path(os.path.abspath(folder))

    def _below_root(self, text: str) -> int | None:
        path = Path(os.path.normpath(self._folder / text))  # an absolute path replaces the folder
        for candidate in (path, path.parent.resolve() / path.name):
            for root in self._roots:
                if candidate.is_relative_to(root):
                    found = self._index.get(candidate.relative_to(root).as_posix())
                    if found is not None:
                        return found
        return None

    def find(self, text: str) -> int:
        """Index of the image; ValueError without file and line, which the caller adds."""
        posix = text.replace("\\", "/").removeprefix("./")
        for candidate in (text, posix):
            if candidate in self._index:
                return self._index[candidate]
        found = self._below_root(posix)
        if found is not None:
            return found
        alike = self._bare.get(posix, [])
        if len(alike) == 1:
            return self._index[alike[0]]
        if alike:
            raise ValueError(f"{text!r} could be {alike[0]} or {alike[1]}: write the path from the folder on")
        where = f" in {self._roots[0]}" if self._roots else ""
        raise ValueError(f"there is no image {text!r}{where}: correct the path or delete the line")


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, stripped fields) of the lines that hold something; the header is taken off and checked."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            stripped = ((reader.line_num, [field.strip() for field in row]) for row in reader)
            rows = [(line, fields) for line, fields in stripped if any(fields)]
    except OSError as error:
        raise ValueError(f"labels file {path} cannot be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"labels file {path} is not CSV in UTF-8 ({error}): save it as such") from error
    if rows and {"path", "label"} & {field.lower() for field in rows[0][1]}:
        line, header = rows.pop(0)
        if [field.lower() for field in header] != ["path", "label"]:
            odd = next((f for f in header if f.lower() not in ("path", "label")), ",".join(header))
            raise ValueError(f"{path}, line {line}: unknown column {odd!r}: the header must be path,label")
    if not rows:
        raise ValueError(f"labels file {path} is empty: write one line path,label per labelled image")
    return rows


def read_csv(path: Path | str, names: Sequence[str], root: Path | None = None) -> Labels:
    """Read `path,label` lines; the header `path,label` may be there or not.

    Args:
        path: CSV in UTF-8. Its paths may be absolute, relative to `root` or to the CSV's folder, or bare file
            names where these are unique. Images that no line names are unlabelled.
        names: the store's names.
        root: the folder the names are relative to; None for stores that are not files.

    Raises:
        ValueError: naming file, line, value and the fix: no such image, two labels for one image, an unknown
            column, a line without a label, or one class only.
    """
    path = Path(path)
    matcher = _NameMatcher(names, root, path.parent)
    class_of: list[str | None] = [None] * len(names)
    line_of: dict[int, int] = {}
    for line, fields in _rows(path):
        where = f"{path}, line {line}"
        if len(fields) != 2 or not all(fields):
            raise ValueError(f"{where}: {','.join(fields)!r} is not path,label: write two fields and one comma")
        try:
            image = matcher.find(fields[0])
        except ValueError as error:
            hint = " (a header, if there is one, must be path,label)" if line == 1 else ""
            raise ValueError(f"{where}: {error}{hint}") from None
        if class_of[image] not in (None, fields[1]):
            raise ValueError(
                f"{where}: {fields[0]!r} is labelled {fields[1]!r}, but {class_of[image]!r} "
                f"on line {line_of[image]}: delete one of the two lines"
            )
        class_of[image] = fields[1]
        line_of[image] = line
    try:
        return labels_from_names(names, class_of)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
