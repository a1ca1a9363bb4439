"""Notices on stderr while something runs, printed once however many processes a run has."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress

from tapetum.system.launcher import process_rank

ReportProgress = Callable[[int, int], None]
"""Called as `report(done, total)` from time to time, and once more at the end."""
_QUIET_SECONDS = 5.0
_LONGEST = 2000  # characters of a message


def printable(text: str) -> str:
    """Return text as one line that a terminal only shows: names in it may hold signs that would steer a terminal."""
    line = " ".join(text[: 2 * _LONGEST].split())
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line)


def notify(message: str) -> None:
    """Print a message that is not a result: to stderr, with the program's name, and only from the first process.

    If nobody reads it any more (a closed terminal, `2>&1 | head`), it is lost: no training ends for that.
    """
    if process_rank() == 0:
        with suppress(OSError):
            print(f"tapetum: {printable(message)}", file=sys.stderr, flush=True)


def progress_notices(what: str, things: str = "images") -> ReportProgress:
    """Return a function that reports e.g. "decoded 500 of 2,000 images" every five seconds; short jobs report nothing.

    Args:
        what: the verb, such as "decoded".
        things: what is counted.
    """
    began = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - (began if done == total else last) >= _QUIET_SECONDS:
            last = now
            notify(f"{what} {done:,} of {total:,} {things}; later runs reuse the result")

    return report
