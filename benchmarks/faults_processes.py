"""Processes of the real command line that a fault strikes, each a child of one process that has imported torch once.

A start of Python with torch takes seconds, and thousands of starts would take days. So each command runs in a fork of
this process, which has imported what commands import and computed nothing. Several processes of a run find each other
as torchrun's do: by its variables.
"""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from faults_strikes import CHANGES, Events, nothing

PATIENCE = 120.0
"""Seconds after which a command counts as hanging."""
_LEFT = 60.0  # seconds in which the other processes of a run must notice that one of them has died
_LIMIT = 10_000_000  # bytes of output that are looked at


OUTSIDE = 70
"""Exit code of a process that was struck before the command began or after it had ended."""


@dataclass(frozen=True)
class Strike:
    """What strikes a command, and when.

    Either an event is due, or so many seconds have passed, or so many lines of output have been read; or nothing is.
    """

    act: Callable[..., None] = nothing
    kinds: frozenset[str] = CHANGES
    due: int | str | None = None
    stays: bool = False
    prepare: Callable[[], object] | None = None
    """Called in the process before it begins."""
    seconds: float | None = None
    """When to send `number`, in seconds after the start."""
    number: signal.Signals = signal.SIGKILL
    lines: int | None = None
    """How many lines of standard output are read before its reader closes it."""
    rank: int = 0
    """The process that counts events, and that is struck."""
    alone: bool = False
    """Whether other processes of the run live on."""


@dataclass
class Ended:
    """How a command ended."""

    codes: list[int]
    """Exit code of each process; -N for one that signal N ended."""
    output: str
    errors: str
    seconds: float
    events: list[str] = field(default_factory=list)
    """What was counted, up to the end."""
    hung: bool = False
    struck: bool = False
    """Whether the clock or a closed output has struck it before its end; events are struck if they were met."""

    @property
    def code(self) -> int:
        """0 if all processes succeeded; else that of the first that did not."""
        return next((code for code in self.codes if code), 0)


def warm_up() -> None:
    """Import what commands import."""
    import lightning_fabric  # noqa: F401
    import torch
    import torch.distributed
    from PIL import Image

    import tapetum.cli.main
    import tapetum.verbs

    for found in pkgutil.iter_modules(tapetum.verbs.__path__):
        importlib.import_module(f"tapetum.verbs.{found.name}")
    Image.init()
    torch.set_num_threads(1)


def run(arguments: Sequence[str], folder: Path, logs: Path, strike: Strike | None = None, processes: int = 1) -> Ended:
    """Run a command in a folder, and wait until all of its processes have ended.

    Args:
        arguments: of `tapetum`.
        folder: where it runs; caches are kept in it, too.
        logs: folder for what the processes print, and for the events.
        strike: None for nothing, of which events are counted.
        processes: how many share the command.
    """
    strike = strike or Strike()
    pipe = os.pipe() if strike.lines is not None else None
    sys.stdout.flush()
    sys.stderr.flush()
    began, port, pids = time.monotonic(), _free_port() if processes > 1 else 0, []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            code = OUTSIDE
            try:
                code = _child(arguments, folder, logs, strike, (rank, processes, port), pids[:1], pipe)
            finally:
                os._exit(code)
        with suppress(OSError):  # the child has done so
            os.setpgid(pid, pids[0] if pids else pid)
        pids.append(pid)
    if pipe is not None:
        os.close(pipe[1])
    watch = _Watch(pids, strike, None if pipe is None else pipe[0])
    watch.wait(began)
    seconds = time.monotonic() - began
    _end(pids)  # its workers, if any
    read = [[_text(logs / f"{rank}.{name}") for rank in range(processes)] for name in ("out", "err", "events")]
    output, errors = ("".join(texts)[:_LIMIT] for texts in read[:2])
    return Ended(watch.codes, output, errors, seconds, read[2][strike.rank].splitlines(), watch.hung, watch.struck)


def _child(
    arguments: Sequence[str],
    folder: Path,
    logs: Path,
    strike: Strike,
    place: tuple[int, int, int],
    leader: Sequence[int],
    pipe: tuple[int, int] | None,
) -> int:
    rank, processes, port = place
    os.setpgid(0, *(leader or [0]))
    log = os.open(logs / f"{rank}.events", os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
    if pipe is not None:
        os.close(pipe[0])
    _redirect(logs, rank, None if pipe is None else pipe[1])
    _environment(folder, rank, processes, port)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(folder)
    if rank == strike.rank:
        if strike.prepare is not None:
            strike.prepare()
        Events(folder, strike.kinds, strike.due, strike.act, log, strike.stays).watch()
    return _command(arguments)


def _redirect(logs: Path, rank: int, output: int | None) -> None:
    """Give the process streams of its own, as it has when it is started anew."""
    files = [os.open(os.devnull, os.O_RDONLY), output]
    files[1] = os.open(logs / f"{rank}.out", os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND, 0o644)
    files.append(os.open(logs / f"{rank}.err", os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND, 0o644))
    if output is not None:
        files[1] = output
    for number, descriptor in enumerate(files):
        assert descriptor is not None
        os.dup2(descriptor, number)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), "utf-8")
    errors = io.BufferedWriter(io.FileIO(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(errors, "utf-8", "backslashreplace", line_buffering=True)


def _environment(folder: Path, rank: int, processes: int, port: int) -> None:
    os.environ |= {"TAPETUM_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    for name in ("TAPETUM_TRACEBACK", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
    if processes > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ |= {name: str(value) for name, value in numbers.items()}
        os.environ |= {"TORCHELASTIC_RUN_ID": "faults", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _command(arguments: Sequence[str]) -> int:
    """Do what `python -m tapetum` does; returns the exit code."""
    from tapetum.cli.main import main

    sys.argv = ["tapetum", *arguments]
    code = 0
    try:
        main(list(arguments))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except OSError:
        code = 120  # Python's own, if what is left cannot be printed
    return code


class _Watch:
    """Waits until all processes of a command have ended, and strikes by the clock or by closing the output."""

    def __init__(self, pids: Sequence[int], strike: Strike, reader: int | None) -> None:
        self.codes, self.hung, self.struck = [0] * len(pids), False, False
        self._pids, self._strike, self._reader, self._lines = pids, strike, reader, strike.lines or 0
        self._running = {os.pidfd_open(pid): place for place, pid in enumerate(pids)}
        self._poll = select.poll()
        for descriptor in self._running:
            self._poll.register(descriptor, select.POLLIN)
        if reader is not None:
            self._poll.register(reader, select.POLLIN)
            if not self._lines:
                self._read()

    def wait(self, began: float) -> None:
        """Return when they have ended; `began` by `time.monotonic`."""
        strikes_at = began + self._strike.seconds if self._strike.seconds is not None else None
        self._deadline = began + PATIENCE
        while self._running:
            now = time.monotonic()
            if strikes_at is not None and now >= strikes_at:
                strikes_at = None
                self._send()
            if now >= self._deadline:
                self._deadline, self.hung = now + PATIENCE, True
                _end(self._pids)
            for descriptor, _ in self._poll.poll(1e3 * max(0.0, min(self._deadline, strikes_at or now + 60) - now)):
                if descriptor == self._reader:
                    self._read()
                else:
                    self._note_end(descriptor)
        if self._reader is not None:
            os.close(self._reader)

    def _read(self) -> None:
        """Read output, or close it if enough has been read, or if there is no more."""
        assert self._reader is not None
        content = os.read(self._reader, 4096) if self._lines > 0 else b""
        self._lines -= content.count(b"\n")
        if self._lines <= 0 or not content:
            self._poll.unregister(self._reader)
            os.close(self._reader)
            self._reader = None

    def _note_end(self, descriptor: int) -> None:
        place = self._running.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        self.codes[place] = os.waitstatus_to_exitcode(os.waitpid(self._pids[place], 0)[1])
        if self.codes[place] < 0:
            self._deadline = min(self._deadline, time.monotonic() + _LEFT)
            if not self._strike.alone:
                _end(self._pids)

    def _send(self) -> None:
        self.struck = True
        with suppress(ProcessLookupError):
            if self._strike.alone:
                os.kill(self._pids[self._strike.rank], self._strike.number)
            else:
                os.killpg(self._pids[0], self._strike.number)


def _end(pids: Sequence[int]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pids[0], signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""
