"""Opening images, and what is said about it on stderr: progress, and what is skipped."""

from __future__ import annotations

from typing import Any

from tapetum.data.readable import Unreadable, in_words, readable
from tapetum.data.sources import Source, open_source
from tapetum.engine.callbacks import notify


def skip_unreadable(source: Source, strict: bool) -> tuple[Source, list[Unreadable]]:
    """The source without image files that cannot be decoded, said on stderr, and these files.

    Raises:
        ValueError: there are some and `strict` refuses them, or nothing is left to work with.
    """
    kept, unreadable = readable(source, strict, report_reading)
    if unreadable:
        notify(f"{in_words(unreadable, len(source.store))}: skipped")
    return kept, unreadable


def open_test_part(path: Any) -> Source:
    """The test part of a source, or all of a source that has no parts.

    Raises:
        ValueError: nothing there, or a damaged test part.
    """
    try:
        return open_source(path, split="test")
    except ValueError as error:
        # Only a source without parts: where a test part is damaged, the whole would be what was trained on.
        if "has no test part" not in str(error):
            raise
        return open_source(path)


def report_decoding(done: int, total: int) -> None:
    if done == total or done % 10_000 < 1_000:
        notify(f"decoded {done} of {total} images once, for this and later runs")


def report_reading(done: int, total: int) -> None:
    if total > 1_000 and (done == total or done % 10_240 == 0):
        notify(f"checked that {done} of {total} images can be read, for this and later runs")
