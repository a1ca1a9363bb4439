"""Inside the process that a fault is to strike: what it does to files is counted, and the event that is due is struck.

The program itself is unchanged. Python tells an audit hook of every file that is opened, renamed or removed; writes and
syncs are seen because files that are opened for writing get a raw layer that counts. What libraries write from C++ or
Rust is seen as one event; the moments by the clock and by the room on the disk (`faults.py`) fall into it, too.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import io
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = frozenset({"open", "write", "fsync", "rename", "remove", "mkdir", "truncate", "serialise"})
"""Events that change files."""
NEEDS_ROOM = frozenset({"open", "write", "fsync", "mkdir", "serialise"})
"""Events that a full disk refuses."""
_CUT_AT = 4096  # bytes of a checkpoint that are written before its process dies
_DAY = 24 * 60 * 60.0


class Events:
    """Counts events of some kinds in a folder, notes each in a log, and strikes the one that is due.

    Args:
        folder: events elsewhere do not count.
        kinds: those to count.
        due: the number of the event to strike, from 1; or a text, for the first event whose note holds it.
        strike: called as strike(kind, path, begin) when it is due; `begin`, if any, does half of what would be done.
        stays: call it for all later events as well, as a full disk stays full.
        log: descriptor of a file for notes.
    """

    def __init__(
        self,
        folder: Path,
        kinds: frozenset[str],
        due: int | str | None,
        strike: Callable[[str, str, Callable[[], object] | None], None],
        log: int,
        stays: bool = False,
    ) -> None:
        self._folder, self._kinds, self._due, self._strike = f"{folder}{os.sep}", kinds, due, strike
        self._log, self._stays, self._process = log, stays, os.getpid()
        self._count, self._struck, self._is_busy = 0, False, False

    def meet(self, kind: str, path: Any, begin: Callable[[], object] | None = None) -> bool:
        """Count an event that is about to happen; returns whether it is the one that is due."""
        if kind not in self._kinds or self._is_busy or os.getpid() != self._process:
            return False
        place = os.path.abspath(os.fsdecode(path))
        if not place.startswith(self._folder):
            return False
        self._count += 1
        note = f"{kind} {place.removeprefix(self._folder)}"
        os.write(self._log, f"{note}\n".encode(errors="surrogateescape"))
        is_due = not self._struck and (self._due == self._count if isinstance(self._due, int) else self._is_named(note))
        if is_due or (self._struck and self._stays):
            self._struck, self._is_busy = True, True
            try:
                self._strike(kind, place, begin)
            finally:
                self._is_busy = False
        return is_due

    def _is_named(self, note: str) -> bool:
        return self._due is not None and str(self._due) in note

    def watch(self) -> None:
        """Begin to count; there is no way to stop."""
        sys.addaudithook(self._audit)
        _watch_writes(self)
        _watch_calls(self)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not isinstance(arguments[0], int | None):
            changes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            self.meet("open" if changes else "read", arguments[0])
        elif event in _AUDITED and not isinstance(arguments[0], int):
            kind, place = _AUDITED[event]
            self.meet(kind, arguments[place])


_AUDITED = {
    "os.rename": ("rename", 1),
    "os.remove": ("remove", 0),
    "os.rmdir": ("remove", 0),
    "os.mkdir": ("mkdir", 0),
    "os.truncate": ("truncate", 0),
}


def _watch_writes(events: Events) -> None:
    """Give every file that Python opens for writing a raw layer that counts."""
    plain = io.open

    class Counted(io.FileIO):
        def write(self, content: Any) -> int:
            part = memoryview(content)
            half = part[: len(part) // 2]
            events.meet("write", self.name, lambda: io.FileIO.write(self, half))
            return io.FileIO.write(self, part)

    def counted(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Counted(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffer = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return buffer
        return io.TextIOWrapper(buffer, io.text_encoding(encoding), errors, newline, line_buffering=buffering == 1)

    io.open = builtins.open = counted  # type: ignore[assignment]


def _watch_calls(events: Events) -> None:
    import safetensors.torch

    from tapetum.engine.runtime import Runtime

    fsync, place = os.fsync, Runtime.place
    serialise: Any = safetensors.torch.serialize_file

    def counted_fsync(descriptor: int) -> None:
        events.meet("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def counted_serialise(tensors: Any, path: Any, **named: Any) -> None:
        def cut() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (_CUT_AT, _CUT_AT))
            serialise(tensors, path, **named)

        events.meet("serialise", path, cut)
        serialise(tensors, path, **named)

    def counted_place(runtime: Runtime, batch: Any) -> Any:
        placed = place(runtime, batch)
        if events.meet("batch", f"{events._folder}batch"):
            _CHANGE_BATCH(placed)
        return placed

    os.fsync = counted_fsync
    safetensors.torch.serialize_file = counted_serialise
    Runtime.place = counted_place  # type: ignore[method-assign]


_CHANGE_BATCH: Callable[[Any], None] = lambda batch: None  # noqa: E731


def die(kind: str, path: str, begin: Callable[[], object] | None) -> None:
    """kill -9 to the process and, if there are several, to all of its run; half of a write is done before."""
    if begin is not None:
        begin()
    os.killpg(0, signal.SIGKILL)


def die_alone(kind: str, path: str, begin: Callable[[], object] | None) -> None:
    """kill -9 to one process of a run."""
    os.kill(os.getpid(), signal.SIGKILL)


def get(number: signal.Signals) -> Callable[..., None]:
    """Return a strike that sends the process a signal."""

    def strike(kind: str, path: str, begin: Callable[[], object] | None) -> None:
        os.kill(os.getpid(), number)

    return strike


def refuse_room(kind: str, path: str, begin: Callable[[], object] | None) -> None:
    """No space left on device."""
    if kind == "serialise":
        from safetensors import SafetensorError

        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def forbid(kind: str, path: str, begin: Callable[[], object] | None) -> None:
    """Nobody may write to the file, or into its folder, any more."""
    if os.path.isfile(path):
        os.chmod(path, 0o444)
    os.chmod(os.path.dirname(path), 0o555)


def remove(kind: str, path: str, begin: Callable[[], object] | None) -> None:
    """The file is gone just before it is opened."""
    if os.path.isfile(path):
        os.remove(path)


def cut(kind: str, path: str, begin: Callable[[], object] | None) -> None:
    """Half of the file is gone just before it is opened."""
    if os.path.isfile(path):
        os.truncate(path, os.path.getsize(path) // 2)


def end_worker(kind: str, path: str, begin: Callable[[], object] | None) -> None:
    """kill -9 to a loader worker."""
    for worker in multiprocessing.active_children()[:1]:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)


def nothing(kind: str, path: str, begin: Callable[[], object] | None) -> None:
    """Events are only counted."""


def spoil_batch() -> None:
    """From now on, the batch that is due has an image that is not a number."""

    def change(batch: Any) -> None:
        for views in (batch.views, batch.support):
            for group in () if views is None else views.groups:
                group[0] = float("nan")

    globals()["_CHANGE_BATCH"] = change


def spoil_gradient() -> None:
    """From now on, the gradient of the step that is due is not a number, and its loss is."""
    from tapetum.engine.runtime import Runtime

    backward, is_due = Runtime.backward, []

    def spoilt(runtime: Runtime, loss: Any) -> None:
        backward(runtime, loss * float("nan") if is_due else loss)
        is_due.clear()

    Runtime.backward = spoilt  # type: ignore[method-assign]
    globals()["_CHANGE_BATCH"] = lambda batch: is_due.append(True)


_offset = [0.0]


def wind_clock() -> None:
    """The clock is one that `set_clock_back` can change; others of this machine are not touched."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() - _offset[0]
    time.time_ns = lambda: now_ns() - int(1e9 * _offset[0])


def set_clock_back(kind: str, path: str, begin: Callable[[], object] | None) -> None:
    """The clock shows yesterday."""
    _offset[0] = _DAY


def give_up_capabilities() -> None:
    """Root may write where permissions forbid it; from now on this process may not."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if libc.capset(header, none):
            raise OSError(ctypes.get_errno(), "capset")
