"""Predictions as cards of a page: an image, what is said of it, and the labelled images that caused it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import numpy as np

from tapetum.data.labels.labels import UNLABELLED
from tapetum.evaluation.review import Integers, Predicted, Review
from tapetum.reporting.pictures import Pictures

HARDEST, LEAST_CERTAIN, CONFUSIONS, OF_EACH_CONFUSION = 12, 12, 8, 3
"""Cards of a page."""


class Cards:
    """Makes the cards of one review."""

    def __init__(self, review: Review) -> None:
        self._review = review
        self.pool = Pictures(review.pool)
        judged = review.judged
        same = judged is None or judged.predicted.store is review.pool
        self._judged = self.pool if same or judged is None else Pictures(judged.predicted.store)

    def strip(self, predicted: Predicted, positions: Iterable[int]) -> str:
        """Cards of some of the predicted images."""
        return f'<ul class="cards">{"".join(self._card(predicted, int(i)) for i in positions)}</ul>'

    def _card(self, predicted: Predicted, i: int) -> str:
        classes, label, truth = self._review.classes, int(predicted.labels[i]), int(predicted.truth[i])
        pictures = self.pool if predicted.store is self._review.pool else self._judged
        name, said = escape(predicted.store.names[predicted.rows[i]]), escape(classes[label])
        verdict = f"<strong>{said}</strong>, {100 * predicted.confidence[i]:.0f}% sure"
        if truth != UNLABELLED:
            kind, word = ("right", "right") if truth == label else ("wrong", f"but it is {escape(classes[truth])}")
            verdict += f' – <span class="{kind}">{word}</span>'
        picture = pictures.tag(int(predicted.rows[i]), f"{name}, predicted {said}")
        causes = "".join(
            self._cause(int(index), weight, label)
            for index, weight in zip(predicted.neighbours[i], predicted.weights[i])
        )
        return (
            f'<li class="card">{picture}<div>{verdict}<span class="name" title="{name}">{name}</span>'
            f'<ul class="because">{causes}</ul></div></li>'
        )

    def _cause(self, index: int, weight: float, label: int) -> str:
        of_class = int(self._review.pool_labels[index])
        said = escape(self._review.classes[of_class])
        same = " class=same" if of_class == label else ""
        name = escape(self._review.pool.names[index])
        picture = self.pool.tag(index, f"labelled {said}, weight {100 * weight:.1f}%")
        return f'<li{same} title="{name}">{picture}<span>{said}</span><span>{100 * weight:.1f}%</span></li>'


def hardest(predicted: Predicted) -> Integers:
    """Positions of the wrong predictions that were surest."""
    wrong = np.flatnonzero(predicted.labels != predicted.truth)
    return wrong[np.argsort(-predicted.confidence[wrong], kind="stable")][:HARDEST]


def least_certain(predicted: Predicted) -> Integers:
    """Positions of the unlabelled images whose predictions are least sure."""
    unknown = np.flatnonzero(predicted.truth == UNLABELLED)
    return unknown[np.argsort(predicted.confidence[unknown], kind="stable")][:LEAST_CERTAIN]


def confusions(counts: Integers) -> list[tuple[int, int]]:
    """(true, predicted) classes that are confused most often, from (C, C) counts."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    cells = [divmod(int(cell), len(counts)) for cell in order]
    return [(true, taken) for true, taken in cells if wrong[true, taken]]


def examples(predicted: Predicted, true: int, taken: int) -> Integers:
    """Positions of the surest predictions of one confusion."""
    those = np.flatnonzero((predicted.truth == true) & (predicted.labels == taken))
    return those[np.argsort(-predicted.confidence[those], kind="stable")][:OF_EACH_CONFUSION]
