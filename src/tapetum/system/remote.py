"""Files on other machines, named by addresses such as `s3://bucket/folder`: the only door to fsspec.

fsspec reaches each kind of store through a package of its own (s3fs, gcsfs, huggingface_hub, ...), which finds
credentials where it always does: in the environment and in its own files. None of them pass through here, and an
address that holds some is refused.

A request that fails for a reason that may pass (no answer, a reset connection, status 503, a body that ends early) is
made again, each time after a longer wait, for `patience()` seconds.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, TypeVar

from tapetum.system.addresses import Address
from tapetum.system.notices import notify

T = TypeVar("T")

PATIENCE = "TAPETUM_PATIENCE"
_PATIENCE_SECONDS = 60.0
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 15.0  # seconds
_READ_AHEAD = 2**22  # bytes: what a request for a few of them brings along
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}
_PACKAGES |= {
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created", "blob_id")
"""What file systems call that which changes with the content of a file."""
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, TypeError, ValueError)
_told: set[str] = set()


class Unreachable(OSError):
    """A file that should be there cannot be read: because of a connection, or because it has changed.

    It is no ValueError, as it tells nothing about an image: nobody may take the image for damaged.
    """


class Found(NamedTuple):
    """A file on another machine."""

    name: str
    """Relative to the folder that was listed; empty if the address is that of the file."""
    size: int
    """In bytes."""
    stamp: int
    """Changes when the file does; 0 to 2**63 - 1."""


def patience() -> float:
    """Return for how many seconds to ask again after faults: $TAPETUM_PATIENCE, or 60.

    Raises:
        ValueError: the variable holds something else than a number.
    """
    text = os.environ.get(PATIENCE, "")
    try:
        return float(text) if text else _PATIENCE_SECONDS
    except ValueError:
        raise ValueError(f"{PATIENCE} is {text!r}: set it to a number of seconds, or leave it unset") from None


def list_below(address: Address) -> list[Found]:
    """List every file below a folder, sorted by name.

    Raises:
        ValueError: there is nothing, or a package is missing.
        Unreachable: no answer, or a refusal.
    """

    def found() -> list[Found]:
        system, path = _system(address)
        system.invalidate_cache()  # what was listed before may be old
        base = str(system._strip_protocol(path)).rstrip("/")
        listed = system.find(path, detail=True).items()
        names = [(str(name), about) for name, about in listed if str(name).startswith(f"{base}/")]
        return [
            _found(name[len(base) + 1 :], about if about.get("size") is not None else system.info(name))
            for name, about in names
            if about.get("type") != "directory" and not name.endswith("/")
        ]

    files = sorted(_tried(address, found))
    if not files:
        raise _nothing_at(address)
    return files


def look_at(address: Address) -> Found:
    """Return size and stamp of one file, under an empty name.

    Raises:
        ValueError: there is no such file, or a package is missing.
        Unreachable: no answer, or a refusal.
    """

    def seen() -> Found:
        system, path = _system(address)
        system.invalidate_cache()
        about = system.info(path)
        if about.get("type") == "directory":
            raise IsADirectoryError(address.text)
        return _found("", about)

    try:
        return _tried(address, seen)
    except FileNotFoundError:
        raise _nothing_at(address) from None
    except IsADirectoryError:
        raise ValueError(f"{address} is a folder: give the address of a file") from None


def read_bytes(address: Address, size: int | None = None) -> bytes:
    """Read a file; `size` is that which it must have, None if unknown.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a package is missing.
        Unreachable: no answer, a refusal, or another size.
    """
    return b"" if size == 0 else _fetched(address, None, None, size)


def read_range(address: Address, start: int, length: int) -> bytes:
    """Read `length` bytes of a file from byte `start` on; errors are those of `read_bytes`."""
    return b"" if length == 0 else _fetched(address, start, start + length, length)


def _fetched(address: Address, start: int | None, stop: int | None, length: int | None) -> bytes:
    def fetched() -> bytes:
        system, path = _system(address)
        content = bytes(system.cat_file(path, start=start, end=stop))
        if stop is not None and length is not None and len(content) > length:
            content = content[start:stop]  # a server that knows no ranges sends all
        if length is not None and len(content) != length:
            raise ConnectionError(f"{len(content):,} of {length:,} bytes came")
        return content

    return _tried(address, fetched)


def open_ranges(address: Address, size: int) -> BinaryIO:
    """Open a file to read and seek in; each request brings 4 MiB."""
    return io.BufferedReader(_Ranges(address, size), _READ_AHEAD)


class _Ranges(io.RawIOBase):
    """A file elsewhere, read in ranges."""

    def __init__(self, address: Address, size: int) -> None:
        self._address, self._size, self._at = address, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = read_range(self._address, self._at, max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def _system(address: Address) -> tuple[Any, str]:
    """Return the file system that an address lies in, and its path there; fsspec keeps one for each process."""
    protocol = address.text.partition("://")[0]
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ValueError(f"{address} needs fsspec: install it with pip install 'tapetum[remote]'") from error
    try:
        return url_to_fs(address.text)
    except ImportError as error:
        package = _PACKAGES.get(protocol, "the package that fsspec names")
        raise ValueError(f"{address} needs {package} ({error}): install it with pip install {package}") from error
    except ValueError as error:
        raise ValueError(f"{address} cannot be opened ({_reason(error)}): correct the address") from error


def _found(name: str, about: dict[str, Any]) -> Found:
    size = about.get("size")
    if size is None:
        raise ValueError(f"the server does not say how long {about.get('name', name)} is: copy it to this machine")
    stamp = next((str(about[key]) for key in _STAMPS if about.get(key)), "")
    digest = hashlib.blake2b(stamp.encode(), digest_size=8).digest()
    return Found(name, int(size), int.from_bytes(digest, "little") >> 1)


def _nothing_at(address: Address) -> ValueError:
    return ValueError(f"there is nothing at {address}: check the address, and that you may read it")


def _tried(address: Address, request: Callable[[], T]) -> T:
    """Return what a request returns, made again as long as it fails for reasons that may pass.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError: as the request raised them.
        Unreachable: anything else.
    """
    began, wait = time.monotonic(), _FIRST_WAIT
    while True:
        try:
            return request()
        except (FileNotFoundError, IsADirectoryError, ValueError):
            raise
        except Exception as error:  # each file system has errors of its own
            if not _may_pass(error):
                raise Unreachable(
                    f"{address} cannot be read ({_reason(error)}): check the address, and your credentials in the "
                    "environment"
                ) from error
            tried_for = time.monotonic() - began  # in requests that hang, too
            if tried_for >= patience() and wait > _FIRST_WAIT:  # once more, at least
                raise Unreachable(
                    f"{address} cannot be read ({_reason(error)}), after {tried_for:.0f} seconds of trying: try again "
                    f"later; `tapetum resume` continues a run from its last checkpoint"
                ) from error
            _tell_once(address, error)
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)


def _may_pass(error: Exception) -> bool:
    status = getattr(error, "status" if hasattr(error, "status") else "code", None)
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    return not isinstance(error, _FINAL) and "credential" not in type(error).__name__.lower()


def _tell_once(address: Address, error: Exception) -> None:
    """Say, once for each store, that it fails."""
    store = "/".join(address.text.split("/")[:3])
    if store not in _told:
        _told.add(store)
        notify(f"{store} fails ({_reason(error)}): asking again, for up to {patience():.0f} seconds each time")


def _reason(error: Exception) -> str:
    """Return an error's text, without what may be secret in web addresses, and not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"(https?://)[^/\s@]+@", r"\1", re.sub(r"\?\S+", "", text))
    return text if len(text) <= 200 else f"{text[:200]}..."
