"""Multinomial logistic regression: its objective over rows of features, and L-BFGS that minimises it.

    f(W, b) = mean_i H(y_i, softmax(W x_i + b)) + lambda/2 ||W||^2

L-BFGS is ours rather than torch's, because the diagonal of the second derivative, known from the probabilities, is a
much better first guess than a multiple of the identity, and because slopes find a step where losses are all rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MOST_ITERATIONS = 500
ROWS_AT_ONCE = 2048
"""Rows in one product: few enough to be still in the processor's cache when the gradient needs them again."""
ABSENT = -1e6
"""Logit of a class without training images: its probability is zero, and arithmetic with it stays finite."""
_MEMORY = 10  # pairs of steps and changes of the gradient that L-BFGS keeps

Block = tuple[Tensor, Tensor]
"""Rows (n, D) and their labels (n,)."""


class Objective:
    """The objective over parts of rows as a function of theta (C, K + 1), whose last column holds the biases.

    The other columns are weights in the rows' principal axes, where the penalty is the same and the second derivative
    nearly diagonal. The rows themselves are not rotated: weights and gradient are, which is far less work.
    """

    def __init__(self, parts: Sequence[Block], axes: Tensor, variances: Tensor, num_classes: int) -> None:
        """axes: (D, K) orthonormal columns whose span has all rows; variances: (K,) of rows along them, roughly."""
        self.axes = axes.contiguous()
        self.blocks = [
            block
            for rows, labels in parts
            for block in zip(rows.split(ROWS_AT_ONCE), labels.split(ROWS_AT_ONCE))
            if len(rows)
        ]
        self.count = sum(len(labels) for _, labels in self.blocks)
        self.counts = sum(labels.bincount(minlength=num_classes) for _, labels in self.blocks)
        self.variances = torch.cat([variances, variances.new_ones(1)])
        self.present = (self.counts > 0).float()[:, None]
        self.penalised = torch.cat([torch.ones_like(variances), variances.new_zeros(1)])

    def value(self, theta: Tensor, regularisation: float) -> tuple[float, Tensor, Tensor]:
        """The objective, its gradient, and an estimate of the diagonal of its second derivative."""
        weight, bias = theta[:, :-1] @ self.axes.T, theta[:, -1]
        gradient = torch.zeros_like(weight)
        loss, sums, squares = (theta.new_zeros(n, dtype=torch.float64) for n in (1, len(theta), len(theta)))
        for rows, labels in self.blocks:
            # For few classes MKL multiplies twice as fast in this order.
            p = ((weight @ rows.T).T.contiguous() + bias).log_softmax(dim=1)
            loss -= p.gather(1, labels[:, None]).sum()
            p.exp_()
            sums += p.sum(dim=0)
            squares += (p * p).sum(dim=0)
            p.scatter_add_(1, labels[:, None], p.new_full((len(p), 1), -1.0))
            gradient.addmm_(p.T, rows)
        gradient = torch.cat([gradient @ self.axes, (sums - self.counts).float()[:, None]], dim=1) / self.count
        gradient += regularisation * self.penalised * theta
        # As if images' p (1 - p) and features were independent; for the bias, whose feature is 1, it is exact.
        spread = ((sums - squares) / self.count).clamp_min(1e-7).float()
        penalty = regularisation / 2 * float(theta[:, :-1].double().square().sum())
        curvature = spread[:, None] * self.variances + regularisation * self.penalised
        return float(loss) / self.count + penalty, gradient, curvature

    def start(self, theta: Tensor | None) -> Tensor:
        """Without a start, zero weights and the classes' log shares; classes without images are out of reach."""
        bias = (self.counts / self.count).log().clamp_min(ABSENT).float()
        if theta is None:
            theta = bias.new_zeros(len(bias), len(self.variances))
            theta[:, -1] = bias
            return self.centred(theta)
        theta = theta.clone()
        unusable = (self.counts == 0) | (theta[:, -1] < ABSENT / 2)
        theta[:, -1] = torch.where(unusable, bias, theta[:, -1])
        theta[self.counts == 0, :-1] = 0
        return self.centred(theta)

    def centred(self, values: Tensor) -> Tensor:
        """Take the mean over classes from (C, K + 1) weights: no probability changes, and the penalty is least.

        Steps stay centred, too: along the mean, the penalty alone would have to pull them back, which takes long.
        """
        return values - self.present * ((self.present * values).sum(dim=0) / self.present.sum())

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
            direction = -self._apply_inverse(pairs, curvature, gradient)
            found = self._search(theta, direction, loss, gradient, regularisation)
            if found is None:  # the objective is as low as float32 can tell
                break
            step, loss, new_gradient, curvature = found
            change = new_gradient - gradient
            product = float((step * change).sum())
            if product > 0:
                pairs = [*pairs[-_MEMORY + 1 :], (step, change, product)]
            theta, gradient = theta + step, new_gradient
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

    def _apply_inverse(self, pairs: list[tuple[Tensor, Tensor, float]], curvature: Tensor, gradient: Tensor) -> Tensor:
        """L-BFGS's two loops: the inverse second derivative, as far as steps have shown it, times the gradient."""
        shares = []
        result = gradient
        for step, change, product in reversed(pairs):
            shares.append(float((step * result).sum()) / product)
            result = result - shares[-1] * change
        if pairs:
            _, change, product = pairs[-1]
            result = result * (product / float((change * self.centred(change / curvature)).sum()))
        result = self.centred(result / curvature)
        for (step, change, product), share in zip(pairs, reversed(shares)):
            result = result + (share - float((change * result).sum()) / product) * step
        return result
