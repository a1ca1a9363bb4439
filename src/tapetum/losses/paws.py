"""The loss of PAWS (Assran et al., ICCV 2021, https://arxiv.org/abs/2104.13963).

Symbols: B images, two large views and M small ones of each, S supports, C classes, tau the temperature of the soft
nearest neighbours, T the temperature of sharpening.
"""

import torch
from torch import Tensor

from tapetum.ops.collectives import mean_over_ranks
from tapetum.ops.precision import full_precision
from tapetum.ops.soft_neighbours import sharpen, soft_neighbours

SMALLEST_TARGET = 1e-4
"""Target probabilities below this become exactly 0, without renormalising, as in the published code."""


@full_precision
def paws_targets(probabilities: Tensor, num_small_views: int, sharpen_temperature: float) -> Tensor:
    """Compute the targets of all views from the predictions of the two large ones.

    A large view's target is the sharpened prediction of the other large view; a small view's, the mean of both.

    Args:
        probabilities: (2B, C) predictions, already swapped: rows 0..B-1 belong to view 2, rows B..2B-1 to view 1.
        num_small_views: M, 0 or more.
        sharpen_temperature: T.

    Returns:
        ((2 + M)B, C), view-major, no gradient.
    """
    targets = sharpen(probabilities.detach(), sharpen_temperature)
    if num_small_views:
        first, second = targets.chunk(2)
        targets = torch.cat([targets, *[(first + second) / 2] * num_small_views])
    return torch.where(targets < SMALLEST_TARGET, 0.0, targets)


@full_precision
def cross_entropy(targets: Tensor, probabilities: Tensor) -> Tensor:
    """H(q, p) of each row, (N,), with 0 log 0 = 0: finite for targets of zero, even if their prediction is zero."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return -(targets * probabilities.clamp_min(tiny).log()).sum(dim=1)


@full_precision
def mean_entropy_loss(probabilities: Tensor, sharpen_temperature: float, class_prior: Tensor | None = None) -> Tensor:
    """-H(mean of the sharpened predictions), 0-d, over all ranks. At least -ln C, reached when classes are even.

    With a class prior pi (C,) and rows that sum to one, it is KL(mean || pi) - ln C. This reaches the same bound when
    the classes have the shares pi, and an even pi changes nothing.
    """
    mean = mean_over_ranks(sharpen(probabilities, sharpen_temperature).mean(dim=0))
    loss = (mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()
    if class_prior is None:
        return loss
    return loss - (mean * (class_prior.to(mean.dtype) * len(mean)).log()).sum()


@full_precision
def paws_loss(
    anchor_views: Tensor,
    anchor_supports: Tensor,
    support_labels: Tensor,
    target_views: Tensor,
    target_supports: Tensor,
    num_small_views: int,
    temperature: float,
    sharpen_temperature: float,
    class_prior: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the two terms of PAWS: cross-entropy with the other view's pseudo-label, and mean-entropy maximisation.

    Args:
        anchor_views: ((2 + M)B, D), view-major, with gradient.
        anchor_supports: (S, D) of this rank, with gradient.
        support_labels: (S, C) smoothed labels of this rank's supports.
        target_views: (2B, D), the large views swapped: view 2 first. No gradient flows through it.
        target_supports: (S, D). No gradient flows through it.
        num_small_views: M.
        temperature: tau.
        sharpen_temperature: T.
        class_prior: (C,) expected share of each class, positive; None: equal shares.

    Returns:
        (cross_entropy, mean_entropy), both 0-d. The paper's loss is their sum, which is usually negative:
        the second tends to -ln C.
    """
    predictions = soft_neighbours(anchor_views, anchor_supports, support_labels, temperature)
    with torch.no_grad():
        other_view = soft_neighbours(target_views, target_supports, support_labels, temperature)
        targets = paws_targets(other_view, num_small_views, sharpen_temperature)
    return (
        cross_entropy(targets, predictions).mean(),
        mean_entropy_loss(predictions, sharpen_temperature, class_prior),
    )
