"""Predictions of a trained method, and the labelled images nearest to each image."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.evaluation.embedding import Outputs
from tapetum.evaluation.soft_neighbours import TEMPERATURE, hard_labels
from tapetum.ops.precision import full_precision
from tapetum.ops.soft_neighbours import SCORES_AT_ONCE

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
    anchors = normalize(supports.embeddings, dim=1)
    rows = max(1, SCORES_AT_ONCE // max(1, len(anchors)))  # held-out labels alone can be many thousands
    logits = outputs.logits if predicts_by == "classifier" else None
    votes = None if logits is not None else _hard_labels(supports)
    parts = []
    for start in range(0, max(1, len(outputs.embeddings)), rows):
        some = slice(start, start + rows)
        those = None if own is None else own[some]
        shares, nearest = _shares(outputs.embeddings[some], anchors, those)
        weights, neighbours = shares.topk(min(num_neighbours, shares.shape[1] - (own is not None)), dim=1)
        if logits is None:
            scores = _sums(shares, supports, votes).clamp(min=_LEAST).log()
        else:
            scores = shares.new_empty(len(shares), 0)  # not shares[:, :0], which would keep all of `shares`
        parts.append(Predictions(scores, neighbours, weights, nearest))
    found = Predictions(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    return found if logits is None else found._replace(scores=logits)


@torch.no_grad()
@full_precision
def _shares(queries: Tensor, anchors: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """(N, S) shares of the supports in soft-NN predictions, which are their sums by class; (N,) greatest cosines."""
    cosines = normalize(queries, dim=1) @ anchors.T
    if own is not None:
        cosines.scatter_(1, own[:, None], -torch.inf)
    nearest = cosines.amax(dim=1)
    return torch.softmax(cosines.div_(TEMPERATURE), dim=1), nearest


def _hard_labels(supports: Supports) -> Tensor | None:
    """(S, C) one-hot rows; None if they would take more memory than the cosines."""
    if len(supports.labels) * supports.num_classes > SCORES_AT_ONCE:
        return None
    return hard_labels(supports.labels, supports.num_classes, supports.embeddings.dtype)


def _sums(shares: Tensor, supports: Supports, hard: Tensor | None) -> Tensor:
    """(N, C) sums of shares (N, S) by class."""
    if hard is not None:
        return shares @ hard.to(shares.dtype)
    sums = shares.new_zeros(len(shares), supports.num_classes)
    return sums.scatter_add_(1, supports.labels.expand(len(shares), -1), shares)
