"""The log of every answer, as JSON lines: who, when, how, which suggestion or prediction, old and new label.

It only grows. A line names the image, the label before and after (null for no answer), and the
operation that it belongs to: one key stroke, or one page of a grid.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tapetum.data.label_formats.entries import as_label
from tapetum.data.labels.name_matcher import NameMatcher

About = Mapping[int, Mapping[str, Any]]
"""Image -> what else a log tells of its answer: "predicted", "confidence", "reason", "rank", "seconds", "group"."""
LONGEST = 100
"""Most characters of a class name that the page takes."""
_EARLIER = "earlier"
"""The tab of the answers of earlier sessions, which any tab may undo."""


class Change(NamedTuple):
    """An answer to one image."""

    image: int
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Operation:
    """Answers that were given, and are undone, together."""

    key: str
    how: str
    changes: Sequence[Change]
    tab: str = _EARLIER
    undoes: str | None = None


def new_operation(how: str, changes: Sequence[Change], tab: str, undoes: str | None = None) -> Operation:
    """Make an operation with a key of its own."""
    return Operation(secrets.token_hex(6), how, changes, tab, undoes)


class AnswerLog:
    """The log, and what follows from it: what can be undone, is skipped, or is not what was predicted.

    Args:
        path: the file; lines that are no JSON, such as one cut off by a crash, and unknown images are passed over.
        matcher: finds images by name.

    Attributes:
        skipped: images whose last answer was to skip them.
        excepted: image -> the class that it was said not to be, if that is the last that was said of it.
        confirmed: images whose label was kept in the review.
        classes: every class that was ever offered when an answer was given, or was one, in the order of appearance.
    """

    def __init__(self, path: Path, matcher: NameMatcher) -> None:
        self.path, self._names = path, matcher.names
        self.skipped: set[int] = set()
        self.excepted: dict[int, str] = {}
        self.confirmed: set[int] = set()
        self.classes: dict[str, None] = {}
        self._operations: list[Operation] = []
        told: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for line in _objects(path):
            found = matcher.matches(line["path"])
            if len(found) == 1:
                told.setdefault(line["operation"], []).append((found[0], line))
        for key, lines in told.items():
            changes = [Change(image, line["old"], line["new"]) for image, line in lines]
            first = lines[0][1]
            self.classes |= dict.fromkeys(name for _, line in lines for name in line.get("classes", ()))
            self._note(Operation(key, first["how"], changes, undoes=first.get("undoes")), dict(lines))

    def last(self, tab: str) -> Operation | None:
        """Return the last operation of a tab that is not undone, or else of an earlier session."""
        for mine in (tab, _EARLIER):
            for operation in reversed(self._operations):
                if operation.tab == mine:
                    return operation
        return None

    def append(self, operation: Operation, who: str, about: About, classes: Sequence[str] = ()) -> None:
        """Write an operation to disk, with those of `classes` that the log lacks, and take note of it."""
        shared = {
            "when": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": who,
            "operation": operation.key,
            "how": operation.how,
        }
        shared |= {} if operation.undoes is None else {"undoes": operation.undoes}
        offered = [name for name in classes if name not in self.classes]
        content = ""
        for image, old, new in operation.changes:
            line = shared | {"path": self._names[image], "old": old, "new": new} | dict(about.get(image, {}))
            line |= {"classes": offered} if offered and not content else {}
            content += json.dumps(line, ensure_ascii=False) + "\n"
        if content:
            _append(self.path, content.encode())
        self.classes |= dict.fromkeys(offered)
        self._note(operation, about)

    def _note(self, operation: Operation, about: About) -> None:
        for image, old, new in operation.changes:
            self.skipped.discard(image)
            self.confirmed.discard(image)
            self.excepted.pop(image, None)
            if operation.how == "skip":
                self.skipped.add(image)
            if operation.how == "review" and old == new:
                self.confirmed.add(image)
            if operation.how == "not":
                self.excepted[image] = str(about.get(image, {}).get("group"))[:LONGEST]
            if new:
                self.classes.setdefault(new)
        if operation.undoes is None:
            self._operations.append(operation)
        else:
            self._operations = [other for other in self._operations if other.key != operation.undoes]


def _objects(path: Path) -> list[dict[str, Any]]:
    """Read the lines that are whole."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
        try:
            entry = json.loads(line)
            is_whole = all(isinstance(entry[key], str) for key in ("path", "operation", "how"))
            labels = [entry[key] for key in ("old", "new") if entry[key] is not None] + list(entry.get("classes", ()))
            # An undo writes what is here into the CSV again.
            if is_whole and all(isinstance(label, str) and as_label(label, "") for label in labels):
                found.append(entry)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _append(path: Path, content: bytes) -> None:
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            # A line cut off by a crash must not swallow the next one.
            content = content if file.read(1) == b"\n" else b"\n" + content
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
