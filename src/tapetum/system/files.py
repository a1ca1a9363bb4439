"""Writes files that are either complete or absent, and explains in one sentence why a disk refuses one."""

import errno
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)  # what such file systems and folders say
AGAIN = "run the same command again, or choose another --output"
RESUME = "continue with `tapetum resume` and the run's folder; what was saved before is intact"


@contextmanager
def writing(path: Path, then: str = AGAIN) -> Iterator[None]:
    """Turn a full disk, a folder without write permission and similar errors into one sentence.

    Args:
        path: the file written inside the context.
        then: what the user should do once there is room again.

    Raises:
        ValueError: an OSError was raised inside.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({reason_of(error)}): make room or allow writing there, and {then}."
        ) from error


@contextmanager
def whole_file(path: Path, then: str = AGAIN) -> Iterator[Path]:
    """Yield a path to write to; the file gets its own name once complete and on disk, or leaves nothing on failure.

    Args:
        path: the file; it is replaced only at the end. Missing folders are created.
        then: as for `writing`.

    Raises:
        ValueError: the file cannot be written.
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
    """Write a text file in UTF-8 with `whole_file`."""
    with whole_file(path, then) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: Path, then: str = AGAIN) -> Iterator[Path]:
    """Yield a new folder to write in; it gets its own name once complete and on disk, or leaves nothing on failure.

    Args:
        path: the folder, which does not exist or is empty. Missing folders above it are created.
        then: as for `writing`.

    Raises:
        ValueError: the path is taken, or the folder cannot be written.
    """
    refuse_taken(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with writing(path, then):
            shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
            partial.mkdir(parents=True)
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as written:
                        os.fsync(written.fileno())
            if path.is_dir():
                path.rmdir()
            os.replace(partial, path)
            sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure, if the system supports that."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold a lock that only one process has at a time; the system frees it when that process dies."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: processes there must not share a cache folder while it is built
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    # The file stays: after a deletion, a third process could lock a new file while a second waits for the old.


@contextmanager
def owned(lock: Path) -> Iterator[None]:
    """Hold a lock file that tells who owns its folder; it vanishes at the end, and a killed process's no longer counts.

    Forked children do not share it, so loader workers that outlive a killed process cannot keep it. On systems and
    disks that know no locks, nobody is kept out.

    Raises:
        ValueError: another process owns it, or it cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    with ExitStack() as stack:
        with writing(lock, RESUME):
            while True:
                file = stack.enter_context(lock.open("a+", encoding="utf-8"))
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EAGAIN):
                        break  # no locks here
                    file.seek(0)
                    owner = file.read() or "another process"
                    raise ValueError(
                        f"{lock.parent} is being written by {owner}: wait until that has ended, or stop it first."
                    ) from None
                with suppress(FileNotFoundError):
                    if os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                        break
                # Its owner deleted it before it was locked here: another process may lock a new file by now.
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            file.flush()
        stack.callback(lock.unlink, missing_ok=True)
        yield


def refuse_folder(path: Path) -> None:
    """Raise ValueError if there is a folder where a file is to be written."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file in it as --output.")


def refuse_taken(path: Path) -> None:
    """Raise ValueError if there is a file, or a folder that is not empty, where something new is to be written."""
    if not path.name:
        raise ValueError(f"{path} cannot be replaced by what is written: give a new folder or file as --output.")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"{path} is not empty: give another --output.")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} exists already: give another --output, or delete it.")


def reason_of(error: OSError) -> str:
    """Return the system's description of an error, such as "no space left on device"."""
    return (error.strerror or str(error)).lower()
