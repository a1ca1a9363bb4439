"""Text files of one name or path a line, and pools that are lists of paths."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tapetum.data.stores import FileStore


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """(line number, stripped text) of the lines of a UTF-8 file that hold something.

    Args:
        path: the file.
        what: what an error calls it, e.g. "labels file".

    Raises:
        ValueError: it cannot be read, is no text, or is empty.
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


def listed_files(paths: Iterable[tuple[str, str | os.PathLike[str]]], folder: Path) -> FileStore:
    """A pool of the listed files, its names relative to the deepest folder that holds them all.

    Args:
        paths: (where it is listed, e.g. "list.txt, line 3"; path), paths absolute or relative to `folder`.
        folder: what relative paths start from.

    Raises:
        ValueError: a file does not exist or is listed twice; says where.
    """
    listed_at: dict[str, str] = {}
    for where, given in paths:
        path = os.path.abspath(folder / os.fspath(given))
        if path in listed_at:
            raise ValueError(
                f"{where}: image {os.fspath(given)!r} stands at {listed_at[path]} already: delete one of the two"
            )
        if not os.path.isfile(path):
            raise ValueError(f"{where}: there is no image {path}: correct the path or delete the line")
        listed_at[path] = where
    root = os.path.commonpath([os.path.dirname(path) for path in listed_at])
    return FileStore(root, [Path(os.path.relpath(path, root)).as_posix() for path in listed_at])
