"""Predictions as cards on a page: an image, its prediction, and the labelled images behind it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import UNLABELLED
from tapetum.evaluation.review import Integers, Judged, Predicted
from tapetum.reporting.pictures import Thumbnail, Thumbnails

HARDEST, LEAST_CERTAIN, CONFUSIONS, OF_EACH_CONFUSION = 12, 12, 8, 3
"""Greatest numbers of cards on a page."""


@dataclass(frozen=True)
class Cause:
    """A labelled image near a predicted one."""

    picture: Thumbnail
    name: str
    label: str
    weight: float
    """Its share in the prediction, from 0 to 1."""
    is_same: bool
    """Whether its class is the predicted one."""


@dataclass(frozen=True)
class Card:
    """A predicted image."""

    picture: Thumbnail
    name: str
    label: str
    confidence: float
    truth: str | None
    """None if the true class is unknown."""
    causes: tuple[Cause, ...]

    @property
    def is_right(self) -> bool:
        return self.label == self.truth


class Run(Protocol):
    """What cards need to know of a run: its classes, and its images with their labels."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def pool(self) -> Store: ...
    @property
    def pool_labels(self) -> Integers: ...
    @property
    def added(self) -> Store: ...
    @property
    def added_labels(self) -> Integers: ...


class Cards:
    """Makes the cards of one run; `judged` if some predictions are of other images than the pool's."""

    def __init__(self, review: Run, judged: Judged | None = None) -> None:
        self._review = review
        self.pool, self._added = Thumbnails(review.pool), Thumbnails(review.added)
        same = judged is None or judged.predicted.store is review.pool
        self._judged = self.pool if same or judged is None else Thumbnails(judged.predicted.store)

    def of(self, predicted: Predicted, positions: Iterable[int]) -> list[Card]:
        """Make the cards of some of the predicted images."""
        return [self._card(predicted, int(i)) for i in positions]

    def _card(self, predicted: Predicted, i: int) -> Card:
        classes, label, truth = self._review.classes, int(predicted.labels[i]), int(predicted.truth[i])
        pictures = self.pool if predicted.store is self._review.pool else self._judged
        row = int(predicted.rows[i])
        return Card(
            picture=pictures.of(row),
            name=predicted.store.names[row],
            label=classes[label],
            confidence=float(predicted.confidence[i]),
            truth=None if truth == UNLABELLED else classes[truth],
            causes=tuple(
                self._cause(int(index), float(weight), label)
                for index, weight in zip(predicted.neighbours[i], predicted.weights[i])
            ),
        )

    def _cause(self, index: int, weight: float, label: int) -> Cause:
        review, pictures, store, labels = self._review, self.pool, self._review.pool, self._review.pool_labels
        if index >= len(store):
            index -= len(store)
            pictures, store, labels = self._added, review.added, review.added_labels
        of_class = int(labels[index])
        return Cause(pictures.of(index), store.names[index], review.classes[of_class], weight, of_class == label)


def hardest(predicted: Predicted) -> Integers:
    """Return the positions of the most confident wrong predictions."""
    wrong = np.flatnonzero(predicted.labels != predicted.truth)
    return wrong[np.argsort(-predicted.confidence[wrong], kind="stable")][:HARDEST]


def least_certain(predicted: Predicted) -> Integers:
    """Return the positions of the least confident predictions for unlabelled images."""
    unknown = np.flatnonzero(predicted.truth == UNLABELLED)
    return unknown[np.argsort(predicted.confidence[unknown], kind="stable")][:LEAST_CERTAIN]


def confusions(counts: Integers) -> list[tuple[int, int]]:
    """Return the (true, predicted) classes that are confused most often, from (C, C) counts."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    cells = [divmod(int(cell), len(counts)) for cell in order]
    return [(true, taken) for true, taken in cells if wrong[true, taken]]


def examples(predicted: Predicted, true: int, taken: int) -> Integers:
    """Return the positions of the most confident predictions of one confusion."""
    those = np.flatnonzero((predicted.truth == true) & (predicted.labels == taken))
    return those[np.argsort(-predicted.confidence[those], kind="stable")][:OF_EACH_CONFUSION]
