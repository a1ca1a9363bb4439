"""Batch normalisation over all ranks and on any device, and a switch for its running statistics.

torch's `SyncBatchNorm` refuses CPU tensors. Here every rank contributes the count, mean and sum of squared deviations
of each channel; these triples are gathered and merged with the formula of Chan, Golub & LeVeque ("Algorithms for
computing the sample variance", 1983), which avoids the cancellation of a difference of two large sums.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tapetum.ops.collectives import gather_rows, sum_over_ranks, world_size


def _channel_shape(x: Tensor) -> list[int]:
    return [1, -1] + [1] * (x.dim() - 2)


def _statistics_over_ranks(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count (0-d), mean (C,) and biased variance (C,) of each channel of x (B, C, ...) over the rows of all ranks."""
    dims = [d for d in range(x.dim()) if d != 1]
    count = x.new_full((1, x.shape[1]), x.numel() // x.shape[1])
    if x.numel():
        variance, mean = torch.var_mean(x, dim=dims, correction=0)
    else:  # a rank without rows contributes a count of zero
        variance, mean = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    triple = torch.stack([count, mean[None], variance[None] * count], dim=1)  # (1, 3, C)
    counts, means, deviations = gather_rows(triple).unbind(1)  # each (W, C)
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    variance = (deviations + counts * (means - mean).square()).sum(0) / total
    return total[0], mean, variance


class _NormaliseOverRanks(torch.autograd.Function):
    """Normalisation by statistics of all ranks. Keeps only x and per-channel values for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        wide = x if x.dtype == torch.float64 else x.float()
        count, mean, variance = _statistics_over_ranks(wide)
        inverse = (variance + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = _channel_shape(x)
        out = torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(count, mean, variance)
        return out, count, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        dims = [d for d in range(x.dim()) if d != 1]
        shape = _channel_shape(x)
        gradient = gradients[0].to(mean.dtype)
        normalised = (x.to(mean.dtype) - mean.view(shape)) * inverse.view(shape)
        local = torch.stack([gradient.sum(dims), (gradient * normalised).sum(dims)])
        # All ranks share the mean and the variance, so gradients through them are summed over all ranks;
        # gradients of weight and bias stay local, because DistributedDataParallel averages them.
        total = sum_over_ranks(local) / count
        inner = gradient - total[0].view(shape) - normalised * total[1].view(shape)
        scale = inverse if weight is None else inverse * weight
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        return (
            (inner * scale.view(shape)).to(x.dtype) if need_x else None,
            local[1] if need_weight else None,
            local[0] if need_bias else None,
            None,
        )


class BatchNorm(_BatchNorm):
    """BatchNorm of inputs (B, C, ...) with any number of dimensions, using batch statistics over all processes.

    With one process, in evaluation mode, or without a process group, it equals `torch.nn.BatchNorm1d/2d/3d` to the last
    bit. Processes may have different numbers of rows. Statistics are computed in float32 or better.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm got an input of {input.dim()} dimensions, but it needs (B, C, ...).")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        without_running = self.running_mean is None and self.running_var is None
        if world_size() == 1 or not (self.training or without_running):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            out, count, mean, variance = _NormaliseOverRanks.apply(input, self.weight, self.bias, self.eps)
        if self.training and self.track_running_stats:
            self._update_running(count, mean, variance)
        return out

    @torch.no_grad()
    def _update_running(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        momentum: Tensor | float = self.momentum if self.momentum is not None else 0.0
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # torch's convention: the average of all batches so far
                momentum = 1.0 / self.num_batches_tracked
        unbiased = variance * (count / (count - 1))
        self.running_mean.add_((mean - self.running_mean) * momentum)
        self.running_var.add_((unbiased - self.running_var) * momentum)


class _BatchNormAct(BatchNorm):
    """Replaces timm's BatchNorm layers that end in dropout and activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


_CONVERTIBLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def _converted(layer: _BatchNorm) -> BatchNorm:
    if type(layer) in _CONVERTIBLE:
        new = BatchNorm.__new__(BatchNorm)
    elif isinstance(getattr(layer, "drop", None), nn.Module) and isinstance(getattr(layer, "act", None), nn.Module):
        new = _BatchNormAct.__new__(_BatchNormAct)
    else:
        raise ValueError(
            f"{type(layer).__name__} is a BatchNorm layer that cannot be computed over several processes: "
            "replace it by torch.nn.BatchNorm2d, or train in one process."
        )
    # Parameters, buffers, hooks and settings are shared, so optimizers that already hold them stay valid.
    new.__dict__.update(layer.__dict__)
    return new


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm layer inside `module`, in place, with one over all ranks; names and tensors stay.

    Args:
        module: any module; may itself be a BatchNorm layer.

    Returns:
        `module`, or its replacement if it is itself a BatchNorm layer.

    Raises:
        ValueError: a layer is a BatchNorm subclass with a `forward` of its own that is not supported here.

    Example:
        >>> type(convert_batch_norm(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))[1]).__name__
        'BatchNorm'
    """
    if isinstance(module, _BatchNorm):
        return module if isinstance(module, BatchNorm) else _converted(module)
    for name, child in module.named_children():
        replacement = convert_batch_norm(child)
        if replacement is not child:
            setattr(module, name, replacement)
    return module


@contextmanager
def running_statistics_frozen(module: nn.Module) -> Iterator[None]:
    """Within this context, BatchNorm layers in training mode use batch statistics but do not update the running ones.

    Used for small crops: running statistics then come from the large views only. Evaluation mode is not affected.
    May be nested, and restores the layers' own settings even after an exception.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with running_statistics_frozen(layer):
        ...     _ = layer(torch.ones(4, 2))
        >>> int(layer.num_batches_tracked)
        0
    """
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [layer.track_running_stats for layer in layers]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer, setting in zip(layers, before, strict=True):
            layer.track_running_stats = setting


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Within this context, BatchNorm layers that have not been trained use batch statistics in evaluation mode too.

    Their running means are still 0 and mean nothing, and without normalisation the signal that is left of an image
    after some layers can be smaller than the `eps` of the next one. No layer's running statistics change.

    Example:
        >>> layer = nn.BatchNorm1d(2).eval()
        >>> with batch_statistics(layer):
        ...     scaled = layer(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))
        >>> scaled.round().tolist(), layer.running_mean.tolist()
        ([[-1.0, -1.0], [1.0, 1.0]], [0.0, 0.0])
    """
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    layers = [layer for layer in layers if layer.running_mean is not None and not layer.running_mean.any()]
    before = [(layer.running_mean, layer.running_var) for layer in layers]
    try:
        for layer in layers:
            layer.running_mean = layer.running_var = None
        with running_statistics_frozen(module):
            yield
    finally:
        for layer, (mean, variance) in zip(layers, before, strict=True):
            layer.running_mean, layer.running_var = mean, variance
