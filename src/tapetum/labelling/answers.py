"""The answers of whoever labels: a CSV that `fit` reads, and a log of every answer.

`fit` refuses a file with two labels for one image, so a correction cannot be a further line, and a line that is cut off
by a crash could be read as another class. Every answer therefore writes the CSV anew, under a temporary name, and
gives it its own name once it is on disk: at every moment the file is whole, and a killed process loses at most the
answer in flight. A lock file makes writers wait for each other, and each reads what others wrote before it writes.
"""

from __future__ import annotations

import csv
import io
import os
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tapetum.data.labels.label_files import read_answers
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.data.labels.name_matcher import NameMatcher
from tapetum.labelling.answer_log import LONGEST, About, AnswerLog, Change, Operation, new_operation
from tapetum.reporting.predictions_table import safe_class, safe_path
from tapetum.system.files import only_one, write_text, writing

Answer = str | None
"""A class, `NONE_OF_THESE`, or None: not answered."""

_HEADER = ["path", "label"]
_AGAIN = "answer once more"
_Stamp = tuple[int, int, int] | None


class Answers:
    """What is known about each image of a pool.

    Args:
        path: the CSV of `path,label` lines; it need not exist. The log is beside it: `labels.log.jsonl` for
            `labels.csv`.
        names: N names of images, relative to `root`.
        root: their folder.
        who: who answers, for the log.

    Raises:
        ValueError: the CSV names an unknown image, has two labels for one, or cannot be read or written.

    Example:
        >>> answers = Answers(Path("labels.csv"), ["1.png", "2.png"], Path("photos"), "ann")
        >>> _ = answers.give({1: "cat"}, how="key")
        >>> print(Path("labels.csv").read_text(), end="")
        path,label
        2.png,cat
    """

    def __init__(self, path: Path, names: Sequence[str], root: Path, who: str) -> None:
        if path.suffix.lower() != ".csv" or path.is_dir():
            raise ValueError(f"labels are written as CSV, but {path} is none: give a file such as labels.csv.")
        self.path = Path(os.path.realpath(path))  # a link stays a link when the file is replaced
        self.names, self._who = names, who
        self._matcher = NameMatcher(names, root, self.path.parent)
        self._lock = threading.RLock()
        self._stamp: _Stamp = None
        self._labels: dict[int, str] = {}
        self._log = AnswerLog(self.path.with_name(f"{self.path.stem}.log.jsonl"), self._matcher)
        self._order = dict.fromkeys(self._log.classes)
        with self._writing():  # so that a folder that cannot be written is told before anybody answers
            if not self.path.exists():
                self._write({})
            self.expect(self.labels.values())  # so is a faulty file

    @property
    def labels(self) -> dict[int, str]:
        """Image -> class or `NONE_OF_THESE`, in the order of the file, with the answers of other processes."""
        with self._lock:
            if self._stamp is None or self._stamp != _stamp_of(self.path):
                stamp = _stamp_of(self.path)
                self._labels, self._stamp = self._read(), stamp
            return self._labels

    @property
    def skipped(self) -> set[int]:
        """Images whose last answer was to skip them."""
        return self._log.skipped

    @property
    def excepted(self) -> dict[int, str]:
        """Image -> the class that it was said not to be, if that is the last that was said."""
        return self._log.excepted

    @property
    def confirmed(self) -> set[int]:
        """Images whose label was kept in the review."""
        return self._log.confirmed

    def classes(self) -> dict[str, int]:
        """Class -> number of images, in the order in which classes first appeared, so that their keys stay."""
        counts = Counter(self.labels.values())
        with self._lock:
            self.expect(counts)
            return {name: counts[name] for name in self._order if name != NONE_OF_THESE}

    def expect(self, names: Iterable[str]) -> None:
        """Number classes that are to be offered, after those that have a number already."""
        with self._lock:
            self._order |= dict.fromkeys(name for name in names if name not in self._order)

    def give(self, given: Mapping[int, Answer], how: str, tab: str = "", about: About | None = None) -> Operation:
        """Write answers; when this returns, they are on disk.

        Args:
            given: image -> answer.
            how: what led to them: "key", "grid", "review"; "skip" and "not" change no label.
            tab: the browser tab, so that each tab undoes its own answers.
            about: image -> what else to log, e.g. the suggestion.

        Raises:
            ValueError: a class name that cannot be written, or the disk refuses.
        """
        cleaned: dict[int, Answer] = {i: None if label is None else clean_class(label) for i, label in given.items()}
        with self._writing():
            before = self.labels
            if how in ("skip", "not"):  # whatever others have answered meanwhile stays
                cleaned = {image: before.get(image) for image in cleaned}
            changes = [Change(image, before.get(image), label) for image, label in cleaned.items()]
            operation = new_operation(how, changes, tab)
            numbered = list(self.classes())  # before a first answer of a class moves it, in a later session
            self._apply(changes)
            self._log.append(operation, self._who, about or {}, numbered)
            return operation

    def undo(self, tab: str) -> Operation | None:
        """Take back the last answer of a tab, or of an earlier session; None if there is none.

        An image that somebody else has answered differently since keeps that answer.
        """
        with self._writing():
            last = self._log.last(tab)
            if last is None:
                return None
            now = self.labels
            changes = [Change(c.image, c.new, c.old) for c in last.changes if now.get(c.image) == c.new]
            self._apply(changes)
            operation = new_operation("undo", changes, tab, undoes=last.key)
            self._log.append(operation, self._who, {})
            return operation

    def copy(self, path: Path) -> dict[str, int]:
        """Write the labels to another file, whole or not at all; return the images of each class."""
        with self._lock:
            labels = self.labels
            write_text(path, self._text(labels), _AGAIN)
            return {name: count for name, count in self.classes().items() if count}

    def _apply(self, changes: Sequence[Change]) -> None:
        if any(change.old != change.new for change in changes):
            labels = dict(self.labels)
            for change in changes:
                labels.pop(change.image, None)  # a correction moves to the end
                if change.new is not None:
                    labels[change.image] = change.new
            self._write(labels)

    def _write(self, labels: dict[int, str]) -> None:
        write_text(self.path, self._text(labels), _AGAIN)
        self._labels, self._stamp = labels, _stamp_of(self.path)

    def _text(self, labels: Mapping[int, str]) -> str:
        text = io.StringIO(newline="")
        rows = ([self._written(self.names[image]), safe_class(label)] for image, label in labels.items())
        csv.writer(text, lineterminator="\n").writerows([_HEADER, *rows])
        return text.getvalue()

    @staticmethod
    def _written(name: str) -> str:
        """Return a path as readers, who strip fields, and spreadsheets leave it."""
        return f"./{name}" if name[:1].isspace() else safe_path(name)

    def _read(self) -> dict[int, str]:
        return read_answers(self.path, self._matcher) if self.path.exists() else {}

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other threads and processes from writing, and turn the disk's errors into a sentence."""
        with writing(self.path, _AGAIN):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, only_one(self.path.with_name(f"{self.path.name}.lock")):
                yield


def clean_class(name: str) -> str:
    """Return a class name without blanks around it.

    Raises:
        ValueError: it is empty, too long, or has characters that no file or screen shows.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not 0 < len(name) <= LONGEST:
        raise ValueError(f"a class name has 1 to {LONGEST} characters, not {len(name)}: choose another.")
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise ValueError(f"the class name {name!r} cannot be printed: use letters, digits and punctuation.")
    return name


def _stamp_of(path: Path) -> _Stamp:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
