"""Commands as processes that outlive whoever starts them, and that are found again by number and time of birth."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_STARTED = "$ "
"""Begins the line of a log that tells a command."""
_PROC = Path("/proc")
_children: dict[int, subprocess.Popen[bytes]] = {}


class Process(NamedTuple):
    """A process that was started, by this process or an earlier one."""

    number: int
    birth: str
    """When it was started, as the system counts; numbers are used again. Empty where the system does not tell."""


def start(arguments: Sequence[str], log: Path) -> Process:
    """Start `tapetum ARGUMENTS` in a session of its own, so that neither Ctrl-C nor the end of this process ends it.

    Args:
        arguments: words of the command line after `tapetum`.
        log: what it says is added to this file.

    Raises:
        OSError: it cannot be started, or the log cannot be written.
    """
    with log.open("ab") as said:
        said.write(f"{_STARTED}tapetum {' '.join(arguments)}\n".encode(errors="backslashreplace"))
        said.flush()
        child = subprocess.Popen(
            # -P: no file in this folder is imported because it has the name of a module.
            [sys.executable, "-P", "-m", "tapetum", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return Process(child.pid, _birth(child.pid) or "")


def is_alive(process: Process) -> bool:
    """Return whether a process still runs."""
    child = _children.get(process.number)
    if child is not None and child.poll() is not None:  # asking also buries it
        return False
    if _PROC.is_dir():
        return _birth(process.number) == process.birth
    with suppress(ProcessLookupError):
        os.kill(process.number, 0)
        return True
    return False


def ask_to_stop(process: Process) -> None:
    """Send SIGTERM, after which a training finishes its step and saves."""
    if is_alive(process):
        with suppress(ProcessLookupError):
            os.kill(process.number, signal.SIGTERM)


def last_words(log: Path) -> list[str]:
    """Return what the last command of a log has said, at most the last 20 lines."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        # A progress bar writes over its line.
        text = file.read().decode(errors="replace").replace("\r", "\n")
    lines = [line.rstrip() for line in text.split("\n") if line.strip()]
    begins = [number for number, line in enumerate(lines) if line.startswith(_STARTED)]
    return lines[begins[-1] + 1 if begins else 0 :][-20:]


def complaint(log: Path) -> str | None:
    """Return the sentence by which the last command of a log ended in an error; None if it did not."""
    said = last_words(log)
    for line in said[-1:]:
        if line.startswith("tapetum: error: "):
            return line.removeprefix("tapetum: error: ")
    return said[-1] if any(line.startswith("Traceback ") for line in said) else None


def _birth(number: int) -> str | None:
    """Return when a process was started, in clock ticks since the system was; None if it is gone or a zombie."""
    try:
        # The second field, the program's name, is in parentheses and may hold anything.
        fields = (_PROC / str(number) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
