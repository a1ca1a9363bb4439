"""Writing files so that they are whole or not there, and saying in one sentence why the disk refuses one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AGAIN = "give the same command again, or another --output"
RESUME = "go on with `tapetum resume` and the run's folder: what was saved before is whole"


@contextmanager
def writing(path: Path, then: str = AGAIN) -> Iterator[None]:
    """Turns a full disk, a folder that may not be written to and the like into one sentence.

    Args:
        path: what is written inside.
        then: what to do when there is room again.

    Raises:
        ValueError: an OSError came from inside.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({reason_of(error)}): make room or allow it, and {then}."
        ) from error


@contextmanager
def whole_file(path: Path, then: str = AGAIN) -> Iterator[Path]:
    """Where to write a file that gets its own name when it is complete and on disk, and leaves nothing if that fails.

    Args:
        path: the file; it is replaced only at the end. Missing folders are made.
        then: as for `writing`.

    Raises:
        ValueError: it cannot be written.
    """
    refuse_folder(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with writing(path, then):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_text(path: Path, text: str, then: str = AGAIN) -> None:
    """A text file in UTF-8, by `whole_file`."""
    with whole_file(path, then) as partial:
        partial.write_text(text, encoding="utf-8")


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power failure, where the system allows it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it when that process dies."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: processes there must not share a cache folder while it is built
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    # The file stays: deleting it would let a third process lock a new one beside a waiting second.


def refuse_folder(path: Path) -> None:
    """ValueError if a folder is where a file is to be written."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file in it as --output.")


def reason_of(error: OSError) -> str:
    """The system's words for an error, such as "no space left on device"."""
    return (error.strerror or str(error)).lower()
