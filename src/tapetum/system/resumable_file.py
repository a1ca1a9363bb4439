"""A file that grows part by part and whose writing can be interrupted and resumed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from tapetum.system.files import reason_of, refuse_folder, sync_folder
from tapetum.system.interruption import Interrupted
from tapetum.system.notices import notify


class ResumableFile:
    """A file whose writing can be interrupted and resumed.

    It grows as `PATH.partial`, gets its own name when it is finished, and replaces an older file only then.

    After each part, `PATH.partial.json` records how much of it is complete. Opening it again with the same key
    continues from there.

    Args:
        path: the file.
        key: identifies what it is made from; a partial file with rows of another key is not touched.
        header: its first bytes.

    Attributes:
        counts: how many things of each kind are in it so far, as passed to `append`.

    Raises:
        ValueError: it cannot be written, or a partial file made from something else is in the way.
    """

    def __init__(self, path: Path, key: str, header: bytes = b"") -> None:
        self.path, self._key = path, key
        self._partial = path.with_name(path.name + ".partial")
        self._state = path.with_name(path.name + ".partial.json")
        refuse_folder(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.counts, size = self._earlier()
            self._file: BinaryIO = self._partial.open("r+b" if size else "wb")
            self._file.truncate(size)
            self._file.seek(size)
            if not size:
                self._file.write(header)
                self._note(self.counts)
        except OSError as error:
            raise self._unwritable(error) from error

    @property
    def rows(self) -> int:
        """Number of things in it."""
        return self.counts.total()

    @property
    def written(self) -> Path:
        """The file that holds them until `finish` gives it its own name."""
        return self._partial

    @contextmanager
    def resumable(self, total: int) -> Iterator[None]:
        """Reports how much was done earlier and, after Ctrl-C, how to continue.

        Args:
            total: number of images that the file is about.

        Raises:
            Interrupted: Ctrl-C.
        """
        if self.rows:
            notify(f"{self.rows} of {total} images are done already; continuing from there")
        try:
            yield
        except KeyboardInterrupt:
            message = f"Stopped after {self.rows} of {total} images. The same command continues from there."
            notify(message)
            raise Interrupted(self.rows, message) from None

    def append(self, content: bytes, counts: Counter[str]) -> None:
        """Add a part; once this returns, a crash cannot lose it.

        Args:
            content: the bytes of the part.
            counts: how many things of each kind it holds.

        Raises:
            ValueError: the disk is full or similar; what was added before is kept.
        """
        try:
            self._file.write(content)
            self._note(self.counts + counts)
            self.counts += counts
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self) -> None:
        """Give the file its own name."""
        self._file.close()
        try:
            os.replace(self._partial, self.path)
            self._state.unlink()
        except OSError as error:
            raise self._unwritable(error) from error
        sync_folder(self.path.parent)

    def __enter__(self) -> ResumableFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def _note(self, counts: Counter[str]) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        noted = self._state.with_name(self._state.name + ".new")
        noted.write_text(json.dumps({"key": self._key, "bytes": self._file.tell(), "counts": counts}))
        os.replace(noted, self._state)

    def _earlier(self) -> tuple[Counter[str], int]:
        """Return (counts, bytes) of what is complete."""
        if not self._partial.exists() or not self._state.exists():
            return Counter(), 0
        try:
            state = json.loads(self._state.read_text())
            key, size, counts = state["key"], int(state["bytes"]), Counter(state["counts"])
        except (ValueError, KeyError, TypeError):
            return Counter(), 0  # not written by this class
        if counts and (key != self._key or self._partial.stat().st_size < size):
            raise ValueError(
                f"{self._partial} was begun for other images, another run or other options: delete it, or give "
                "another --output."
            )
        return (counts, size) if key == self._key else (Counter(), 0)

    def _unwritable(self, error: OSError) -> ValueError:
        kept = f"; {self.rows} rows are kept in {self._partial}" if hasattr(self, "counts") and self.rows else ""
        return ValueError(
            f"{self.path} cannot be written ({reason_of(error)}){kept}: make room or allow writing there, and run "
            "the same command again."
        )
