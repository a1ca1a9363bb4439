"""Accuracy: how many images a method classifies correctly, by several measures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.evaluation.embedding import Embedder
from tapetum.evaluation.intervals import wilson
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

    @property
    def headline(self) -> Accuracy:
        """The accuracy of the classifier that the method predicts with."""
        return self.classifier if self.predicts_by == "classifier" and self.classifier else self.soft_neighbours

    def as_dict(self) -> dict[str, object]:
        votes = {str(count): asdict(accuracy) for count, accuracy in self.nearest_neighbours.items()}  # as in JSON
        return {**asdict(self), "nearest_neighbours": votes}


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
) -> Evaluation:
    """Evaluate a method on the labelled images of `test`, with the labelled images of the pool as supports.

    Args:
        embedder: runs the method.
        pool, pool_labels: the images trained on and their labels (-1: unlabelled, not used).
        test, test_labels: images to evaluate on and their labels, in the class order of `pool_labels`.
    """
    support_rows, test_rows = pool_labels.labelled, test_labels.labelled
    supports = embedder.outputs(pool, support_rows)
    queries = embedder.outputs(test, test_rows)
    labels = torch.from_numpy(pool_labels.values[support_rows].astype(np.int64))
    truth = torch.from_numpy(test_labels.values[test_rows].astype(np.int64))
    classes = pool_labels.classes
    probabilities = classify_by_neighbours(queries.embeddings, supports.embeddings, labels, len(classes))
    votes = nearest_neighbour_votes(queries.embeddings, supports.embeddings, labels, len(classes))
    return Evaluation(
        soft_neighbours=accuracy(probabilities, truth, classes),
        classifier=None if queries.logits is None else accuracy(queries.logits, truth, classes),
        nearest_neighbours={count: accuracy(rows, truth, classes) for count, rows in votes.items()},
        predicts_by=embedder.method.predicts_by,
    )
