"""What there is to show of a run, as numbers: the input of figures and pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import UNLABELLED
from tapetum.evaluation.calibration import Calibration, Reliability
from tapetum.evaluation.intervals import wilson

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]

JUDGES = {
    "eval/soft_nn_top1": "soft nearest neighbours",
    "eval/knn_top1": "votes of the 20 nearest",
    "eval/classifier_top1": "the method's classifier",
}
"""Accuracies while training, by their columns of metrics.csv."""


@dataclass(frozen=True)
class Predicted:
    """What a run says of N images of a store."""

    store: Store
    rows: Integers
    """(N,) which images."""
    labels: Integers
    """(N,) predicted classes."""
    confidence: Floats
    """(N,)."""
    truth: Integers
    """(N,) true classes, -1 where not known."""
    neighbours: Integers
    """(N, K) nearest labelled images of the pool."""
    weights: Floats
    """(N, K) their shares."""
    embeddings: Floats
    """(N, D) rows of unit length."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shown_classes(self) -> Integers:
        """(N,) the true class where it is known, else the predicted one."""
        return np.where(self.truth == UNLABELLED, self.labels, self.truth)


@dataclass(frozen=True)
class Judged:
    """Images with known labels, none of which trained or supported what judged them."""

    predicted: Predicted
    what: str
    """e.g. "10,000 test images"."""
    reliability: Reliability

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        return self.predicted.labels == self.predicted.truth

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of `top1`, percent."""
        return wilson(int(self.right.sum()), len(self.right))

    def confusion(self, num_classes: int) -> Integers:
        """(C, C) images of true class (row) by predicted class (column)."""
        cells = self.predicted.truth * num_classes + self.predicted.labels
        return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Review:
    """A run, seen from outside."""

    name: str
    command: str
    recipe: str
    """The text of recipe.yaml."""
    settings: Mapping[str, str]
    """The few that matter most, in words."""
    classes: tuple[str, ...]
    curves: Mapping[str, tuple[Integers, Floats]]
    """Column of metrics.csv -> steps and values, where it has some."""
    pool: Store
    pool_labels: Integers
    """(N,) of the pool's images, -1 where not labelled."""
    judged: Judged | None
    """None where every label trained the model."""
    sample: Predicted
    """Some images of the pool, labelled ones among them."""
    calibration: Calibration
    predicts_by: str

    @property
    def no_accuracy(self) -> str:
        """Why there is no figure of accuracy, where there is none."""
        return (
            "No accuracy is shown, because every label trained the model: what a model makes of its own labels says "
            "nothing about new images. Hold labels out (data.held_out_share), or name labelled test images."
        )


def smooth(steps: Integers, values: Floats, points: int = 200) -> tuple[Floats, Floats]:
    """Means of equal stretches, so that a curve of any length has about as many points."""
    parts = np.array_split(np.arange(len(values)), min(points, len(values)))
    return np.array([steps[p].mean() for p in parts]), np.array([values[p].mean() for p in parts])


def principal_components(embeddings: Floats) -> Floats:
    """(N, 2): the two directions in which (N, D) embeddings differ most; the largest entry of each is positive."""
    centred = embeddings - embeddings.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    if axes.shape[1] < 2:
        axes = np.concatenate([axes, np.zeros_like(axes)], axis=1)
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return centred @ (axes * np.where(signs == 0, 1, signs))


def umap(embeddings: Floats) -> Floats:
    """(N, 2) by UMAP (McInnes et al., 2018), which keeps neighbours together.

    Raises:
        ValueError: umap-learn is not installed, or there are too few images.
    """
    if len(embeddings) < 4:
        raise ValueError(f"UMAP needs 4 images or more, not {len(embeddings)}: leave it out.")
    try:
        from umap import UMAP
    except ImportError as error:
        raise ValueError("umap-learn is not installed: pip install 'tapetum[umap]', or leave UMAP out.") from error
    neighbours = min(15, len(embeddings) - 1)
    return np.asarray(UMAP(n_neighbors=neighbours, metric="cosine", random_state=0, n_jobs=1).fit_transform(embeddings))
