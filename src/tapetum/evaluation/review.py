"""Everything to show of a run, as numbers: the input of figures and pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import UNLABELLED
from tapetum.evaluation.calibration import Calibration, Reliability
from tapetum.ops.intervals import wilson

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]

JUDGES = {
    "eval/soft_nn_top1": "soft nearest neighbours",
    "eval/knn_top1": "votes of the 20 nearest",
    "eval/classifier_top1": "the method's classifier",
}
"""Names of the accuracies measured during training, by their columns of metrics.csv."""


@dataclass(frozen=True)
class Predicted:
    """A run's predictions for N images of a store."""

    store: Store
    rows: Integers
    """(N,) indices of the images in the store."""
    labels: Integers
    """(N,) predicted classes."""
    confidence: Floats
    """(N,)."""
    truth: Integers
    """(N,) true classes, -1 if unknown."""
    neighbours: Integers
    """(N, K) indices of the nearest labelled images: in the pool, or from its length on, among the added images."""
    weights: Floats
    """(N, K) their shares in the prediction."""
    embeddings: Floats
    """(N, D) rows of unit length; (N, 0) where nobody asks for them."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shown_classes(self) -> Integers:
        """(N,) the true class if it is known, else the predicted one."""
        return np.where(self.truth == UNLABELLED, self.labels, self.truth)


@dataclass(frozen=True)
class Judged:
    """Predictions for images with known labels, none of which was used for training or as a support."""

    predicted: Predicted
    what: str
    """e.g. "10,000 test images"."""
    reliability: Reliability

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        return self.predicted.labels == self.predicted.truth

    @property
    def top1(self) -> float:
        """Accuracy in percent."""
        return 100 * float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of `top1`, in percent."""
        return wilson(int(self.right.sum()), len(self.right))

    def confusion(self, num_classes: int) -> Integers:
        """Count images by true class (row) and predicted class (column), (C, C)."""
        cells = self.predicted.truth * num_classes + self.predicted.labels
        return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Review:
    """Everything that figures and pages show of a run."""

    name: str
    command: str
    recipe: str
    """The text of recipe.yaml."""
    settings: Mapping[str, str]
    """The most important settings: name -> value, in words."""
    classes: tuple[str, ...]
    curves: Mapping[str, tuple[Integers, Floats]]
    """Column of metrics.csv -> steps and values; columns without values are left out."""
    pool: Store
    pool_labels: Integers
    """(N,) classes of the pool's images, -1 if unlabelled."""
    added: Store
    """Small pictures of the labelled images that were added after training."""
    added_labels: Integers
    """Their classes."""
    judged: Judged | None
    """None if no label counts as held out and there are no test images."""
    sample: Predicted
    """Some images of the pool, including labelled ones."""
    calibration: Calibration
    predicts_by: str

    @property
    def no_accuracy(self) -> str:
        """Why no accuracy is shown, if there is none."""
        return (
            "No accuracy is shown, because no label counts as held out and there are no test images: accuracy on "
            "images trained on says nothing about new ones. Hold labels out (data.held_out_share), or give labelled "
            "test images."
        )


def smooth(steps: Integers, values: Floats, points: int = 200) -> tuple[Floats, Floats]:
    """Average equal stretches of a curve, so that a curve of any length has at most `points` points."""
    parts = np.array_split(np.arange(len(values)), min(points, len(values)))
    return np.array([steps[p].mean() for p in parts]), np.array([values[p].mean() for p in parts])


def principal_components(embeddings: Floats) -> Floats:
    """Project embeddings (N, D) on the two directions in which they differ most, each with a positive largest entry."""
    centred = embeddings - embeddings.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    if axes.shape[1] < 2:
        axes = np.concatenate([axes, np.zeros_like(axes)], axis=1)
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return centred @ (axes * np.where(signs == 0, 1, signs))


def umap(embeddings: Floats) -> Floats:
    """Place embeddings in two dimensions, (N, 2), by UMAP (McInnes et al., 2018), which keeps neighbours together.

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
