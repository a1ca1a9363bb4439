"""What the page shows and does, without the web: images, answers, queue, predictions and training together."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapetum.data.label_formats.entries import is_printable
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.labelling.answer_log import Operation
from tapetum.labelling.answers import Answer, Answers
from tapetum.labelling.pictures import Pictures, Pool
from tapetum.labelling.predictions import Predictions, Suspect, read_predictions, read_suggestions, read_suspects
from tapetum.labelling.queue import Queue
from tapetum.labelling.training import Training

_MOST = 500  # images in one answer to the page
_Stamp = tuple[str, int] | None


class Session:
    """The state of one label file and its runs.

    Args:
        pool: the images.
        labels: the CSV; runs go into the folder beside it, `labels.runs` for `labels.csv`.
        who: who labels, for the log.
        run: a trained run to begin with.
        suggested: a table of `suggest` to begin with.

    Raises:
        ValueError: the label file is faulty, or cannot be written.
    """

    def __init__(
        self,
        pool: Pool,
        labels: Path,
        who: str,
        run: Path | None = None,
        suggested: Path | None = None,
    ) -> None:
        self.pool, self.answers = pool, Answers(labels, pool.names, pool.root, who)
        self.pictures, self.queue = Pictures(pool), Queue(self.answers)
        name = f"{self.answers.path.stem}.runs"
        if self.answers.path.is_relative_to(os.path.realpath(pool.root)):
            name = f".{name}"  # pictures in hidden folders do not join the pool
        folder = self.answers.path.with_name(name)
        self.training = Training(folder, pool, self.answers)
        self._index = {name: i for i, name in enumerate(pool.names)}
        self.predictions: Predictions | None = None
        self.suspects: Sequence[Suspect] = ()
        self._read: dict[str, _Stamp] = {}
        self._lock, self._suggested = threading.Lock(), suggested
        self.notice = ""
        if suggested is not None:
            self.queue.suggestions = read_suggestions(suggested, self._index)
        if run is not None:
            self.training.adopt(run)
        self.tick()

    def tick(self) -> None:
        """Start what is due, and read results that are new; called every second."""
        with self._lock:
            try:
                self.training.tick()
                if path := self._changed("predictions.csv"):
                    self.predictions = read_predictions(path, self._index)
                    self.answers.expect(filter(is_printable, self.predictions.classes))
                if path := self._changed("suggestions.csv"):
                    self.queue.suggestions = read_suggestions(path, self._index)
                if path := self._changed("review/review.html"):
                    self.suspects = read_suspects(path.parent, self._index)
            except (ValueError, OSError) as error:  # the page goes on without
                self.notice = str(error)

    def _changed(self, name: str) -> Path | None:
        """Return the newest result of this name if it has not been read yet."""
        path = self.training.newest(name)
        stamp = None if path is None else (str(path), path.stat().st_mtime_ns)
        if stamp == self._read.get(name):
            return None
        self._read[name] = stamp
        return path

    def state(self) -> dict[str, Any]:
        """Tell what the head of the page shows."""
        labels, finished = self.answers.labels, self.training.finished()
        none = sum(label == NONE_OF_THESE for label in labels.values())
        return {
            "images": len(self.pool.names),
            "labelled": len(labels) - none,
            "none": none,
            "skipped": len(self.answers.skipped - labels.keys()),
            "suggested": self.queue.left(),
            "classes": list(self.answers.classes().items()),
            "predicted": self.predictions is not None,
            "calibrated": self.predictions is not None and self.predictions.is_calibrated,
            "finished": finished,
            "training": self.training.state(),
            "notice": self.notice,
        }

    def item(self, image: int) -> dict[str, Any]:
        """Tell what the page shows of one image."""
        found = {"id": image, "name": shown(self.pool.names[image]), "label": self.answers.labels.get(image)}
        found |= {} if self.predictions is None else self.predictions.of(image)
        if image in self.answers.excepted:
            found["except"] = self.answers.excepted[image]
        return found | self.queue.about(image)

    def next(self, tab: str, count: int) -> list[dict[str, Any]]:
        """Return the images to ask next."""
        return [self.item(image) for image in self.queue.next(tab, min(count, _MOST))]

    def answer(
        self, given: Mapping[int, Answer], how: str, tab: str, seconds: float | None = None, group: str | None = None
    ) -> Operation:
        """Write answers to disk, with what was suggested and predicted in the log.

        Args:
            given: image -> answer.
            how: as for `Answers.give`.
            tab: the browser tab.
            seconds: how long it took.
            group: for "not", the class that the images are not.
        """
        about = {}
        for image in given:
            about[image] = self.queue.about(image)
            about[image] |= {} if self.predictions is None else self.predictions.of(image)
            about[image] |= {} if seconds is None else {"seconds": round(seconds, 2)}
            about[image] |= {} if group is None else {"group": group}
        return self.answers.give(given, how, tab, about)

    def listing(self, show: str, start: int, count: int) -> dict[str, Any]:
        """Return images to scroll through.

        Args:
            show: "all", "unlabelled", "none", "skipped", or "label:NAME".
            start: first place.
            count: how many, at most 500.
        """
        labels = self.answers.labels
        chosen: Sequence[int]
        if show == "all":
            chosen = range(len(self.pool.names))
        elif show == "unlabelled":
            chosen = [image for image in range(len(self.pool.names)) if image not in labels]
        elif show == "skipped":
            chosen = sorted(self.answers.skipped - labels.keys())
        else:
            wanted = NONE_OF_THESE if show == "none" else show.removeprefix("label:")
            chosen = [image for image, label in reversed(labels.items()) if label == wanted]
        return self._part(chosen, start, count)

    def groups(self) -> list[dict[str, Any]]:
        """Count the images without an answer by predicted class, and those unlike all labelled ones."""
        if self.predictions is None:
            return []
        names = [*self.predictions.classes, NONE_OF_THESE]
        counted = [{"name": name, "count": len(self._group(name))} for name in names]
        return [group for group in counted if group["count"]]

    def group(self, name: str, count: int) -> dict[str, Any]:
        """Return the images without an answer that are predicted to be of a class, the most certain first."""
        return self._part(self._group(name), 0, count)

    def _group(self, name: str) -> list[int]:
        if self.predictions is None:
            return []
        labels, excepted = self.answers.labels, self.answers.excepted
        return [i for i in self.predictions.group(name) if i not in labels and excepted.get(i) != name]

    def review(self, what: str, start: int, count: int) -> dict[str, Any]:
        """Return predictions with the labelled images that they rest on.

        Args:
            what: "doubt" for images without an answer, the least certain first; "labels" for labels that are probably
                wrong.
            start: first place.
            count: how many.
        """
        if self.predictions is None:
            return {"total": 0, "items": []}
        suspects = self._suspects() if what == "labels" else {}
        labels = self.answers.labels
        chosen = list(suspects) if what == "labels" else [i for i in self.predictions.doubtful() if i not in labels]
        part = self._part(chosen, start, count)
        for item in part["items"]:
            if suspect := suspects.get(item["id"]):
                item |= {"predicted": suspect.suggested, "confidence": None, "reason": suspect.reason}
                item["copies"] = [self._labelled(image, labels.get(image)) for image in suspect.copies]
            item["basis"] = [
                self._labelled(image, label) | {"share": round(share, 4)}
                for image, label, share in self.predictions.basis(item["id"])
                if image != item["id"]
            ]
        return part

    def _labelled(self, image: int, label: str | None) -> dict[str, Any]:
        return {"id": image, "name": shown(self.pool.names[image]), "label": label}

    def _suspects(self) -> dict[int, Suspect]:
        """Return the labels to look at again that nobody has changed or confirmed since."""
        labels, seen = self.answers.labels, self.answers.confirmed
        found: dict[int, Suspect] = {}
        for suspect in self.suspects:
            if labels.get(suspect.image) == suspect.label and suspect.image not in seen:
                found.setdefault(suspect.image, suspect)
        return found

    def _part(self, chosen: Sequence[int], start: int, count: int) -> dict[str, Any]:
        items = [self.item(image) for image in chosen[start : start + min(count, _MOST)]]
        return {"total": len(chosen), "items": items}


def shown(name: str) -> str:
    """Return a file name as text that can be sent, with bytes that are not text as escapes."""
    return name.encode(errors="backslashreplace").decode()
