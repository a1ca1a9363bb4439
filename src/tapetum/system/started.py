"""Since when the minutes of a command run."""

import os
import time
from pathlib import Path

_with_process: float | None = None


def begin_with_process() -> None:
    """Let the command have begun with its process: the command line calls this, since people count what they wait."""
    global _with_process
    _with_process = time.perf_counter() - _age_of_process()


def command_began() -> float:
    """Return what `time.perf_counter` was when this command began; called as a function in Python, it begins now."""
    return time.perf_counter() if _with_process is None else _with_process


def _age_of_process() -> float:
    """Seconds since this process was started; where the system does not tell, those of its processor time."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return time.process_time()
