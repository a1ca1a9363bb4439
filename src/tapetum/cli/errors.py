"""Reports an error in one sentence on stderr, and only once however many processes a run has."""

import os
import sys
import time

from tapetum.system.launcher import process_rank

_COURTESY_SECONDS = 10.0  # a busy machine takes seconds to end a process


def is_users(error: Exception) -> bool:
    """Return whether the user's input caused an error, so that its message is enough without a traceback."""
    # Typer's own errors have moved between its versions, but all of them can format their message.
    return isinstance(error, ValueError | OSError) or hasattr(error, "format_message")


def is_lost_process(error: Exception) -> bool:
    """Return whether an error only means that another process of the run has ended."""
    return isinstance(error, RuntimeError) and ("gloo" in str(error) or type(error).__name__.startswith("Dist"))


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
    if is_lost_process(error):
        return "another process of this run has ended: read its message, then continue with tapetum resume."
    if hasattr(error, "format_message"):
        text = str(error.format_message())
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}."
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())
