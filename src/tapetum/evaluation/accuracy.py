"""Accuracy: how many images a method classifies correctly, by several measures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.evaluation.embedding import Embedder
from tapetum.evaluation.linear_probe import linear_probe
from tapetum.evaluation.nearest_neighbours import NEIGHBOURS, nearest_neighbour_votes
from tapetum.evaluation.prediction import Supports
from tapetum.evaluation.soft_neighbours import TEMPERATURE, classify_by_neighbours
from tapetum.ops.collectives import gather_on_all
from tapetum.ops.intervals import wilson


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
    """By the method's own linear classifier; None if it trains none, or does not know all classes."""
    nearest_neighbours: dict[int, Accuracy]
    """For each k, by the votes of the k nearest labelled images of the pool."""
    predicts_by: str
    """Which of the first two the method predicts with: "soft_neighbours" or "classifier"."""
    linear: Accuracy | None = None
    """By a linear probe trained on the features of all labelled images of the pool; None unless it was asked for."""
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


class Tally:
    """Counts right answers batch by batch, so that memory does not grow with the number of images judged."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self._right, self._seen = (torch.zeros(len(classes), dtype=torch.int64) for _ in range(2))
        self._among_five = 0

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count (N, C) probabilities or logits against (N,) labels."""
        hits = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
        self._seen += labels.bincount(minlength=len(self.classes))
        self._right += labels[hits[:, 0]].bincount(minlength=len(self.classes))
        self._among_five += int(hits.any(dim=1).sum())

    def __iadd__(self, other: "Tally") -> "Tally":
        self._right += other._right
        self._seen += other._seen
        self._among_five += other._among_five
        return self

    @property
    def count(self) -> int:
        """Number of images judged so far."""
        return int(self._seen.sum())

    def accuracy(self) -> Accuracy:
        """The accuracy on all images counted so far."""
        right, seen = self._right.tolist(), self._seen.tolist()
        count = sum(seen)
        return Accuracy(
            top1=100 * (sum(right) / count),
            top5=100 * (self._among_five / count),
            per_class={name: 100 * (right[c] / seen[c]) for c, name in enumerate(self.classes) if seen[c]},
            count=count,
        )


def read_evaluation(saved: Mapping[str, Any]) -> Evaluation:
    """Rebuild an evaluation from what `as_dict` returned, perhaps after a detour through JSON."""
    parts = {name: saved.get(name) and Accuracy(**saved[name]) for name in ("soft_neighbours", "classifier", "linear")}
    votes = {int(count): Accuracy(**values) for count, values in saved["nearest_neighbours"].items()}
    return Evaluation(**{**saved, **parts, "nearest_neighbours": votes})


def accuracy(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Accuracy:
    """Compute top-1, top-5 and per-class accuracy of (N, C) probabilities or logits against (N,) labels.

    Example:
        >>> import torch
        >>> from tapetum.evaluation.accuracy import accuracy
        >>> accuracy(torch.eye(3), torch.tensor([0, 1, 1]), ["a", "b", "c"]).per_class
        {'a': 100.0, 'b': 50.0}
    """
    tally = Tally(classes)
    tally.add(probabilities, labels)
    return tally.accuracy()


@dataclass(frozen=True)
class Neighbourhood:
    """How soft nearest neighbours vote; the defaults are those of the published PAWS evaluation."""

    temperature: float = TEMPERATURE
    """tau."""
    most: int | None = None
    """Number of nearest labelled images that vote; None: all."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: use a number above 0, for example 0.1.")
        if self.most is not None and self.most < 1:
            raise ValueError(f"top_k is {self.most}: use 1 or more, or leave it out for all labelled images.")


def embed_supports(embedder: Embedder, pool: Store, pool_labels: Labels) -> Supports:
    """Embed the labelled images of a pool (labels of -1 are left out)."""
    rows = pool_labels.labelled
    labels = torch.from_numpy(pool_labels.values[rows].astype(np.int64))
    embeddings = replace(embedder, classifies=False).outputs(pool, rows).embeddings
    return Supports(embeddings, labels, pool_labels.num_classes)


def evaluate_by(
    embedder: Embedder,
    supports: Supports,
    classes: Sequence[str],
    *,
    test: Store,
    test_labels: Labels,
    neighbourhood: Neighbourhood | None = None,
) -> Evaluation:
    """Evaluate a method on labelled images, batch by batch, with supports that it has embedded.

    If processes share the images out (`embedder.shared`), each of them returns the accuracy on all.

    Args:
        embedder: runs the method.
        supports: labelled images.
        classes: names of the classes that the supports' labels and those of `test` index.
        test, test_labels: images to evaluate on and their labels (-1: not used).
        neighbourhood: how soft nearest neighbours vote; None as published.
    """
    chosen, known = neighbourhood or Neighbourhood(), (supports.embeddings, supports.labels, len(classes))
    tallies = {name: Tally(classes) for name in ("soft", "classifier", *NEIGHBOURS)}
    for rows, outputs in embedder.stream_readable(test, test_labels.labelled):
        truth = torch.from_numpy(test_labels.values[rows].astype(np.int64))
        tallies["soft"].add(classify_by_neighbours(outputs.embeddings, *known, chosen.temperature, chosen.most), truth)
        for count, probabilities in nearest_neighbour_votes(outputs.embeddings, *known).items():
            tallies[count].add(probabilities, truth)
        if outputs.logits is not None and outputs.logits.shape[1] == len(classes):
            tallies["classifier"].add(outputs.logits, truth)
    tallies = _of_all(embedder, tallies)
    return Evaluation(
        soft_neighbours=tallies["soft"].accuracy(),
        classifier=tallies["classifier"].accuracy() if tallies["classifier"].count else None,
        nearest_neighbours={count: tallies[count].accuracy() for count in NEIGHBOURS},
        predicts_by=embedder.method.predicts_by,
    )


def _of_all(embedder: Embedder, tallies: dict[str | int, Tally]) -> dict[str | int, Tally]:
    """Add up what all processes have counted, if they share the images out."""
    first, *others = gather_on_all(tallies) if embedder.shared else [tallies]
    for other in others:
        for name, tally in other.items():
            first[name] += tally
    return first


def evaluate_linearly(
    embedder: Embedder, supports: Supports, classes: Sequence[str], *, test: Store, test_labels: Labels
) -> tuple[Accuracy, float]:
    """Train a linear probe on embedded labelled images and evaluate it batch by batch; also returns its lambda.

    Arguments are those of `evaluate_by`.
    """
    probe, regularisation = linear_probe(supports.embeddings, supports.labels, len(classes))
    tally = Tally(classes)
    for rows, outputs in embedder.stream_readable(test, test_labels.labelled):
        tally.add(probe.logits(outputs.embeddings), torch.from_numpy(test_labels.values[rows].astype(np.int64)))
    return _of_all(embedder, {"linear": tally})["linear"].accuracy(), regularisation
