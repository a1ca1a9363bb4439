"""`tapetum check`: find problems in a pool of images before training."""

import json
import os
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tapetum.data.health.health import FEW, Group, Health, Part, find_health
from tapetum.data.health.inspection import inspect
from tapetum.data.sources.open_source import Source, open_source, open_test_part
from tapetum.data.sources.save_source import is_path
from tapetum.reporting.health_page import render
from tapetum.system.files import sole_new, whole_folder
from tapetum.system.machine import available_threads
from tapetum.system.notices import notify

_PAGE, _JSON = "check.html", "check.json"


def check(images: Any, labels: Any = None, test: Any = None, output: str | Path | None = None) -> dict[str, Any]:
    """Check every image of a pool and report what is wrong, before training on it.

    Finds files that cannot be read, exact and near duplicates (`tapetum.data.health.duplicates`), test images that are
    also in the pool, copies with different labels, and classes with few labels. Also prints sizes, modes and counts.

    Args:
        images: a folder of images, or any other source (`tapetum.data.sources.open_source.open_source`).
        labels: their labels, in any form that `fit` takes; None for the labels that come with the images.
        test: test images; those that are also in the pool are reported.
        output: a new folder for check.html, a page with pictures, and check.json; None writes nothing.

    Returns:
        The content of check.json.

    Raises:
        ValueError: there are no images, the labels are faulty, or the folder is not empty.

    Example:
        >>> import tapetum
        >>> found = tapetum.check("photos", labels="labels.csv", output="health")  # doctest: +SKIP
    """
    folder = None if output is None else Path(output)
    with nullcontext() if folder is None else sole_new(folder):
        pool = _part(open_source(images, labels), "images")
        tests = None if test is None else _part(open_test_part(test), "test images")
        health = find_health(pool, tests)
        found = findings(health)
        content = {"findings": found, **health.as_dict()}
        _tell(health, found)
        if folder is not None:
            title = f"Health of {pool.source.description}"
            with whole_folder(folder) as partial:
                (partial / _PAGE).write_text(render(health, title, found), encoding="utf-8")
                (partial / _JSON).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            print(f"Written: {folder / _PAGE} (with pictures) and {folder / _JSON} (with all names).")
    _tell_next(images, labels, test, pool)
    return content


def _part(source: Source, what: str) -> Part:
    def report(done: int, total: int) -> None:
        if total > 10_000:
            notify(f"checked {done} of {total} {what}")

    return Part(source, inspect(source.store, report, threads=available_threads()))


def _tell_next(images: Any, labels: Any, test: Any, pool: Part) -> None:
    words = ["tapetum", "fit", "--images", os.fspath(images) if is_path(images) else "DIR"]
    if labels is not None or pool.source.labels is None:
        is_file = is_path(labels) and pool.source.labels is not None
        words += ["--labels", os.fspath(labels) if is_file else "FILE"]
    if is_path(test):
        words += ["--test", os.fspath(test)]
    print(f"Next: {shlex.join([*words, '--output', 'runs/first'])}")


def findings(health: Health) -> list[str]:
    """Return the problems found, most serious first: a sentence for each, with the fix."""
    found = []
    if leaked := health.leaked_tests():
        found.append(
            f"Leakage: {len(leaked)} of {len(health.classes) - health.num_pool} test images are also in the pool "
            f"({health.num_exact_leaks()} with identical pixels), {_such_as(health, health.leaks())}: remove them from "
            "one of the two, or accuracy will look better than it is."
        )
    if conflicts := health.conflicts():
        found.append(
            f"Label conflicts: {len(conflicts)} groups of copies have different labels, "
            f"{_such_as(health, conflicts, True)}: correct or delete the wrong ones."
        )
    for part, what in ((health.pool, "images"), (health.test, "test images")):
        if part is not None and part.seen.unreadable:
            index, reason = next(iter(part.seen.unreadable.items()))
            found.append(
                f"Unreadable: {len(part.seen.unreadable)} of {len(part.seen.modes)} {what}, such as "
                f"{part.source.store.names[index]} ({reason}): convert or delete them; training skips them."
            )
    for exact_ones, word, copied in ((True, "Exact", "copies"), (False, "Near", "near copies")):
        if copies := health.within_pool(exact_ones):
            extra = sum(sum(i < health.num_pool for i in group.members) - 1 for group in copies)
            found.append(
                f"{word} duplicates: {extra} images are {copied} of others, {_such_as(health, copies)}: keep one "
                "of each, or training counts them more than once."
            )
    if not health.tells_near_ones:
        found.append(
            f"Near duplicates: not listed, because on average an image looks like {health.lookalikes:.0f} others; this "
            "is normal for small or simple images. If these are video frames or bursts, split pool and test by scene."
        )
    if few := health.few():
        name, count = min(few.items(), key=lambda item: item[1])
        found.append(
            f"Few labels: {len(few)} of {len(health.class_counts())} classes have fewer than {FEW} labels, such as "
            f"{name!r} with {count}: label more, or leave these classes out."
        )
    return found


def _such_as(health: Health, found: list[Group], with_labels: bool = False) -> str:
    names, classes = health.names, health.classes
    first, last = found[0].members[0], found[0].members[-1]
    if with_labels:
        last = next(i for i in found[0].members if classes[i] not in (None, classes[first]))
        return f"such as {names[first]} ({classes[first]}) and {names[last]} ({classes[last]})"
    return f"such as {names[first]} and {names[last]}"


def _tell(health: Health, found: list[str]) -> None:
    for part, name in ((health.pool, "Pool"), (health.test, "Test")):
        if part is not None:
            print(f"{name}: {part.source.description}")
            about = health.as_dict()["pool" if part is health.pool else "test"]
            print(f"  sizes  {_most_common(about['sizes'])}\n  modes  {_most_common(about['modes'])}")
    if counts := health.class_counts():
        least, most = min(counts, key=lambda c: counts[c]), max(counts, key=lambda c: counts[c])
        spread = f"{counts[least]} ({least}) to {counts[most]} ({most})"
        print(f"  labels per class  {spread if counts[least] < counts[most] else counts[least]}")
    print("Problems to fix:" if found else "No problems found.")
    for finding in found:
        print(f"- {finding}")


def _most_common(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:3])
    return f"{shown} and {len(counts) - 3} others" if len(counts) > 3 else shown or "-"
