"""Finds image files that cannot be decoded, so that a run skips and lists them rather than fails in its tenth hour.

Every file is decoded once. The result is stored next to the cache of decoded images, so that later runs on the same
files start at once. Only files that the system failed to read, which may pass, are tried again by each run.
"""

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tapetum.data.images.cache import THREADED_FROM_PIXELS, cache_folder, cache_key
from tapetum.data.images.cache_folder import read_note, write_note
from tapetum.data.images.decoding import ImageFile, UnreadableImage, read_upright
from tapetum.data.images.stores import FileStore
from tapetum.data.label_formats.rows import safe_path
from tapetum.data.sources.open_source import Source
from tapetum.system.files import only_one, whole_file
from tapetum.system.notices import ReportProgress, notify, progress_notices

_AT_A_TIME = 1024  # files between two reports


@dataclass(frozen=True)
class Unreadable:
    """An image file that is skipped."""

    path: str
    reason: str
    """The decoder's message."""


class _Fault(NamedTuple):
    reason: str
    may_pass: bool


def find_unreadable(
    store: FileStore, report: ReportProgress | None = None, folder: Path | None = None, threads: int = 2
) -> dict[int, str]:
    """Find the files that cannot be decoded, by decoding each once or from a stored result.

    Args:
        store: the files.
        report: called with (files decoded, all that are not known yet); not called if there are none.
        folder: where results are stored; None means `cache_folder()`.
        threads: number of files decoded in parallel if they are photographs.

    Returns:
        Index of each file that cannot be decoded, and the reason.

    Raises:
        ValueError: a file does not exist.
    """
    folder = cache_folder() if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remembered = folder / f"unreadable-{cache_key(store)}.json"
    with only_one(remembered.with_suffix(".lock")):
        note = read_note(remembered)
        if note is None or "unreadable" not in note:
            if remembered.is_file():
                notify(f"{remembered} has changed since it was written: the images are looked through again")
            note = {"unreadable": {}, "unknown": range(len(store))}
        if "unknown" not in note:  # of a version that did not tell faults that may pass from damage
            note = {"unreadable": {}, "unknown": sorted(map(int, note["unreadable"]))}
        unreadable = {int(index): reason for index, reason in note["unreadable"].items()}
        if unknown := note["unknown"]:
            faults = _decode(store, unknown, report, threads)
            lasting = unreadable | {index: fault.reason for index, fault in faults.items() if not fault.may_pass}
            unknown = [index for index, fault in faults.items() if fault.may_pass]
            write_note(remembered, store.root, {"unreadable": lasting, "unknown": unknown})
            unreadable |= {index: fault.reason for index, fault in faults.items()}
    return dict(sorted(unreadable.items()))


def _pixels_or_fault(file: ImageFile) -> int | _Fault:
    try:
        image, _ = read_upright(file)
        return image.width * image.height
    except UnreadableImage as error:
        return _Fault(error.reason, error.may_pass)


def _decode(store: FileStore, rows: Sequence[int], report: ReportProgress | None, threads: int) -> dict[int, _Fault]:
    found = {}
    sizes = [size for size in map(_pixels_or_fault, store.files(rows[:8])) if isinstance(size, int)]
    are_photographs = sum(sizes) >= THREADED_FROM_PIXELS * len(sizes)
    with ThreadPoolExecutor(max(threads, store.at_once)) as pool:
        run = pool.map if are_photographs or store.at_once > 1 else map
        for start in range(0, len(rows), _AT_A_TIME):  # in chunks, because a thread pool takes on all its work at once
            some = rows[start : start + _AT_A_TIME]
            for index, result in zip(some, run(_pixels_or_fault, map(store.file, some))):
                if isinstance(result, _Fault):
                    found[index] = result
            if report is not None:
                report(start + len(some), len(rows))
    return found


def readable(
    source: Source, strict: bool = False, report: ReportProgress | None = None
) -> tuple[Source, list[Unreadable]]:
    """Return the source without the image files that cannot be decoded, and a list of those files.

    Args:
        source: any source; data in memory is not checked.
        strict: raise an error instead of leaving files out.
        report: as in `find_unreadable`.

    Raises:
        ValueError: `strict` is set and a file is unreadable, no file is readable, or a class loses all of its labels.
    """
    store = source.store
    if not isinstance(store, FileStore) or not (found := find_unreadable(store, report)):
        return source, []
    unreadable = [Unreadable(str(store.file(index)), reason) for index, reason in found.items()]
    if strict:
        raise ValueError(
            f"{in_words(unreadable, len(store))}: convert them to 8-bit PNG or JPEG, move them out of the "
            "folder, or leave strict off to skip them"
        )
    if len(found) == len(store):
        raise ValueError(f"{in_words(unreadable, len(store))}: give images in a format such as PNG or JPEG")
    kept = np.setdiff1d(np.arange(len(store)), list(found))
    labels = None if source.labels is None else source.labels.of_images(kept)
    described = f"{source.description}, {len(found)} of them unreadable"
    return replace(source, store=store.only(kept), labels=labels, description=described), unreadable


def skip_unreadable(source: Source, strict: bool) -> tuple[Source, list[Unreadable]]:
    """Do the same as `readable`, and print a notice of what is skipped.

    Raises:
        ValueError: as in `readable`.
    """
    kept, unreadable = readable(source, strict, progress_notices("read"))
    if unreadable:
        notify(f"{in_words(unreadable, len(source.store))}: skipped")
    return kept, unreadable


def in_words(unreadable: Sequence[Unreadable], among: int) -> str:
    """Describe how many of all images cannot be read, with the first one and its reason."""
    first = unreadable[0]
    return f"{len(unreadable)} of {among} images cannot be read, such as {first.path} ({first.reason})"


def write_unreadable(path: Path, unreadable: Sequence[Unreadable]) -> None:
    """Write a CSV with the header path,reason, whole or not at all."""
    with (
        whole_file(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "reason"))
        writer.writerows((safe_path(item.path), item.reason) for item in unreadable)
