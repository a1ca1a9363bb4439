"""Finds wrong labels by confident learning (Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in
dataset labels", JAIR 2021, https://arxiv.org/abs/1911.00068).

Given the labels y~ of N images and class probabilities p that do not rest on them (out of sample):

    t_j  = mean of p_j over the images labelled j                               how sure one is of class j
    y*   = argmax of p_j over the classes with p_j >= t_j, if there are any     the class that an image is sure to be
    n    = number of images with y* != y~ != argmax p                           off the confident joint's diagonal

Of the labels that are not the most probable class, the n most doubtful count as errors, by one of `RANKINGS`. (The
paper picks them cell by cell of the joint. Where a network has learned the mistakes, or few images are sure of
anything, the order over all labels was right more often: `benchmarks/label_errors.py`.) The only label of a class is
never called an error: nothing could have predicted it.

`cleanlab` has the same as its filters `low_self_confidence` and `low_normalized_margin`, but for labels of the most
probable class, and only ones of a class.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tapetum.ops.precision import full_precision

Ranking = Literal["self_confidence", "normalised_margin"]
RANKINGS: tuple[Ranking, ...] = ("self_confidence", "normalised_margin")
"""`self_confidence`: the probability of the given label; `normalised_margin`: that less the largest of the others."""


@dataclass(frozen=True)
class LabelErrors:
    """What confident learning says of N labels of C classes."""

    thresholds: Tensor
    """(C,) t; infinite for classes without a label."""
    suggested: Tensor
    """(N,) int64: the most probable of the classes that are not the given one."""
    doubt: Tensor
    """(N,) from 0 to 1: how much speaks against each label, by the ranking."""
    is_error: Tensor
    """(N,) bool."""

    @property
    def ranked(self) -> Tensor:
        """(K,) row numbers of the errors, the most doubtful label first."""
        return self.most_doubtful(0)

    def most_doubtful(self, at_least: int) -> Tensor:
        """(K,) row numbers of the errors, and of the most doubtful other labels where there are too few of them.

        Args:
            at_least: K is no less, if there are as many labels.

        Returns:
            all in one order, the most doubtful label first.
        """
        order = self.doubt.argsort(descending=True, stable=True)
        is_error = self.is_error[order]
        missing = max(0, at_least - int(is_error.sum()))
        return order[is_error | ((~is_error).cumsum(0) <= missing)]


@torch.no_grad()
@full_precision
def find_label_errors(probabilities: Tensor, labels: Tensor, rank_by: Ranking = "self_confidence") -> LabelErrors:
    """Find labels that out-of-sample predictions speak against.

    Args:
        probabilities: (N, C) rows that sum to one. An image's row must not rest on its own label.
        labels: (N,) int64, the given classes.
        rank_by: one of `RANKINGS`; by the first, more of the first labels were wrong (`benchmarks/label_errors.py`).

    Raises:
        ValueError: shapes do not fit, labels are outside 0..C-1, probabilities not finite, or the ranking is unknown.

    Example:
        >>> import torch
        >>> from tapetum.evaluation.label_errors import find_label_errors
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> sure = torch.tensor([0.9, 0.8, 0.1, 0.1, 0.2, 0.2])
        >>> find_label_errors(torch.stack([sure, 1 - sure], dim=1), labels).ranked
        tensor([2])
    """
    _check(probabilities, labels, rank_by)
    p = probabilities.double()
    counts = labels.bincount(minlength=p.shape[1])
    own = p.gather(1, labels[:, None])[:, 0]
    others, suggested = p.scatter(1, labels[:, None], -1.0).max(dim=1)
    thresholds = p.new_zeros(p.shape[1]).index_add_(0, labels, own) / counts  # 0 / 0 is no number
    thresholds[counts == 0] = torch.inf
    # A class of one label, or of equal probabilities, is its own mean: rounding must not decide whether it reaches it.
    best, sure = p.masked_fill(p < thresholds - 1e-6, -torch.inf).max(dim=1)
    doubt = 1 - own if rank_by == "self_confidence" else (1 - own + others) / 2
    may_be = (p.argmax(dim=1) != labels) & (counts[labels] > 1)
    number = int((may_be & (best > -torch.inf) & (sure != labels)).sum())
    is_error = torch.zeros_like(may_be)
    order = doubt.argsort(descending=True, stable=True)
    is_error[order[may_be[order]][:number]] = True
    return LabelErrors(thresholds, suggested, doubt, is_error)


def _check(probabilities: Tensor, labels: Tensor, rank_by: str) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        shapes = tuple(probabilities.shape), tuple(labels.shape)
        raise ValueError(f"probabilities have shape {shapes[0]} and labels {shapes[1]}: give (N, C) and (N,).")
    if not torch.isfinite(probabilities).all():
        raise ValueError("probabilities are not all finite: leave out images that could not be predicted.")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < probabilities.shape[1]:
        span = f"{int(labels.min())}..{int(labels.max())}"
        raise ValueError(f"labels span {span}: give 0..{probabilities.shape[1] - 1}, as there are probabilities for.")
    if rank_by not in RANKINGS:
        raise ValueError(f"rank_by is {rank_by!r}: use one of {', '.join(RANKINGS)}.")
