"""Writes files that are either complete or absent, by one process at a time; says in a sentence why a disk refuses one.

Locks are freed by the system when their process dies, so `kill -9` never leaves one behind. On systems and disks that
know no locks, nobody is kept out.
"""

import errno
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)  # what such file systems and folders say
AGAIN = "run the same command again, or choose another --output"
RESUME = "continue with `tapetum resume` and the run's folder; what was saved before is intact"
_OWNER = b"process "
"""What a lock file begins with."""
_held: set[Path] = set()
"""Locks of `owned` that this process holds; to the system, all of its threads are one owner."""


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

    Of several processes that write the same file at once, each writes its own, and the last one stays.

    Args:
        path: the file; it is replaced only at the end. Missing folders are created.
        then: as for `writing`.

    Raises:
        ValueError: the file cannot be written.
    """
    refuse_folder(path)
    with writing(path, then), _temporary(path) as partial:
        try:
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
    with writing(path, then), _temporary(path) as partial:
        try:
            shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
            partial.mkdir()
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


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield NAME.partial beside a file; or, where another process writes into this folder, a name that is nobody's.

    So what killed processes leave is overwritten rather than piling up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        is_alone = fcntl is not None and _flock(stack, path.parent, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path.with_name(f"{path.name}{'' if is_alone else '.' + secrets.token_hex(4)}.partial")


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
def only_one(lock: Path) -> Iterator[bool]:
    """Wait for a lock that only one process has at a time; yields whether there are locks here.

    Args:
        lock: a file, which is created and stays; or a folder.
    """
    with ExitStack() as stack:
        yield fcntl is not None and _flock(stack, lock, fcntl.LOCK_EX)
    # The file stays: after a deletion, a third process could lock a new file while a second waits for the old.


def _flock(stack: ExitStack, path: Path, how: int) -> bool:
    """Lock a file or folder until the stack is closed; returns whether it could be."""
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_WRONLY | os.O_CREAT, 0o666)
    except PermissionError:
        if not is_folder:
            raise
        return False  # a folder that may be written and not listed
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, how)
    except OSError:  # no locks here; or taken, if it was not to wait
        return False
    return True


@contextmanager
def sole_writing(path: Path) -> Iterator[None]:
    """Keep other processes from writing the same file or folder meanwhile, by the lock PATH.lock beside it.

    Raises:
        ValueError: another process writes it (the message names it), or the folder above it is not writable.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with owned(path.with_name(path.name + ".lock"), path):
        yield


@contextmanager
def sole_new(folder: Path) -> Iterator[None]:
    """Keep other processes from making the same folder meanwhile, which `whole_folder` writes inside.

    Raises:
        ValueError: another process makes it, the path is taken, or the folder above it is not writable.
    """
    refuse_taken(folder)
    with sole_writing(folder):
        yield


@contextmanager
def owned(lock: Path, what: Path | None = None) -> Iterator[None]:
    """Hold a lock file that tells who owns something; it vanishes at the end, and a killed process's no longer counts.

    Forked children do not share it, so loader workers that outlive a killed process cannot keep it.

    Args:
        lock: the lock file.
        what: what it protects; None for its folder.

    Raises:
        ValueError: another process or thread owns it, or it cannot be written.
    """
    if fcntl is None:
        yield
        return
    place, taken = Path(os.path.realpath(lock)), f"{what or lock.parent} is being written by"
    if place in _held:  # opening and closing the file would free the lock
        raise ValueError(f"{taken} another thread of this process: wait until that has ended.")
    with ExitStack() as stack:
        with writing(lock, RESUME) if what is None else writing(what):
            while True:
                # Unbuffered: closing a file on a full disk would try again to write what is in its buffer.
                file = stack.enter_context(lock.open("a+b", buffering=0))
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EAGAIN):
                        break  # no locks here
                    file.seek(0)
                    owner = file.read().decode(errors="replace") or "another process"
                    raise ValueError(f"{taken} {owner}: wait until that has ended, or stop it first.") from None
                with suppress(FileNotFoundError):
                    if os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                        break
                # Its owner deleted it before it was locked here: another process may lock a new file by now.
            file.seek(0)
            if file.read(len(_OWNER)) not in (_OWNER, b""):
                raise ValueError(f"{lock} is no lock of Tapetum, which needs the name for one: give another --output.")
            file.truncate(0)
            owner = f"{_OWNER.decode()}{os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
            file.write(owner.encode())
        _held.add(place)
        stack.callback(_held.discard, place)
        stack.callback(lock.unlink, missing_ok=True)
        yield


def refuse_folder(path: Path) -> None:
    """Raise ValueError if there is a folder where a file is to be written."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file in it as --output.")


def refuse_taken(path: Path) -> None:
    """Raise ValueError if there is a file, or a folder that is not empty, where something new is to be written.

    A process that was killed when it had written that may have left its lock beside it, which is removed.
    """
    if not path.name:
        raise ValueError(f"{path} cannot be replaced by what is written: give a new folder or file as --output.")
    is_folder = path.is_dir()
    if not path.exists() or (is_folder and not any(path.iterdir())):
        return
    lock = path.with_name(path.name + ".lock")
    if lock.is_file():
        with suppress(ValueError), owned(lock, path):
            pass
    raise ValueError(
        f"{path} is not empty: give another --output."
        if is_folder
        else f"{path} exists already: give another --output, or delete it."
    )


def refuse_foreign(path: Path, is_own: Callable[[Path], bool]) -> None:
    """Raise ValueError if there is a file, not an empty one, that is not of the kind that is to replace it."""
    with writing(path):
        if path.is_file() and path.stat().st_size and not is_own(path):
            raise ValueError(f"{path} exists already, and something else wrote it: give another --output.")


def begins_with(path: Path, beginning: bytes) -> bool:
    """Whether a file's first bytes are these."""
    with path.open("rb") as file:
        return file.read(len(beginning)) == beginning


def reason_of(error: OSError) -> str:
    """Return the system's description of an error, such as "no space left on device"."""
    return (error.strerror or str(error)).lower()
