"""Pools given as lists of image files: a list of paths, a .txt of one path per line, a .csv of paths and labels."""

import os
from collections.abc import Iterable
from pathlib import Path

from tapetum.data.images.stores import FileStore
from tapetum.data.label_formats.entries import is_printable, shown
from tapetum.data.label_formats.rows import without_apostrophe
from tapetum.data.labels.label_files import csv_rows
from tapetum.data.labels.labels import Labels, labels_from_names


def listed_files(paths: Iterable[tuple[str, str | os.PathLike[str]]], folder: Path) -> FileStore:
    """Open the listed files as a pool, with names relative to the deepest folder that holds them all.

    Args:
        paths: (where it is listed, e.g. "list.txt, line 3"; path); paths are absolute or relative to `folder`.
        folder: the folder that relative paths start from.

    Raises:
        ValueError: a file does not exist or is listed twice; names its place in the list.
    """
    listed_at: dict[str, str] = {}
    for where, given in paths:
        path = os.path.abspath(folder / os.fspath(given))
        if path in listed_at:
            raise ValueError(
                f"{where}: image {shown(os.fspath(given))} is already listed at {listed_at[path]}: delete one of them"
            )
        if not os.path.isfile(path):
            raise ValueError(f"{where}: there is no image {path}: correct the path or delete the line")
        listed_at[path] = where
    root = os.path.commonpath([os.path.dirname(path) for path in listed_at])
    return FileStore(root, [Path(os.path.relpath(path, root)).as_posix() for path in listed_at])


def read_listing(path: Path) -> tuple[FileStore, Labels | None]:
    """Read images and labels from a CSV with lines `path` or `path,label`, in which the label may be empty.

    The first line may be such a header.

    Raises:
        ValueError: as in `read_label_file`, or a file does not exist or is listed twice.
    """
    rows = csv_rows(path, errors="surrogateescape")  # file names may be in any encoding
    for line, fields in rows:
        if not all(map(is_printable, fields[1:])):
            raise ValueError(f"{path}, line {line}: label {shown(fields[1])} cannot be printed: write it in UTF-8")
        if len(fields) > 2 or not fields[0]:
            raise ValueError(
                f"{path}, line {line}: {shown(','.join(fields[:9]))} is not path,label: write two fields and one comma"
            )
    store = listed_files(((f"{path}, line {line}", fields[0]) for line, fields in rows), path.parent)
    classes = [without_apostrophe(fields[1]) or None if len(fields) == 2 else None for _, fields in rows]
    if not any(classes):
        return store, None
    try:
        return store, labels_from_names(store.names, classes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
