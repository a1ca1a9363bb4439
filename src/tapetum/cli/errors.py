"""Reports an error in one sentence on stderr, and only once however many processes a run has."""

import os
import sys
import time

from tapetum.system.launcher import process_rank
from tapetum.system.notices import printable

_COURTESY_SECONDS = 10.0  # a busy machine takes seconds to end a process
_WORKER = "DataLoader worker"  # in torch's words for one that a signal has ended


def is_users(error: Exception) -> bool:
    """Return whether the user's input caused an error, so that its message is enough without a traceback."""
    # Typer's own errors have moved between its versions, but all of them can format their message.
    return isinstance(error, ValueError | OSError | MemoryError) or hasattr(error, "format_message")


def is_lost_process(error: Exception) -> bool:
    """Return whether an error only means that another process of the run has ended, or one that reads its images."""
    named = any(name in str(error) for name in ("gloo", _WORKER))
    return isinstance(error, RuntimeError) and (named or type(error).__name__.startswith("Dist"))


def complain(error: Exception) -> None:
    """Print what is wrong. Most errors occur in all processes: rank 0 prints and exits first, which ends the others."""
    rank, starter = process_rank(), os.getppid()
    if rank > 0:
        time.sleep(_COURTESY_SECONDS)
        if os.getppid() != starter:
            return
    which = f" (process {rank})" if rank > 0 else ""
    print(f"tapetum: error: {_sentence(error)}{which}", file=sys.stderr)


def _sentence(error: Exception) -> str:
    if is_lost_process(error) and _WORKER in str(error):
        return "a process that reads images has ended, perhaps for want of memory: continue with tapetum resume."
    if is_lost_process(error):
        return (
            "another process of this run has ended: read its message, then continue a training with tapetum resume, "
            "and anything else with the same command."
        )
    if hasattr(error, "format_message"):
        text = str(error.format_message())
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}."
    elif isinstance(error, OSError) and error.strerror:
        text = f"the system refuses ({error.strerror.lower()}): make room, or allow it, and try again."
    elif isinstance(error, MemoryError):
        why = error or "no more is free"
        text = f"the memory does not suffice ({why}): give less at a time, or use a larger machine."
    else:
        text = str(error) or type(error).__name__
    return printable(text)
