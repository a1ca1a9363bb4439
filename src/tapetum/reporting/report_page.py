"""A run on one HTML page: turns a review into the values that templates/report.html shows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from tapetum.evaluation.review import JUDGES, Floats, Judged, Review, principal_components, smooth
from tapetum.ops.intervals import wilson
from tapetum.reporting import svg
from tapetum.reporting.cards import Card, Cards, confusions, examples, hardest, least_certain
from tapetum.reporting.pages import render_page

_MATRIX_UP_TO = 20  # number of classes
_PLACES = (900, 720)  # width and height of a map, in pixels
_CELLS = 18  # number of pictures side by side


def render(review: Review) -> str:
    """Render the page as text."""
    judged = review.judged
    cards = Cards(review, judged)
    context: dict[str, Any] = _curves(review) | _map(review, cards)
    context |= {"reliability": None, "hard": [], "uncertain": cards.of(review.sample, least_certain(review.sample))}
    if judged is not None:
        context |= _accuracy(review, judged, cards)
        context["reliability"] = _reliability(judged)
        context["hard"] = cards.of(judged.predicted, hardest(judged.predicted))
    return render_page("report.html", review.name, review=review, **context)


def _curves(review: Review) -> dict[str, Any]:
    """Draw the loss and the held-out accuracies, if there are any."""
    drawn: dict[str, Any] = {"loss": None, "accuracy_curves": None, "judges": []}
    if "train/loss" in review.curves:
        loss = smooth(*review.curves["train/loss"])
        drawn["loss"] = svg.curves({"loss": loss}, "loss", f"The loss, from {loss[1][0]:.2f} to {loss[1][-1]:.2f}")
    named = {JUDGES.get(n, n[5:]): smooth(*c) for n, c in review.curves.items() if n.startswith("eval/")}
    if named:
        label = "Accuracy on held-out labels during training"
        drawn |= {"accuracy_curves": svg.curves(named, "correct, %", label, (0.0, 100.0)), "judges": list(named)}
    return drawn


@dataclass(frozen=True)
class _Confused:
    """One class mistaken for another."""

    anchor: str
    true: str
    taken: str
    count: int
    total: int
    """Number of images of the true class."""
    cards: list[Card]


@dataclass(frozen=True)
class _Cell:
    """A number in the confusion matrix."""

    count: int
    share: float
    """Share of the true class, from 0 to 1."""
    is_right: bool
    anchor: str | None
    """Anchor of the examples; None if the page has none."""

    @property
    def shade(self) -> float:
        """Strength of the colour, in percent."""
        return min(100.0, 8 + 80 * self.share)


def _accuracy(review: Review, judged: Judged, cards: Cards) -> dict[str, Any]:
    """Compute accuracy per class, the confusion matrix unless there are too many classes, and the worst confusions."""
    classes, predicted = review.classes, judged.predicted
    counts = judged.confusion(len(classes))
    anchors = {pair: f"c{pair[0]}-{pair[1]}" for pair in confusions(counts)}
    confused = []
    for (t, p), anchor in anchors.items():
        found = cards.of(predicted, examples(predicted, t, p))
        confused.append(_Confused(anchor, classes[t], classes[p], int(counts[t, p]), int(counts[t].sum()), found))
    per_class, matrix = [], []
    for true, name in enumerate(classes):
        right, total = int(counts[true, true]), int(counts[true].sum())
        if total:
            low, high = wilson(right, total)
            per_class.append({"name": name, "share": 100 * right / total, "low": low, "high": high, "count": total})
        row = [
            _Cell(count, count / max(1, total), true == taken, anchors.get((true, taken)))
            for taken, count in enumerate(counts[true].tolist())
        ]
        matrix.append((name, row))
    return {
        "per_class": per_class,
        "confused": confused,
        "matrix": matrix if len(classes) <= _MATRIX_UP_TO else [],
        "upright": max(map(len, classes)) > 3,
    }


def _reliability(judged: Judged) -> Markup:
    found = judged.reliability
    ends = [wilson(round(a * n), int(n)) for a, n in zip(found.accuracy.tolist(), found.counts.tolist())]
    points = [
        (100 * c, 100 * a, *end, int(n)) for c, a, end, n in zip(found.confidence, found.accuracy, ends, found.counts)
    ]
    return svg.reliability(points, "Confidence against the share of correct predictions")


def _map(review: Review, cards: Cards) -> dict[str, Markup]:
    """Draw a sample of the pool twice, as dots and as pictures."""
    sample = review.sample
    places = _fitted(principal_components(sample.embeddings))
    colours = (sample.shown_classes % 10).tolist()
    dots = svg.scatter([(float(x), float(y)) for x, y in places], colours, (sample.truth >= 0).tolist())
    label = f"{len(sample):,} images placed by similarity"
    return {
        "dots": svg.drawing(dots, label, *_PLACES),
        "pictures": svg.drawing(_pictures(review, cards, places), f"{label}, as pictures", *_PLACES),
    }


def _fitted(flat: Floats) -> Floats:
    """Scale coordinates to fill the drawing, both by the same factor, with a margin."""
    low, high = flat.min(axis=0), flat.max(axis=0)
    size = np.array(_PLACES)
    factor = ((size - 24) / np.maximum(high - low, 1e-9)).min()
    return (flat - (low + high) / 2) * factor + size / 2


def _pictures(review: Review, cards: Cards, places: Floats) -> str:
    """Draw, in each cell that has any images, the one nearest to its middle."""
    sample, side = review.sample, _PLACES[0] / _CELLS
    cells = np.floor(places / side).astype(np.int64)
    distance = ((places - (cells + 0.5) * side) ** 2).sum(axis=1)
    nearest: dict[tuple[int, int], int] = {}
    for i in np.argsort(distance, kind="stable").tolist():
        nearest.setdefault((int(cells[i, 0]), int(cells[i, 1])), i)
    parts = []
    for (column, row), i in sorted(nearest.items()):
        picture = cards.pool.of(int(sample.rows[i]))
        name = escape(review.classes[sample.shown_classes[i]])
        style = ' style="image-rendering:pixelated"' if picture.is_tiny else ""
        box = f'x="{column * side + 1:.0f}" y="{row * side + 1:.0f}" width="{side - 2:.0f}" height="{side - 2:.0f}"'
        parts.append(f'<image {box} href="{picture.uri}"{style}><title>{name}</title></image>')
    return "".join(parts)
