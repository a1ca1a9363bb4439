"""A file that grows part by part and whose writing can be interrupted and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tapetum.system.checksums import checksum_of, note_checksum, note_of
from tapetum.system.files import reason_of, refuse_folder, sole_writing, sync_folder
from tapetum.system.interruption import Interrupted
from tapetum.system.notices import notify


class ResumableFile:
    """A file whose writing can be interrupted and resumed.

    It grows as `PATH.partial`, gets its own name when it is finished, and replaces an older file only then.

    After each part, `PATH.partial.json` records how much of it is complete, and a checksum of that. Opening it again
    with the same key continues from there, or begins anew if what was written is damaged. Only one process at a time
    writes it. The finished file's checksum is in `PATH.sha256` (`tapetum.system.checksums`).

    Args:
        path: the file.
        key: identifies what it is made from; a partial file with rows of another key is not touched.
        header: its first bytes.

    Attributes:
        counts: how many things of each kind are in it so far, as passed to `append`.

    Raises:
        ValueError: it cannot be written, another process is writing it, or a partial file made from something else is
            in the way.
    """

    def __init__(self, path: Path, key: str, header: bytes = b"") -> None:
        self.path, self._key = path, key
        self._partial = path.with_name(path.name + ".partial")
        self._state = path.with_name(path.name + ".partial.json")
        self._checksum = 0
        refuse_folder(path)
        with ExitStack() as stack:
            try:
                stack.enter_context(sole_writing(path))
                self.counts, size = self._earlier()
                self._file: BinaryIO = stack.enter_context(self._partial.open("r+b" if size else "wb"))
                self._file.truncate(size)
                self._file.seek(size)
                if not size:
                    self._write(header)
                    self._note(self.counts)
            except OSError as error:
                raise self._unwritable(error) from error
            self._open = stack.pop_all()

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
            self._write(content)
            self._note(self.counts + counts)
            self.counts += counts
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self) -> None:
        """Give the file its own name, and note its checksum.

        Raises:
            ValueError: there is no room, or something else has changed what was written.
        """
        with self._open:
            self._file.close()
            try:
                found, checksum = _checksums_of(self._partial)
                if checksum != self._checksum:
                    raise ValueError(f"{self._partial} has changed since it was written: run the same command again.")
                # In this order no kill leaves a checksum beside a file that it is not of.
                note_of(self.path).unlink(missing_ok=True)
                os.replace(self._partial, self.path)
                note_checksum(self.path, found)
                self._state.unlink()  # last: until then it shows that something may be left to do
            except OSError as error:
                raise self._unwritable(error) from error
            sync_folder(self.path.parent)

    @staticmethod
    def settle(path: Path) -> None:
        """Do what is left to do if a process was killed just after its file got its name.

        Raises:
            ValueError: another process is writing it, or it cannot be written.
        """
        state = path.with_name(path.name + ".partial.json")
        with sole_writing(path):  # which also takes away the lock of a killed process
            if state.exists() and path.exists() and not path.with_name(path.name + ".partial").exists():
                note_checksum(path, checksum_of(path))
                state.unlink()

    def __enter__(self) -> ResumableFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._checksum = zlib.crc32(content, self._checksum)

    def _note(self, counts: Counter[str]) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        noted = self._state.with_name(self._state.name + ".new")
        state = {"key": self._key, "bytes": self._file.tell(), "counts": counts, "crc32": self._checksum}
        with noted.open("w") as file:  # on disk before its name, as an empty note would lose all parts
            file.write(json.dumps(state | {"check": _check(state)}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(noted, self._state)
        sync_folder(self._state.parent)

    def _earlier(self) -> tuple[Counter[str], int]:
        """Return (counts, bytes) of what is complete."""
        if not self._partial.exists() or not self._state.exists():
            return Counter(), 0
        try:
            state = json.loads(self._state.read_text())
            key, size, counts = state["key"], int(state["bytes"]), Counter(state["counts"])
            checksum, check = state.get("crc32"), state.pop("check", None)  # both None if it is of an older version
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._damaged(self._state, "is not what was written there")
        if check != (None if checksum is None else _check(state)):
            return self._damaged(self._state, "has changed since it was written")
        if counts and key != self._key:
            raise ValueError(
                f"{self._partial} was begun for other images, another run or other options: delete it, or give "
                "another --output."
            )
        if key != self._key:
            return Counter(), 0
        if self._partial.stat().st_size < size:
            return self._damaged(self._partial, "is cut short")
        _, self._checksum = _checksums_of(self._partial, size)
        if checksum not in (None, self._checksum):
            return self._damaged(self._partial, "has its whole length, but bits of it have changed")
        return counts, size

    def _damaged(self, path: Path, how: str) -> tuple[Counter[str], int]:
        self._checksum = 0
        notify(f"{path} {how}: what was done is done again")
        return Counter(), 0

    def _unwritable(self, error: OSError) -> ValueError:
        kept = f"; {self.rows} rows are kept in {self._partial}" if hasattr(self, "counts") and self.rows else ""
        return ValueError(
            f"{self.path} cannot be written ({reason_of(error)}){kept}: make room or allow writing there, and run "
            "the same command again."
        )


def _check(state: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(state, sort_keys=True).encode())


def _checksums_of(path: Path, size: int | None = None) -> tuple[str, int]:
    """SHA-256 and CRC-32 of a file, or of its first bytes, from one reading."""
    digest, found, left = hashlib.sha256(), 0, path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while left > 0 and (part := file.read(min(left, 2**20))):
            digest.update(part)
            found, left = zlib.crc32(part, found), left - len(part)
    return digest.hexdigest(), found
