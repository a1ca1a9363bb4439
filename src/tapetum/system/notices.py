"""Notices on stderr while something runs, printed once however many processes a run has."""

import sys
import time
from collections.abc import Callable

from tapetum.system.launcher import process_rank

ReportProgress = Callable[[int, int], None]
"""Called as `report(done, total)` from time to time, and once more at the end."""
_QUIET_SECONDS = 5.0


def notify(message: str) -> None:
    """Print a message that is not a result: to stderr, with the program's name, and only from the first process."""
    if process_rank() == 0:
        print(f"tapetum: {message}", file=sys.stderr, flush=True)


def progress_notices(what: str) -> ReportProgress:
    """Return a function that reports e.g. "decoded 500 of 2,000 images" every five seconds; short jobs report nothing.

    Args:
        what: the verb, such as "decoded".
    """
    began = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - (began if done == total else last) >= _QUIET_SECONDS:
            last = now
            notify(f"{what} {done:,} of {total:,} images; later runs reuse the result")

    return report
