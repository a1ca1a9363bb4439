"""Baselines that a model has to beat: simple methods on raw pixels of the same images, with the same labels."""

import itertools
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tapetum.data.labels.labels import UNLABELLED

Rows = npt.NDArray[np.floating[Any]]
Classes = npt.NDArray[np.int64]

SPREADING: dict[str, Any] = {"kernel": "rbf", "gamma": 5.0, "alpha": 0.95}
"""The best of the settings below on scikit-learn's digits with 10 labels per class, on average over the label draws 100
to 105, measured on digits of the pool. The recipe `paws_digits` was chosen on the same ones."""

SPREADING_SETTINGS: tuple[dict[str, Any], ...] = (
    *({"kernel": "knn", "n_neighbors": k, "alpha": a} for k, a in itertools.product((5, 7, 10), (0.2, 0.8))),
    *(
        {"kernel": "rbf", "gamma": g, "alpha": a}
        for g, a in itertools.product((2.0, 5.0, 10.0), (0.2, 0.8, 0.95, 0.99))
    ),
)
"""All settings that are tried; `gamma` suits images of about 8x8 pixels with values in [0, 1]."""


class Spreading(NamedTuple):
    """Top-1 accuracy of label spreading, in percent."""

    tuned: float
    """With `SPREADING`."""
    best: float
    """With the setting that is best on these test images, which nobody could know beforehand."""
    best_setting: str
    """That setting."""
    average: float
    """Mean over all settings."""


def pixel_rows(images: npt.ArrayLike) -> Rows:
    """Flatten (N, C, H, W) uint8 images to (N, C*H*W) rows of values in [0, 1]."""
    array = np.asarray(images)
    return array.reshape(len(array), -1) / 255


def nearest_neighbour(pool: Rows, labels: Classes, test: Rows, truth: Classes) -> float:
    """Compute top-1, in percent, of predicting the label of the nearest labelled image, by Euclidean distance.

    Args:
        pool: (N, D) images, labelled or not.
        labels: (N,) their classes, -1 if unlabelled.
        test: (T, D) images to evaluate on.
        truth: (T,) their classes.
    """
    labelled = np.flatnonzero(labels != UNLABELLED)
    squares = (pool[labelled] ** 2).sum(axis=1)
    nearest = (squares - 2 * test @ pool[labelled].T).argmin(axis=1)
    return 100 * float(np.mean(labels[labelled][nearest] == truth))


def label_spreading(pool: Rows, labels: Classes, test: Rows, truth: Classes) -> Spreading:
    """Measure scikit-learn's label spreading (Zhou et al., NIPS 2003) over the pool, for all `SPREADING_SETTINGS`.

    The arguments are those of `nearest_neighbour`. Like PAWS, it sees the whole pool and only `labels`.
    """
    from sklearn.semi_supervised import LabelSpreading  # slow to import, and only the demo needs it

    reached: dict[str, float] = {}
    for setting in SPREADING_SETTINGS:
        with warnings.catch_warnings():
            # About images that the graph does not reach, and a last digit that does not converge.
            warnings.simplefilter("ignore")
            found = LabelSpreading(max_iter=200, **setting).fit(pool, labels).predict(test)
        reached[in_words(setting)] = 100 * float(np.mean(found == truth))
    best = max(reached, key=lambda name: reached[name])
    return Spreading(reached[in_words(SPREADING)], reached[best], best, float(np.mean(list(reached.values()))))


def in_words(setting: dict[str, Any]) -> str:
    """Format a setting, e.g. "kernel=rbf gamma=5.0 alpha=0.95"."""
    return " ".join(f"{key}={value}" for key, value in setting.items())
