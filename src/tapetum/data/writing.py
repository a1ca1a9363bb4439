"""What to tell a person when the disk does not take a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AGAIN = "give the same command again"
RESUME = "go on with `tapetum resume` and the run's folder: what was saved before is whole"


@contextmanager
def writing(path: Path, then: str = AGAIN) -> Iterator[None]:
    """Turns a full disk, a folder that may not be written to and the like into one sentence.

    Args:
        path: the file that is written inside.
        then: what to do when there is room again.

    Raises:
        ValueError: an OSError came from inside.
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"{path} cannot be written ({reason}): make room or allow it, and {then}.") from error
