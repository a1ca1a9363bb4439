"""What a trained method says of an image, and which labelled images it is nearest to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from tapetum.evaluation.embedding import Outputs
from tapetum.evaluation.soft_neighbours import TEMPERATURE
from tapetum.ops.precision import full_precision

_LEAST = 1e-30  # probability whose logarithm stands for that of 0


class Supports(NamedTuple):
    """The labelled images that predictions rest on."""

    embeddings: Tensor
    """(S, D), of any scale."""
    labels: Tensor
    """(S,) int64 classes."""
    num_classes: int


class Predictions(NamedTuple):
    """Of N images."""

    scores: Tensor
    """(N, C): softmax(scores / T) are probabilities; the classifier's logits, or logarithms of soft-NN shares."""
    neighbours: Tensor
    """(N, K) rows of the supports, nearest first."""
    weights: Tensor
    """(N, K) their shares in the soft-NN prediction; over all supports they sum to one."""
    nearest: Tensor
    """(N,) cosines with the nearest supports."""

    @property
    def labels(self) -> Tensor:
        """(N,) predicted classes."""
        return self.scores.argmax(dim=1)


@torch.no_grad()
@full_precision
def _cosines(queries: Tensor, supports: Tensor) -> Tensor:
    """(N, S) of embeddings."""
    return normalize(queries, dim=1) @ normalize(supports, dim=1).T


def predict_from(outputs: Outputs, supports: Supports, predicts_by: str, num_neighbours: int) -> Predictions:
    """Classes and neighbours of N images.

    Args:
        outputs: of the images.
        supports: labelled images, embedded by the same method.
        predicts_by: the method's: "soft_neighbours" or "classifier". Neighbours are given either way, but explain the
            prediction only where they make it.
        num_neighbours: K, cut to the number of supports.
    """
    cosines = _cosines(outputs.embeddings, supports.embeddings)
    nearest = cosines.amax(dim=1)
    shares = torch.softmax(cosines / TEMPERATURE, dim=1)  # a soft-NN prediction is their sum by class
    weights, neighbours = shares.topk(min(num_neighbours, shares.shape[1]), dim=1)
    if predicts_by == "classifier" and outputs.logits is not None:
        return Predictions(outputs.logits, neighbours, weights, nearest)
    hard = one_hot(supports.labels, supports.num_classes).to(shares.dtype)
    return Predictions((shares @ hard).clamp(min=_LEAST).log(), neighbours, weights, nearest)
