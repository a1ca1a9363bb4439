"""Step metrics stay on the device and are copied to the host together, once per logging interval."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tapetum.methods.base import StepOutput
from tapetum.ops.collectives import mean_over_ranks

Metrics = dict[str, Tensor]
GUARDED = ("train/loss", "train/gradient_norm")
"""Must be finite. A finite loss can have non-finite gradients, which do harm one step before the loss shows it."""


def step_metrics(outputs: Sequence[StepOutput], gradient_norm: Tensor) -> Metrics:
    """Return the metrics of one step, averaged over its micro-batches, as 0-d tensors on the device.

    Args:
        outputs: what the method returned for each micro-batch.
        gradient_norm: 0-d, the Euclidean norm over all parameters.
    """
    metrics = {"train/loss": _mean([output.loss for output in outputs]), "train/gradient_norm": gradient_norm.float()}
    for name in outputs[0].metrics:
        metrics[f"train/{name}"] = _mean([output.metrics[name] for output in outputs])
    return metrics


def _mean(values: Sequence[Tensor]) -> Tensor:
    numbers = [value.detach().float() for value in values]
    return numbers[0] if len(numbers) == 1 else torch.stack(numbers).mean()


class NonFiniteError(ValueError):
    """The loss or gradient became NaN or infinite.

    Attributes:
        step: the step, counted from 0, in which that happened.
    """

    def __init__(self, step: int, last_good: str) -> None:
        super().__init__(
            f"Loss or gradient of step {step} (counted from 0) is not finite; {last_good}. Lower the learning rate;"
            " with trainer.on_nan set to rollback, up to 3 such steps are skipped."
        )
        self.step = step


class PendingRows:
    """Rows whose metrics have not been read from the device yet."""

    def __init__(self) -> None:
        self._rows: list[tuple[dict[str, int | float], list[str]]] = []
        self._values: list[Tensor] = []

    def add(self, known: Mapping[str, int | float], metrics: Metrics) -> None:
        """Add one step: numbers that the host already knows, and 0-d tensors on the device."""
        self._rows.append((dict(known), list(metrics)))
        if metrics:
            self._values.append(torch.stack(list(metrics.values())))

    def take(self) -> list[dict[str, int | float]]:
        """Return all rows since the last call, averaged over ranks; only here does the host wait for the device."""
        numbers = iter(mean_over_ranks(torch.cat(self._values)).tolist() if self._values else [])
        rows = [known | {name: next(numbers) for name in names} for known, names in self._rows]
        self.drop()
        return rows

    def drop(self) -> None:
        """Forget all pending rows."""
        self._rows, self._values = [], []


def first_not_finite(rows: Sequence[Mapping[str, int | float]]) -> int | None:
    """Return the position of the first row whose loss or gradient norm is not finite; None if all are finite."""
    for position, row in enumerate(rows):
        if not all(math.isfinite(row.get(name, 0.0)) for name in GUARDED):
            return position
    return None
