"""Accuracy: how many images a method classifies correctly, by several measures."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.evaluation.embedding import Embedder
from tapetum.evaluation.linear_probe import linear_probe
from tapetum.evaluation.nearest_neighbours import nearest_neighbour_votes
from tapetum.evaluation.soft_neighbours import classify_by_neighbours


@dataclass(frozen=True)
class Accuracy:
    """Shares of correctly classified images, in percent."""

    top1: float
    top5: float
    per_class: dict[str, float]
    """Top-1 for the images of each class; classes without images are left out."""
    count: int
    """Number of images evaluated."""

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of `top1`, in percent."""
        return wilson(round(self.top1 * self.count / 100), self.count)


@dataclass(frozen=True)
class Evaluation:
    """The accuracies of a run on labelled images, by several classifiers."""

    soft_neighbours: Accuracy
    """By soft nearest neighbours among all labelled images of the pool."""
    classifier: Accuracy | None
    """By the method's own linear classifier; None if it trains none."""
    nearest_neighbours: dict[int, Accuracy]
    """For each k, by the votes of the k nearest labelled images of the pool."""
    predicts_by: str
    """Which of the first two the method predicts with: "soft_neighbours" or "classifier"."""
    linear: Accuracy | None = None
    """By a linear probe trained on the embeddings of all labelled images of the pool; None unless it was asked for."""
    linear_regularisation: float | None = None
    """lambda of the linear probe, chosen by cross-validation on these images."""

    @property
    def headline(self) -> Accuracy:
        """The accuracy of the classifier that the method predicts with."""
        return self.classifier if self.predicts_by == "classifier" and self.classifier else self.soft_neighbours

    def as_dict(self) -> dict[str, object]:
        votes = {str(count): asdict(accuracy) for count, accuracy in self.nearest_neighbours.items()}  # as in JSON
        found = {**asdict(self), "nearest_neighbours": votes}
        return {name: value for name, value in found.items() if value is not None or not name.startswith("linear")}


def accuracy(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Accuracy:
    """Compute top-1, top-5 and per-class accuracy of (N, C) probabilities or logits against (N,) labels.

    Example:
        >>> import torch
        >>> from tapetum.evaluation.accuracy import accuracy
        >>> accuracy(torch.eye(3), torch.tensor([0, 1, 1]), ["a", "b", "c"]).per_class
        {'a': 100.0, 'b': 50.0}
    """
    ranked = probabilities.topk(min(5, probabilities.shape[1]), dim=1).indices
    hits = ranked == labels[:, None]
    first = hits[:, 0].double()
    per_class = {
        name: 100 * float(first[labels == c].mean()) for c, name in enumerate(classes) if bool((labels == c).any())
    }
    return Accuracy(
        top1=100 * float(first.mean()),
        top5=100 * float(hits.any(dim=1).double().mean()),
        per_class=per_class,
        count=len(labels),
    )


def evaluate_method(
    embedder: Embedder,
    *,
    pool: Store,
    pool_labels: Labels,
    test: Store,
    test_labels: Labels,
    linear: bool = False,
) -> Evaluation:
    """Evaluate a method on the labelled images of `test`, with the labelled images of the pool as supports.

    Args:
        embedder: runs the method.
        pool, pool_labels: the images trained on and their labels (-1: unlabelled, not used).
        test, test_labels: images to evaluate on and their labels, in the class order of `pool_labels`.
        linear: also train a linear probe, which takes seconds to minutes.
    """
    support_rows, test_rows = pool_labels.labelled, test_labels.labelled
    supports = embedder.outputs(pool, support_rows)
    queries = embedder.outputs(test, test_rows)
    labels = torch.from_numpy(pool_labels.values[support_rows].astype(np.int64))
    truth = torch.from_numpy(test_labels.values[test_rows].astype(np.int64))
    classes = pool_labels.classes
    probabilities = classify_by_neighbours(queries.embeddings, supports.embeddings, labels, len(classes))
    votes = nearest_neighbour_votes(queries.embeddings, supports.embeddings, labels, len(classes))
    probe, regularisation = None, None
    if linear:
        logits, regularisation = linear_probe(supports.embeddings, labels, queries.embeddings, len(classes))
        probe = accuracy(logits, truth, classes)
    return Evaluation(
        soft_neighbours=accuracy(probabilities, truth, classes),
        classifier=None if queries.logits is None else accuracy(queries.logits, truth, classes),
        nearest_neighbours={count: accuracy(rows, truth, classes) for count, rows in votes.items()},
        predicts_by=embedder.method.predicts_by,
        linear=probe,
        linear_regularisation=regularisation,
    )


_Z = 1.959964  # 97.5% point of the normal distribution


def wilson(right: int, count: int) -> tuple[float, float]:
    """Compute the 95% interval of a share after `right` of `count` trials, in percent (Wilson, JASA 1927).

    Unlike the textbook interval, it stays within 0 and 100, and has a width even if all trials have the same outcome.

    Raises:
        ValueError: there are no trials, or `right` is not between 0 and `count`.

    Example:
        >>> [round(end, 1) for end in wilson(9, 10)]
        [59.6, 98.2]
    """
    if not 0 <= right <= count or count == 0:
        raise ValueError(f"{right} of {count} are right: count at least one image.")
    share, z2 = right / count, _Z**2
    middle = share + z2 / (2 * count)
    spread = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # At the ends the two terms cancel, and rounding may leave the result just outside.
    low, high = ((middle + sign * spread) / (1 + z2 / count) for sign in (-1, 1))
    return 100 * max(0.0, low), 100 * min(1.0, high)
