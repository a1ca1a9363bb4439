"""Predictions of a trained method, and the labelled images nearest to each image."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from tapetum.evaluation.embedding import Outputs
from tapetum.evaluation.soft_neighbours import TEMPERATURE
from tapetum.ops.precision import full_precision

_LEAST = 1e-30  # smaller probabilities count as this one, because 0 has no logarithm


class Supports(NamedTuple):
    """The labelled images that predictions are based on."""

    embeddings: Tensor
    """(S, D), of any scale."""
    labels: Tensor
    """(S,) int64 classes."""
    num_classes: int


class Predictions(NamedTuple):
    """Predictions for N images."""

    scores: Tensor
    """(N, C) the classifier's logits, or logarithms of soft-NN shares; softmax(scores / T) gives probabilities."""
    neighbours: Tensor
    """(N, K) row numbers of the supports, nearest first."""
    weights: Tensor
    """(N, K) their shares in the soft-NN prediction; the shares of all supports sum to one."""
    nearest: Tensor
    """(N,) cosine of each image with its nearest support."""

    @property
    def labels(self) -> Tensor:
        """(N,) predicted classes."""
        return self.scores.argmax(dim=1)


@torch.no_grad()
@full_precision
def _cosines(queries: Tensor, supports: Tensor) -> Tensor:
    """Compute the cosines between embeddings, (N, S)."""
    return normalize(queries, dim=1) @ normalize(supports, dim=1).T


def predict_from(
    outputs: Outputs, supports: Supports, predicts_by: str, num_neighbours: int, own: Tensor | None = None
) -> Predictions:
    """Predict the classes of N images and find their neighbours.

    Args:
        outputs: the method's outputs for the images.
        supports: labelled images, embedded by the same method.
        predicts_by: what the method predicts with, "soft_neighbours" or "classifier". Neighbours are returned for both,
            but explain the prediction only with "soft_neighbours".
        num_neighbours: K, reduced to the number of supports if these are fewer.
        own: (N,) row numbers of the supports that are these images, which take no part in their own predictions (leave
            one out); None if none of them is a support.
    """
    cosines = _cosines(outputs.embeddings, supports.embeddings)
    if own is not None:
        cosines.scatter_(1, own[:, None], -torch.inf)
    nearest = cosines.amax(dim=1)
    shares = torch.softmax(cosines / TEMPERATURE, dim=1)  # a soft-NN prediction is their sum by class
    weights, neighbours = shares.topk(min(num_neighbours, shares.shape[1] - (own is not None)), dim=1)
    if predicts_by == "classifier" and outputs.logits is not None:
        return Predictions(outputs.logits, neighbours, weights, nearest)
    hard = one_hot(supports.labels, supports.num_classes).to(shares.dtype)
    return Predictions((shares @ hard).clamp(min=_LEAST).log(), neighbours, weights, nearest)
