"""Compares two classifiers on the same images: which is right more often, and whether chance explains it."""

from dataclasses import dataclass

from scipy.stats import binomtest
from torch import Tensor

CHANCE = 0.05
"""A difference that chance explains with at least this probability is no difference."""


@dataclass(frozen=True)
class Comparison:
    """How often each of two classifiers is right on N images, and only one of them."""

    count: int
    """N."""
    first: float
    """Accuracy of the first, in percent."""
    second: float
    """Accuracy of the second, in percent."""
    p_value: float
    """Probability of a difference at least as large if both were equally good."""

    @property
    def verdict(self) -> str:
        """What the second is beside the first: "better", "worse" or "as good"."""
        if self.p_value >= CHANCE:
            return "as good"
        return "better" if self.second > self.first else "worse"


def compare(first: Tensor, second: Tensor) -> Comparison:
    """Compare which of (N,) images each of two classifiers gets right, by the exact sign test (McNemar, 1947).

    Only images that exactly one of them gets right can tell them apart; if both are equally good, each of these is as
    likely to be the one's as the other's.

    Example:
        >>> import torch
        >>> from tapetum.evaluation.comparison import compare
        >>> compare(torch.tensor([True, False, False]), torch.tensor([True, True, False])).p_value
        1.0
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ = only_first + only_second
    p_value = float(binomtest(only_first, differ).pvalue) if differ else 1.0
    shares = [100 * float(right.double().mean()) for right in (first, second)]
    return Comparison(len(first), shares[0], shares[1], p_value)
