"""Linear probe on cached features: how well one linear layer, trained alone, tells the classes apart.

Multinomial logistic regression by L-BFGS, as in Kornblith, Shlens & Le, "Do better ImageNet models transfer better?",
CVPR 2019, https://arxiv.org/abs/1805.08974. With standardised features x_i, weights W and biases b, it minimises

    mean_i H(y_i, softmax(W x_i + b)) + lambda/2 ||W||^2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tapetum.ops.precision import full_precision
from tapetum.ops.randomness import make_keys, permutation

CANDIDATES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Values of lambda to choose from."""
DEFAULT_REGULARISATION = 0.1
"""lambda where none can be chosen because no class has two labels."""
TOLERANCE = 1e-10
"""A fit ends when its objective is within about half of this of the least possible."""
ROUGH_TOLERANCE = 1e-5
"""The same for cross-validation, which only counts correct answers."""
MOST_ITERATIONS = 500
ROWS_AT_ONCE = 2048
"""Rows in one product: few enough to be still in the processor's cache when the gradient needs them again."""
ABSENT = -1e6
"""Logit of a class without training images: its probability is zero, and arithmetic with it stays finite."""
_MEMORY = 10  # pairs of steps and changes of the gradient that L-BFGS keeps

Block = tuple[Tensor, Tensor]
"""A few rows (n, K) and their labels (n,)."""


class LinearProbe(NamedTuple):
    """A linear classifier of features as they are: their standardisation is part of its weights."""

    weight: Tensor
    """(C, D) float32."""
    bias: Tensor
    """(C,) float32."""

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Compute (N, C) float32 logits of (N, D) features, some rows at a time; a class never seen has -1e6."""
        with torch.autocast(features.device.type, enabled=False):
            parts = [torch.addmm(self.bias, part.float(), self.weight.T) for part in features.split(ROWS_AT_ONCE)]
        return torch.cat(parts)


class Chosen(NamedTuple):
    """What cross-validation found."""

    regularisation: float
    """The best lambda; of equally good ones the strongest."""
    accuracies: dict[float, float]
    """For each candidate, the share of labels predicted correctly while held out, in percent; empty if none could be."""


class _Standardised(NamedTuple):
    """Standardised training features in their principal axes, where the penalty is the same and L-BFGS is faster."""

    rows: Tensor  # (N, K), K = min(N, D)
    variances: Tensor  # (K,) of the columns of `rows`
    axes: Tensor  # (D, K), orthonormal columns
    mean: Tensor  # (D,) float64
    scale: Tensor  # (D,) float64 standard deviations; infinite for constant columns, which then get no weight


@torch.no_grad()
@full_precision
def fit_linear_probe(
    features: Tensor, labels: Tensor, num_classes: int, regularisation: float, start: LinearProbe | None = None
) -> LinearProbe:
    """Fit multinomial logistic regression to features, with a penalty on the weights but not on the biases.

    Features are standardised: each column gets mean 0 and standard deviation 1 over the training images, as by batch
    normalisation without scale and shift. Unit length is usual for neighbours, where only cosines count. Here
    standardisation makes the result independent of every column's scale and shift, and lambda comparable between
    networks. A float32 column loses digits if its mean is thousands of times its standard deviation.

    Args:
        features: (N, D) of the training images, any scale; N may be less than D.
        labels: (N,) int64, their classes.
        num_classes: C. A class without training images is never predicted.
        regularisation: lambda, above 0; means the same for any N. scikit-learn's C is 1 / (lambda N).
        start: where to start, such as the probe for another lambda; changes the time, not the result.

    Raises:
        ValueError: features that are not finite, labels outside 0..C-1, a lambda that is not above 0.

    Example:
        >>> import torch
        >>> from tapetum.evaluation.linear_probe import fit_linear_probe
        >>> probe = fit_linear_probe(torch.tensor([[1.0], [2.0], [8.0], [9.0]]), torch.tensor([0, 0, 1, 1]), 2, 0.1)
        >>> probe.logits(torch.tensor([[0.0], [7.0]])).argmax(dim=1)
        tensor([0, 1])
    """
    _check(features, labels, num_classes, [regularisation])
    data = _standardise(features)
    theta = _as_theta(start, data) if start is not None else None
    return _fit(data, labels, num_classes, regularisation, theta)


@torch.no_grad()
@full_precision
def choose_regularisation(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    candidates: Sequence[float] = CANDIDATES,
    folds: int = 5,
    seed: int = 0,
) -> Chosen:
    """Choose lambda by stratified cross-validation.

    Each class's labels are dealt to the folds in turn, so a class with fewer labels than folds is held out in some of
    them only. The label of a class with just one always trains. If there is no class with two labels, the choice is
    `DEFAULT_REGULARISATION`. Features are standardised once over all training images, which uses no label.

    Args:
        features, labels, num_classes: as for `fit_linear_probe`.
        candidates: values of lambda.
        folds: number of parts, at least 2.
        seed: decides the parts.

    Raises:
        ValueError: as `fit_linear_probe`; also fewer than two folds.
    """
    _check(features, labels, num_classes, candidates)
    if folds < 2:
        raise ValueError(f"folds is {folds}: use at least 2.")
    return _choose(_standardise(features), labels, num_classes, candidates, folds, seed)


@torch.no_grad()
@full_precision
def linear_probe(
    features: Tensor, labels: Tensor, test_features: Tensor, num_classes: int, seed: int = 0
) -> tuple[Tensor, float]:
    """Choose lambda, fit with all labels, and return the (M, C) logits of the (M, D) test features and lambda.

    Arguments and errors are those of `choose_regularisation`.
    """
    _check(features, labels, num_classes, CANDIDATES)
    data = _standardise(features)
    chosen = _choose(data, labels, num_classes, CANDIDATES, 5, seed).regularisation
    return _fit(data, labels, num_classes, chosen, None).logits(test_features), chosen


def _check(features: Tensor, labels: Tensor, num_classes: int, candidates: Sequence[float]) -> None:
    if features.ndim != 2 or len(features) != len(labels) or not len(labels):
        raise ValueError(f"features {tuple(features.shape)}, labels {tuple(labels.shape)}: give each row one label.")
    if not bool(features.mean(dim=0, dtype=torch.float64).isfinite().all()):  # one pass, and no copy
        row = int((~features.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"features of row {row} are NaN or infinite: the network that made them has diverged.")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"labels contain {wrong}: use 0 to {num_classes - 1}, and leave unlabelled images out.")
    for value in candidates or [math.nan]:
        if not 0 < value < math.inf:
            raise ValueError(f"regularisation is {value}: use a number above 0, such as 0.001.")


def _standardise(features: Tensor) -> _Standardised:
    mean = features.mean(dim=0, dtype=torch.float64)
    rows = features.float() - mean.float()
    scale = torch.linalg.vector_norm(rows, dim=0, dtype=torch.float64) / math.sqrt(len(rows))
    # What rounding leaves of a constant column is not to be blown up to standard deviation 1.
    scale[scale <= (1e-6 * mean.abs()).clamp_min(1e-37)] = math.inf
    rows *= (1 / scale).float()
    if len(rows) < rows.shape[1]:  # the weights lie in the span of the rows
        left, lengths, axes = torch.linalg.svd(rows, full_matrices=False)
        return _Standardised(left * lengths, lengths.square() / len(rows), axes.T, mean, scale)
    variances, axes = torch.linalg.eigh(rows.T @ rows / len(rows))
    return _Standardised(rows @ axes, variances.clamp_min(0), axes, mean, scale)


def _as_theta(probe: LinearProbe, data: _Standardised) -> Tensor:
    """A probe's weights and biases (C, K + 1) in the standardised principal axes."""
    weight = probe.weight.double()
    bias = probe.bias.double() + weight @ data.mean
    weight = torch.where(data.scale.isinf(), 0.0, weight * data.scale)
    return torch.cat([weight.float() @ data.axes, bias.float()[:, None]], dim=1)


def _fit(
    data: _Standardised, labels: Tensor, num_classes: int, regularisation: float, theta: Tensor | None
) -> LinearProbe:
    objective = _Objective([(data.rows, labels)], data.variances, num_classes)
    theta = objective.minimise(regularisation, TOLERANCE, theta)
    weight = (theta[:, :-1] @ data.axes.T).double() / data.scale
    return LinearProbe(weight.float(), (theta[:, -1] - weight @ data.mean).float())


def _choose(
    data: _Standardised, labels: Tensor, num_classes: int, candidates: Sequence[float], folds: int, seed: int
) -> Chosen:
    fold_of = _folds(labels.cpu().numpy(), folds, seed).to(labels.device)
    parts = [(data.rows[fold_of == fold], labels[fold_of == fold]) for fold in range(-1, folds)]
    path = sorted(set(candidates), reverse=True)
    hits = dict.fromkeys(path, 0)
    for fold in range(1, folds + 1):
        rows, truth = parts[fold]
        if not len(rows):
            continue
        objective = _Objective(parts[:fold] + parts[fold + 1 :], data.variances, num_classes)
        theta = None
        for value in path:  # from strong to weak, each from the one before
            theta = objective.minimise(value, ROUGH_TOLERANCE, theta)
            probe = LinearProbe(theta[:, :-1], theta[:, -1])
            hits[value] += int((probe.logits(rows).argmax(dim=1) == truth).sum())
    held_out = int((fold_of >= 0).sum())
    if not held_out:
        return Chosen(DEFAULT_REGULARISATION, {})
    best = max(path, key=lambda value: hits[value])
    return Chosen(best, {value: 100 * hits[value] / held_out for value in candidates})


def _folds(labels: np.ndarray, folds: int, seed: int) -> Tensor:
    """(N,) the fold in which each label is held out; -1 for the only label of its class."""
    fold_of = np.full(len(labels), -1)
    dealt = 0  # goes on from class to class, so that folds differ by one label at most
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        if len(members) > 1:
            order = permutation(make_keys(seed, "linear probe", int(c)), len(members))
            fold_of[members[order]] = (dealt + np.arange(len(members))) % folds
            dealt += len(members)
    return torch.from_numpy(fold_of)


class _Objective:
    """The objective over blocks of rows, as a function of theta (C, K + 1): weights, and biases in the last column."""

    def __init__(self, parts: Sequence[Block], variances: Tensor, num_classes: int) -> None:
        self.blocks = [
            block
            for rows, labels in parts
            for block in zip(rows.split(ROWS_AT_ONCE), labels.split(ROWS_AT_ONCE))
            if len(rows)
        ]
        self.count = sum(len(labels) for _, labels in self.blocks)
        self.counts = sum(labels.bincount(minlength=num_classes) for _, labels in self.blocks)
        self.variances = torch.cat([variances, variances.new_ones(1)])
        self.penalised = torch.cat([torch.ones_like(variances), variances.new_zeros(1)])

    def value(self, theta: Tensor, regularisation: float) -> tuple[float, Tensor, Tensor]:
        """The objective, its gradient, and an estimate of the diagonal of its second derivative."""
        weight, bias = theta[:, :-1].contiguous(), theta[:, -1]
        gradient = torch.zeros_like(weight)
        loss, sums, squares = (theta.new_zeros(n, dtype=torch.float64) for n in (1, len(theta), len(theta)))
        for rows, labels in self.blocks:
            p = torch.addmm(bias, rows, weight.T).log_softmax(dim=1)
            loss -= p.gather(1, labels[:, None]).sum()
            p.exp_()
            sums += p.sum(dim=0)
            squares += (p * p).sum(dim=0)
            p.scatter_add_(1, labels[:, None], p.new_full((len(p), 1), -1.0))
            gradient.addmm_(p.T, rows)
        gradient = torch.cat([gradient, (sums - self.counts).float()[:, None]], dim=1) / self.count
        gradient += regularisation * self.penalised * theta
        # As if images' p (1 - p) and features were independent; for the bias, whose feature is 1, it is exact.
        spread = ((sums - squares) / self.count).clamp_min(1e-7).float()
        penalty = regularisation / 2 * float(weight.double().square().sum())
        curvature = spread[:, None] * self.variances + regularisation * self.penalised
        return float(loss) / self.count + penalty, gradient, curvature

    def start(self, theta: Tensor | None) -> Tensor:
        """Without a start, zero weights and the classes' log shares; classes without images are out of reach."""
        bias = (self.counts / self.count).log().clamp_min(ABSENT).float()
        if theta is None:
            return torch.cat([bias.new_zeros(len(bias), len(self.variances) - 1), bias[:, None]], dim=1)
        theta = theta.clone()
        unusable = (self.counts == 0) | (theta[:, -1] < ABSENT / 2)
        theta[:, -1] = torch.where(unusable, bias, theta[:, -1])
        theta[self.counts == 0, :-1] = 0
        return theta

    def minimise(self, regularisation: float, tolerance: float, theta: Tensor | None) -> Tensor:
        """L-BFGS (Nocedal & Wright, "Numerical optimization", 2006, section 7.2) with a diagonal first guess.

        It ends when the squared norm of the gradient, each entry divided by the root of its curvature, is below
        `tolerance`: about twice the distance of the objective from its minimum.
        """
        theta = self.start(theta)
        loss, gradient, curvature = self.value(theta, regularisation)
        pairs: list[tuple[Tensor, Tensor, float]] = []
        for _ in range(MOST_ITERATIONS):
            if float((gradient.square() / curvature).sum()) <= tolerance:
                break
            direction = -_apply_inverse(pairs, curvature, gradient)
            found = self._search(theta, direction, loss, gradient, regularisation)
            if found is None:  # the objective is as low as float32 can tell
                break
            step, loss, new_gradient, curvature = found
            change = new_gradient - gradient
            product = float((step * change).sum())
            if product > 0:
                pairs = [*pairs[-_MEMORY + 1 :], (step, change, product)]
            theta, gradient = theta + step, new_gradient
        present = self.counts > 0
        theta[present] -= theta[present].mean(dim=0)  # adding a vector to all rows changes no probability
        return theta

    def _search(
        self, theta: Tensor, direction: Tensor, loss: float, gradient: Tensor, regularisation: float
    ) -> tuple[Tensor, float, Tensor, Tensor] | None:
        """A step that satisfies Wolfe's conditions; None if float32 finds none.

        The slope grows along the direction because the objective is convex, so its zero is bracketed by signs.
        """
        slope = float((gradient * direction).sum())
        low, low_slope, high, size = 0.0, slope, math.inf, 1.0
        for _ in range(20):
            step = size * direction
            new_loss, new_gradient, curvature = self.value(theta + step, regularisation)
            new_slope = float((new_gradient * direction).sum())
            # Near the minimum losses differ by less than their rounding, but slopes still tell.
            falls = new_loss <= loss + 1e-4 * size * slope + 1e-6 * abs(loss)
            if falls and abs(new_slope) <= 0.9 * -slope:
                return step, new_loss, new_gradient, curvature
            if new_slope > 0 or not falls:
                high, share = size, low_slope / (low_slope - new_slope) if new_slope > 0 else 0.5
                size = low + (high - low) * min(max(share, 0.1), 0.9)
            else:
                low, low_slope = size, new_slope
                size = 4 * size if high == math.inf else (low + high) / 2
        return None


def _apply_inverse(pairs: list[tuple[Tensor, Tensor, float]], curvature: Tensor, gradient: Tensor) -> Tensor:
    """L-BFGS's two loops: the inverse second derivative, as far as steps have shown it, times the gradient."""
    shares = []
    result = gradient
    for step, change, product in reversed(pairs):
        shares.append(float((step * result).sum()) / product)
        result = result - shares[-1] * change
    if pairs:
        _, change, product = pairs[-1]
        result = result * (product / float((change.square() / curvature).sum()))
    result = result / curvature
    for (step, change, product), share in zip(pairs, reversed(shares)):
        result = result + (share - float((change * result).sum()) / product) * step
    return result
