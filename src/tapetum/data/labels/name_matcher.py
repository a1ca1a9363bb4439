"""Finds the images that a list or a label file means by what it calls them."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from tapetum.data.label_formats.entries import LONGEST_NAME, Naming, composed
from tapetum.system.addresses import Address, Place


class NameMatcher:
    """Finds the image that a line of a label file means: by absolute path, relative path or bare file name, with
    or without its ending. If none is written so, one counts that differs only in how its accents are stored."""

    def __init__(self, names: Sequence[str], root: Place | None, folder: Place) -> None:
        self.names, self._root = names, root
        self._index = {name: i for i, name in enumerate(names)}
        self._bare: dict[str, list[str]] = {}
        for name in names:
            for bare in {PurePosixPath(name).name, PurePosixPath(name).stem}:
                self._bare.setdefault(bare, []).append(name)
        # As written and with links resolved, because a label file may use either.
        here = root if isinstance(root, Path) else None
        self._roots = [] if here is None else [Path(os.path.abspath(here)), Path(os.path.realpath(here))]
        self._folder = folder if isinstance(folder, Address) else Path(os.path.abspath(folder))
        self._elsewhere = root if isinstance(root, Address) else None

    def _below_address(self, text: str, root: Address) -> int | None:
        """Find what is below an address, if the text is one or is relative to the folder of a file there."""
        if "://" not in text and isinstance(self._folder, Address):
            store, _, folder = self._folder.text.partition("://")
            text = f"{store}://{posixpath.normpath(posixpath.join(folder, text))}"
        return self._index.get(text.removeprefix(f"{root}/")) if text.startswith(f"{root}/") else None

    def _below_root(self, text: str) -> int | None:
        if len(text) > LONGEST_NAME:
            return None
        if self._elsewhere is not None:
            return self._below_address(text, self._elsewhere)
        if isinstance(self._folder, Address):
            return None
        path = Path(os.path.normpath(self._folder / text))  # an absolute path replaces the folder
        try:
            candidates = path, Path(os.path.realpath(path.parent)) / path.name
        except ValueError:  # signs that no file system takes
            return None
        for candidate in candidates:
            for root in self._roots:
                if candidate.is_relative_to(root):
                    found = self._index.get(candidate.relative_to(root).as_posix())
                    if found is not None:
                        return found
        return None

    def matches(self, text: str) -> list[int]:
        """Return the indices of all images that the text may mean: none, one, or several with one bare name."""
        return self._named(text, "path")

    def _matches(self, text: str) -> list[int]:
        posix = text.replace("\\", "/").removeprefix("./")
        for candidate in (text, text.removeprefix("./"), posix):
            if candidate in self._index:
                return [self._index[candidate]]
        found = self._below_root(posix)
        return self._of(self._bare.get(posix, [])) if found is None else [found]

    def _of(self, names: Sequence[str]) -> list[int]:
        return [self._index[name] for name in names]

    @cached_property
    def _composed(self) -> NameMatcher | None:
        """The same images under composed names; None where two of these would be one."""
        names = [composed(name) for name in self.names]
        return NameMatcher(names, self._root, self._folder) if len(set(names)) == len(names) else None

    def _named(self, text: str, naming: Naming) -> list[int]:
        found = self._as_written(text, naming)
        if len(found) == 1 or text.isascii() or self._composed is None:
            return found
        return self._composed._as_written(composed(text), naming) or found

    def _as_written(self, text: str, naming: Naming) -> list[int]:
        if naming == "beside":
            found = self._below_root(text)
            return self._matches(text) if found is None else [found]
        if naming == "stem":
            return self._of(self._stems.get(text, [])) or self._matches(text)
        if naming == "upload":
            return self._of(self._uploads.get(text, []))
        if naming == "tail" or (naming == "name" and text not in self._index):
            return self._by_tail(text)
        return self._matches(text)

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        """Names without their endings -> names."""
        stems: dict[str, list[str]] = {}
        for name in self.names:
            stems.setdefault(os.path.splitext(name)[0], []).append(name)
        return stems

    @cached_property
    def _uploads(self) -> dict[str, list[str]]:
        """Bare names as Django, the server of Label Studio, stores an uploaded file -> names."""
        uploads: dict[str, list[str]] = {}
        for name in self.names:
            bare = re.sub(r"[^-\w.]", "", PurePosixPath(name).name.strip().replace(" ", "_"))
            uploads.setdefault(bare, []).append(name)
        return uploads

    @cached_property
    def _depth(self) -> int:
        return 1 + max((name.count("/") for name in self.names), default=0)

    def _by_tail(self, text: str) -> list[int]:
        """Find the longest end of a path that is a name, or else the images of its bare name.

        Where both lie in folders, a bare name is not enough: an absent `dog/1.jpg` is not `cat/1.jpg`. In a folder
        `cats` that holds `1.jpg` and `cats/1.jpg`, the path `cats/1.jpg` may be either.
        """
        for path in (text, text.replace("\\", "/")):
            parts = path.split("/")
            ends = {i: "/".join(parts[i:]) for i in range(max(0, len(parts) - self._depth), len(parts))}
            found = [i for i, end in ends.items() if end in self._index]
            if found and found[0] < len(parts) - 1:
                folders = {root.name for root in self._roots}
                return self._of([ends[found[0]], *(ends[i] for i in found[1:] if parts[i - 1] in folders)])
            bare = self._bare.get(parts[-1], [])
            if bare and (set(parts[:-1]) <= {"", "."} or any("/" not in name for name in bare)):
                return self._of(bare)
        return []

    def find(self, text: str, naming: Naming = "path") -> int:
        """Return the index of the image.

        Args:
            text: what a file calls the image.
            naming: how it does so: by its "path", relative to the images or to the file, or a bare name; the same, but
                relative to the file first ("beside"); a path without its ending ("stem"); a path that may lie in
                folders unknown here ("name"), certainly does ("tail"), or is a bare name changed by Label Studio
                ("upload").

        Raises:
            ValueError: none or several images may be meant. It lacks file and line, which the caller adds.
        """
        found = self._named(text, naming)
        if len(found) == 1:
            return found[0]
        shown = repr(text if len(text) <= 200 else f"{text[:200]}...")
        if found:
            one, other = (self.names[i] for i in found[:2])
            raise ValueError(f"{shown} could be {one} or {other}: write its path relative to the image folder")
        whole = self._elsewhere or next(iter(self._roots), None)
        where = "" if whole is None else f" in {whole}"
        bare = self._bare.get(re.split(r"[/\\]", text)[-1], []) if naming in ("name", "tail") else []
        other = f", but {bare[0]} lies in another folder" if bare else ""
        raise ValueError(f"there is no image {shown}{where}{other}: correct the path or delete the line")
