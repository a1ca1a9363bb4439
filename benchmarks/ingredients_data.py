"""The images of `ingredients.py`: which judge, which are labelled, and the views of a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tapetum.data.images.cache import decoded
from tapetum.data.labels.labels import Labels
from tapetum.data.labels.subsets import held_out, labels_per_class
from tapetum.data.sources.open_source import open_source
from tapetum.data.views.apply import crop_resize_flip, distort_colour, evaluation_view, normalise
from tapetum.data.views.draw import EvaluationViewConfig, ViewConfig, draw
from tapetum.ops.randomness import make_keys, permutation

Indices = npt.NDArray[np.int64]

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_STRONG: dict[str, Any] = {
    "scale": (0.25, 1.0),
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "grayscale": 0.2,
    "solarize": 0.2,
}
VIEWS: dict[str, dict[str, Any]] = {
    "mild": {"scale": (0.5, 1.0), "jitter": 0.0},
    "middle": {"scale": (0.5, 1.0), "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05},
    "halfway": {
        "scale": (0.35, 1.0),
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.4,
        "hue": 0.1,
        "grayscale": 0.1,
        "solarize": 0.0,
    },
    "strong": _STRONG,
    "smaller crops": {**_STRONG, "scale": (0.1, 1.0)},
}
"""Views of supports and of unlabelled images: mild and middle ones in `paws_cifar10_cpu`, strong ones in
`paws_cifar10_250_cpu`."""
JUDGED_AT_ONCE = 500
MOST_SUPPORTS = 10_000
"""Labelled images that soft neighbours choose among at most, evenly from all classes."""


@dataclass(frozen=True)
class Pool:
    """Training images, of which some judge and are used for nothing else."""

    images: Tensor
    """uint8 (N, 3, H, W)."""
    truth: Indices
    """(N,) classes of all of them."""
    judged: Indices
    """Indices of those that judge."""
    chosen: Labels
    """The labels that may be learned from."""
    rest: Labels
    """All labels but those of images that judge."""

    @property
    def num_classes(self) -> int:
        return self.rest.num_classes

    def labelled(self, all_labels: bool) -> Labels:
        """What a rung may learn from."""
        return self.rest if all_labels else self.chosen

    def supports(self, all_labels: bool, per_class: int, seed: int, step: int) -> Indices:
        """So many labelled images of each class, class by class; each comes once before any comes again."""
        values = self.labelled(all_labels).values
        drawn = [
            endless(np.flatnonzero(values == c), per_class * step, per_class, seed, f"supports {c}")
            for c in range(self.num_classes)
        ]
        return np.concatenate(drawn)

    def unlabelled(self, count: int, seed: int, step: int) -> Indices:
        """The unlabelled images of a step; labelled ones are among them, as in PAWS."""
        return endless(self.rest.labelled, count * step, count, seed, "unlabelled")

    def views(self, indices: Indices, kind: str, size: int, seed: int, step: int, purpose: str) -> Tensor:
        """(B, 3, size, size) normalised random views."""
        config = ViewConfig(size=size, **VIEWS[kind])
        images = self.images[indices]
        height, width = images.shape[-2:]
        drawn = draw(config, make_keys(seed, purpose, step, np.arange(len(indices))), height, width)
        return ready(distort_colour(crop_resize_flip(images, drawn, size), drawn, config))

    def judged_views(self, indices: Indices, size: int) -> Iterator[Tensor]:
        """Chunks of normalised whole images, as evaluation sees them."""
        config = EvaluationViewConfig(crop=size, resize=size)
        for start in range(0, len(indices), JUDGED_AT_ONCE):
            yield ready(evaluation_view(self.images[indices[start : start + JUDGED_AT_ONCE]], config))


def ready(views: Tensor) -> Tensor:
    """Normalise, with the channels of a pixel side by side."""
    return normalise(views, MEAN, STD).contiguous(memory_format=torch.channels_last)


def endless(members: Indices, start: int, count: int, seed: int, purpose: str) -> Indices:
    """`count` members from a place on in an endless sequence of their shuffles."""
    rounds, places = np.divmod(np.arange(start, start + count), len(members))
    parts = [_shuffle(len(members), seed, purpose, int(r))[places[rounds == r]] for r in np.unique(rounds)]
    return members[np.concatenate(parts)]


@lru_cache(maxsize=64)
def _shuffle(length: int, seed: int, purpose: str, number: int) -> Indices:
    return permutation(make_keys(seed, purpose, number), length)


def open_pool(folder: Path, num_labels: int, judged_per_class: int) -> Pool:
    """Read a folder of training images with a folder for each class; labels are drawn by name, always the same.

    Raises:
        ValueError: no classes, images of several sizes, or too few labels or a number that the classes cannot share.
    """
    source = open_source(folder)
    if source.labels is None:
        raise ValueError(f"{folder} has no class folders: name a folder with a folder for each class.")
    rest, judged = held_out(source.labels, per_class=judged_per_class, seed=0)
    if num_labels % rest.num_classes:
        raise ValueError(f"labels is {num_labels}: give a multiple of {rest.num_classes}, the number of classes.")
    store = decoded(source.store)
    images = store.read(np.arange(len(store)))
    if not isinstance(images, Tensor):
        raise ValueError(f"{folder} holds images of several sizes: name one whose images have the same size.")
    chosen = labels_per_class(rest, num_labels // rest.num_classes, seed=0)
    return Pool(images, source.labels.values, judged.labelled, chosen, rest)
