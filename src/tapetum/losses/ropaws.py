"""The targets and the loss of RoPAWS (Mo, Sohn et al., ICLR 2023, https://arxiv.org/abs/2302.14483).

Symbols as in `losses/paws.py`; U is one view of all unlabelled images, over all processes.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.losses.paws import cross_entropy, mean_entropy_loss, paws_targets
from tapetum.ops.collectives import gather_rows, rank
from tapetum.ops.precision import full_precision
from tapetum.ops.soft_neighbours import soft_neighbours


@full_precision
def in_domain_prior(nearest: Tensor, prior_temperature: float) -> Tensor:
    """Compute how well images fit among the labelled ones, exp((cosine - 1) / tau_prior): 1 if equal to one of them.

    Args:
        nearest: cosine of each image and the support nearest to it, of any shape.
        prior_temperature: tau_prior.
    """
    return ((nearest - 1) / prior_temperature).exp()


@full_precision
def propagated_labels(
    queries: Tensor,
    supports: Tensor,
    support_labels: Tensor,
    temperature: float,
    prior_temperature: float,
    label_ratio: float,
) -> tuple[Tensor, Tensor]:
    """Compute class probabilities by soft neighbours among supports *and* unlabelled images, and how much is known.

    The unlabelled neighbours' own probabilities are unknown, but all of them together solve a linear system:

        [C_S | C_U] = prior * softmax([s_S + tau ln r, s_U] / tau)      prior_i = exp((max_j s_S[i, j] - 1) / tau_prior)
        P = C_S Y + C_U P,  so  P = (1 - C_U)^-1 C_S Y

    An image that resembles no support has a small prior, so its row of P sums to less than one. The missing
    probability is spread evenly over the classes.

    Args:
        queries: (B, D) one view of this process's images, any scale.
        supports: (S, D) of this process.
        support_labels: (S, C) rows of probabilities.
        temperature: tau.
        prior_temperature: tau_prior.
        label_ratio: total weight of all supports relative to all unlabelled images; determines r.

    Returns:
        Probabilities (B, C), whose rows sum to one, and how much is known: their sums (B,) before the missing
        probability is spread, near 1 if an image is like some supports, near 0 if it is like none. No gradient.
    """
    unlabelled = gather_rows(normalize(queries.detach(), dim=1))
    anchors = gather_rows(normalize(supports.detach(), dim=1))
    labels = gather_rows(support_labels.to(anchors.dtype))
    to_supports, to_others = unlabelled @ anchors.T, unlabelled @ unlabelled.T
    to_others.fill_diagonal_(-torch.inf)  # no image is its own neighbour

    prior = in_domain_prior(to_supports.amax(dim=1, keepdim=True), prior_temperature)
    log_r = math.log(label_ratio * len(unlabelled) / len(anchors))
    scores = torch.cat([to_supports / temperature + log_r, to_others / temperature], dim=1)
    weights = prior * scores.softmax(dim=1)
    from_supports, from_others = weights.split([len(anchors), len(unlabelled)], dim=1)
    identity = torch.eye(len(unlabelled), dtype=weights.dtype, device=weights.device)
    # Not `solve`, which waits for the device to tell whether the matrix is singular: a NaN shows in the loss.
    probabilities = torch.linalg.solve_ex(identity - from_others, from_supports @ labels)[0]

    own = probabilities[rank() * len(queries) : (rank() + 1) * len(queries)]
    known = own.sum(dim=1)
    # Rounding may leave zeros below zero, of which sharpening makes NaN.
    return (own + (1 - known)[:, None] / own.shape[1]).clamp_min(0), known


@full_precision
def ropaws_loss(
    anchor_views: Tensor,
    anchor_supports: Tensor,
    support_labels: Tensor,
    target_views: Tensor,
    target_supports: Tensor,
    num_small_views: int,
    temperature: float,
    sharpen_temperature: float,
    prior_temperature: float,
    prior_power: float,
    label_ratio: float,
    class_prior: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the two terms of PAWS, with propagated targets weighted by how much is known of each image.

    Args:
        anchor_views, anchor_supports, support_labels, target_views, target_supports, num_small_views, temperature,
            sharpen_temperature, class_prior: as for `paws_loss`.
        prior_temperature, label_ratio: as for `propagated_labels`.
        prior_power: an image's weight is its known share (mean over both large views) to this power.

    Returns:
        (cross_entropy, mean_entropy, known): 0-d, 0-d and (B,).
    """
    predictions = soft_neighbours(anchor_views, anchor_supports, support_labels, temperature)
    with torch.no_grad():
        settings = (temperature, prior_temperature, label_ratio)
        views = [propagated_labels(view, target_supports, support_labels, *settings) for view in target_views.chunk(2)]
        targets = paws_targets(torch.cat([labels for labels, _ in views]), num_small_views, sharpen_temperature)
        known = (views[0][1] + views[1][1]) / 2
    weights = known.pow(prior_power).repeat(2 + num_small_views)
    match = (weights * cross_entropy(targets, predictions)).mean()
    return match, mean_entropy_loss(predictions, sharpen_temperature, class_prior), known
