"""Runs readers on hostile inputs in a process of their own, with limits, and reports what they did."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MEMORY = 2 * 2**30
"""Bytes of address space that an input may need beyond those of a process that has loaded everything."""
SECONDS = 10.0
"""The longest that an input may compute, in whatever threads."""
PATIENCE = 60.0
"""The longest that it may take in all, on a machine that others use, too."""
_TRUSTED = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), str(Path(os.__file__).parent), "<frozen")
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn", "ctypes.dlopen")
_REACHES = ("socket.connect", "socket.bind", "socket.sendto", "urllib.Request", "ftplib.connect", "smtplib.connect")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink")
_LATE = (signal.SIGPROF, signal.SIGALRM)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_HELPER = [sys.executable, "-P", "-m", "tapetum.interchange.weights.keras_h5"]
"""The one program that a reader may start. It is watched, too: Python runs the following when it starts, which loads
what the program needs before the watch."""
_IN_HELPER = """
import atexit, os, sys
import h5py, numpy, zipfile
import tapetum.system.strangers
sys.path.append({benchmarks!r})
from fuzz_child import Watch
watch = Watch({folder!r})
atexit.register(lambda: open({told!r}, "a").write("".join(f"{{seen}}; " for seen in watch.seen)))
"""


@dataclass
class Outcome:
    """What became of one input."""

    number: int
    fate: str
    """"accepted" or "refused"; or a failure: "traceback", "nameless", "hang", "signal", "memory", "execution"."""
    said: str = ""
    seconds: float = 0.0
    """Of computing."""
    memory: int = 0
    """Bytes that it needed more than before."""
    starved: bool = False
    """Whether it was refused for want of memory."""


FAILURES = ("traceback", "nameless", "hang", "signal", "memory", "execution")

Prepare = Callable[[int], tuple[Callable[[], tuple[str, str, bool]], Callable[[], None]]]
"""Number of an input -> what reads it, returning (fate, what was said, whether memory was short); what cleans up."""


class Watch:
    """An audit hook that notes what no reader of data has to do; it cannot be removed, so a child installs it.

    Args:
        folder: where files may be written.
        names: (module, name) pairs that a pickle may ask for, beside those that the reader refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        self.folder = os.path.realpath(folder)
        sys.addaudithook(self._hook)

    def watch_helper(self) -> None:
        """Let a reader start its helper, and have that watched."""
        own = Path(self.folder, "helper")
        own.mkdir(exist_ok=True)
        values = {"benchmarks": str(Path(__file__).parent), "folder": self.folder, "told": str(own / "seen")}
        Path(own, "sitecustomize.py").write_text(_IN_HELPER.format(**values))
        sys.path.insert(0, str(own))  # the helper gets the same
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        tempfile.tempdir = self.folder

    def told(self) -> list[str]:
        """What was seen since the last call, here and in a helper."""
        found, seen = self.seen[:], Path(self.folder, "helper", "seen")
        self.seen.clear()
        if seen.is_file():
            found += [line for line in seen.read_text().split("; ") if line]
            seen.write_text("")
        return found

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and arguments[1][: len(_HELPER)] == _HELPER:
            return
        if event in _RUNS or event in _REACHES:
            self.seen.append(f"{event} {arguments[:1]!r}"[:200])
        elif event == "exec" and not str(getattr(arguments[0], "co_filename", "")).startswith(_TRUSTED):
            self.seen.append(f"exec of {getattr(arguments[0], 'co_filename', '?')}"[:200])
        elif event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
            self._written(event, arguments[0], arguments[-1])

    def _written(self, event: str, path: Any, folder: Any) -> None:
        if isinstance(path, (str, bytes)):
            path = os.fsdecode(path)
            if event in _CHANGES and isinstance(folder, int) and folder >= 0:  # relative to an open folder
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
            real = os.path.realpath(path)
            if not real.startswith((self.folder, "/proc/self", "/dev/null")):
                self.seen.append(f"{event} {real}"[:200])


def _memory(field: str) -> int:
    """Bytes: of address space (VmSize), or the most that were resident (VmHWM)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{field}:")) * 1024


def limited() -> None:
    size = _memory("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for late in _LATE:
        signal.signal(late, signal.SIG_DFL)  # ends the process, whatever a library in C is doing


def _one(number: int, prepare: Prepare, watch: Watch) -> Outcome:
    call, clean_up = prepare(number)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begun = _memory("VmHWM"), time.process_time()
    watch.told()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    fate, said, starved = call()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, memory = time.process_time() - begun, max(0, _memory("VmHWM") - before)
    seen = "; ".join(watch.told())
    clean_up()
    if seen:
        fate, said = "execution", seen
    elif memory > MEMORY:
        fate = "memory"
    return Outcome(number, fate, said[:2000], seconds, memory, starved)


def _child(numbers: range, prepare: Prepare, folder: Path, pipe: int) -> None:
    watch = Watch(folder)
    watch.watch_helper()
    limited()
    with os.fdopen(pipe, "w") as told:
        for number in numbers:
            told.write(f"{number}\n")
            told.flush()
            told.write(json.dumps(asdict(_one(number, prepare, watch))) + "\n")
            told.flush()


def run(numbers: range, prepare: Prepare, folder: Path, batch: int = 250) -> Iterator[Outcome]:
    """Read an input for each number, a batch in each child; a child that dies is followed by another.

    Args:
        prepare: makes an input; returns what reads it, and what cleans up. Only the reading is limited and watched.
        folder: where it may write.
    """
    left = numbers
    while left:
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            code = 70
            try:
                os.close(reading)
                _child(left[:batch], prepare, folder, writing)
                code = 0
            finally:
                os._exit(code)  # nothing of the parent's runs: no exit handlers, no tests
        os.close(writing)
        started = None
        with os.fdopen(reading) as lines:
            for line in lines:
                if line.startswith("{"):
                    yield Outcome(**json.loads(line))
                    started = None
                elif line.strip():
                    started = int(line)
                    left = left[left.index(started) + 1 :]
        _, status = os.waitpid(process, 0)
        if started is not None:
            yield _died(started, status)
        elif status:
            raise RuntimeError(f"a child ended with status {status} before its first input")


def _died(number: int, status: int) -> Outcome:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _LATE:
        return Outcome(number, "hang", f"more than {SECONDS:g} seconds", SECONDS)
    if os.WIFSIGNALED(status):
        return Outcome(number, "signal", signal.Signals(os.WTERMSIG(status)).name)
    return Outcome(number, "traceback", f"the process ended with code {os.WEXITSTATUS(status)}")
