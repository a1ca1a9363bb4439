"""Finds the images that a list or a label file means by what it calls them."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath


class NameMatcher:
    """Finds the image that a line of a label file means: by absolute path, relative path or bare file name, with
    or without its ending."""

    def __init__(self, names: Sequence[str], root: Path | None, folder: Path) -> None:
        self.names = names
        self._index = {name: i for i, name in enumerate(names)}
        self._bare: dict[str, list[str]] = {}
        for name in names:
            for bare in {PurePosixPath(name).name, PurePosixPath(name).stem}:
                self._bare.setdefault(bare, []).append(name)
        # As written and with links resolved, because a label file may use either.
        self._roots = [] if root is None else [Path(os.path.abspath(root)), Path(os.path.realpath(root))]
        self._folder = Path(os.path.abspath(folder))

    def _below_root(self, text: str) -> int | None:
        path = Path(os.path.normpath(self._folder / text))  # an absolute path replaces the folder
        for candidate in (path, Path(os.path.realpath(path.parent)) / path.name):
            for root in self._roots:
                if candidate.is_relative_to(root):
                    found = self._index.get(candidate.relative_to(root).as_posix())
                    if found is not None:
                        return found
        return None

    def matches(self, text: str) -> list[int]:
        """Return the indices of all images that the text may mean: none, one, or several with one bare name."""
        posix = text.replace("\\", "/").removeprefix("./")
        for candidate in (text, posix):
            if candidate in self._index:
                return [self._index[candidate]]
        found = self._below_root(posix)
        return [self._index[name] for name in self._bare.get(posix, [])] if found is None else [found]

    def find(self, text: str) -> int:
        """Return the index of the image. The ValueError lacks file and line, which the caller adds."""
        found = self.matches(text)
        if len(found) == 1:
            return found[0]
        if found:
            one, other = (self.names[i] for i in found[:2])
            raise ValueError(f"{text!r} could be {one} or {other}: write its path relative to the image folder")
        where = f" in {self._roots[0]}" if self._roots else ""
        raise ValueError(f"there is no image {text!r}{where}: correct the path or delete the line")
