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

from tapetum.ops.logistic_regression import ROWS_AT_ONCE, Objective
from tapetum.ops.precision import full_precision
from tapetum.ops.randomness import make_keys, permutation

CANDIDATES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Values of lambda to choose from."""
DEFAULT_REGULARISATION = 0.1
"""lambda where none can be chosen because no class has two labels."""
TOLERANCE = 1e-6
"""Of a fit: no accuracy can tell, and the objective is still nearer its minimum than scikit-learn leaves it."""
ROUGH_TOLERANCE = 1e-4
"""Of fits for cross-validation, which only counts correct answers."""


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
    """For each candidate, the share of labels predicted correctly while held out, in percent; empty if none was."""


class _Standardised(NamedTuple):
    """Standardised training features and their principal axes."""

    rows: Tensor  # (N, D)
    axes: Tensor  # (D, K) orthonormal columns, K = min(N, D)
    variances: Tensor  # (K,) of rows along the axes
    mean: Tensor  # (D,) float64
    scale: Tensor  # (D,) float64 standard deviations; infinite for constant columns, which then get no weight


@torch.no_grad()
@full_precision
def fit_linear_probe(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    regularisation: float,
    tolerance: float = TOLERANCE,
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
        tolerance: the fit ends when the objective is within about half of this of the least possible. float32 can tell
            down to about 1e-10.

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
    return _fit(_standardise(features), labels, num_classes, regularisation, None, tolerance)


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
def linear_probe(features: Tensor, labels: Tensor, num_classes: int, seed: int = 0) -> tuple[LinearProbe, float]:
    """Choose lambda and fit with all labels; returns the probe and lambda.

    Arguments and errors are those of `choose_regularisation`.
    """
    _check(features, labels, num_classes, CANDIDATES)
    data = _standardise(features)
    chosen = _choose(data, labels, num_classes, CANDIDATES, 5, seed).regularisation
    return _fit(data, labels, num_classes, chosen, None, TOLERANCE), chosen


def _check(features: Tensor, labels: Tensor, num_classes: int, candidates: Sequence[float]) -> None:
    if features.ndim != 2 or len(features) != len(labels) or not len(labels):
        raise ValueError(f"features {tuple(features.shape)}, labels {tuple(labels.shape)}: give each row one label.")
    if not bool((features.amax(dim=0) - features.amin(dim=0)).isfinite().all()):  # no copy of the features
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
    features = features.float()
    mean = sum((part.sum(dim=0).double() for part in features.split(ROWS_AT_ONCE)), torch.tensor(0.0)) / len(features)
    mean = mean.float()
    # Columns are first divided by their range, so that squares of features of any scale are float32 numbers.
    reach = features.amax(dim=0) - features.amin(dim=0)
    # What rounding leaves of a constant column is not to be blown up to standard deviation 1.
    reach[reach <= (1e-6 * mean.abs()).clamp_min(1e-37)] = math.inf
    rows = torch.sub(features, mean).div_(reach)
    squares = sum(((part * part).sum(dim=0).double() for part in rows.split(ROWS_AT_ONCE)), torch.tensor(0.0))
    deviation = (squares / len(rows)).sqrt()
    rows.div_(torch.where(deviation > 0, deviation, 1.0).float())
    scale = torch.where(reach.isinf(), math.inf, reach.double() * deviation)
    if len(rows) < rows.shape[1]:  # the weights lie in the span of the rows
        _, lengths, axes = torch.linalg.svd(rows, full_matrices=False)
        return _Standardised(rows, axes.T, lengths.square() / len(rows), mean.double(), scale)
    # Axes guide L-BFGS and change no result, so some of the rows will do; every n-th, as they may be sorted by class.
    some = rows[:: max(1, len(rows) // (32 * rows.shape[1]))]
    variances, axes = torch.linalg.eigh(some.T @ some / len(some))
    return _Standardised(rows, axes, variances.clamp_min(0), mean.double(), scale)


def _fit(
    data: _Standardised, labels: Tensor, num_classes: int, regularisation: float, theta: Tensor | None, tolerance: float
) -> LinearProbe:
    objective = Objective([(data.rows, labels)], data.axes, data.variances, num_classes)
    theta = objective.minimise(regularisation, tolerance, theta)
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
        objective = Objective(parts[:fold] + parts[fold + 1 :], data.axes, data.variances, num_classes)
        theta = None
        for value in path:  # from strong to weak, each from the one before
            theta = objective.minimise(value, ROUGH_TOLERANCE, theta)
            probe = LinearProbe(theta[:, :-1] @ data.axes.T, theta[:, -1])
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
