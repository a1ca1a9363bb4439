"""Checksums beside finished tables, in the form that `sha256sum --check` reads: PATH.sha256."""

import hashlib
import os
from pathlib import Path

from tapetum.system.files import whole_file


def note_of(path: Path) -> Path:
    """Where a file's checksum is."""
    return path.with_name(path.name + ".sha256")


def checksum_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_checksum(path: Path, checksum: str) -> None:
    """Write a file's checksum beside it.

    Raises:
        ValueError: it cannot be written.
    """
    name = os.fsencode(path.name)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    mark = b"" if escaped == name else b"\\"  # sha256sum's sign for a name that is escaped
    with whole_file(note_of(path)) as partial:
        partial.write_bytes(mark + checksum.encode() + b"  " + escaped + b"\n")


def refuse_changed(path: Path) -> None:
    """Refuse a table that is not what was written there; one without a checksum is accepted.

    Raises:
        ValueError: it has changed since, and how.
        OSError: it cannot be read.
    """
    note = note_of(path)
    try:
        noted = note.read_bytes().lstrip(b"\\").partition(b" ")[0]
    except FileNotFoundError:
        return
    if noted != checksum_of(path).encode():
        raise ValueError(
            f"{path} has changed since it was written (its checksum is no longer the one in {note.name}): if you "
            f"changed it, delete {note.name}; if not, a disk or a copy has damaged it: make it again."
        )
