"""Exchange between ranks; with one process tensors pass unchanged, so losses also run in a plain Python session.

Gradients follow the convention of DistributedDataParallel: each rank computes the loss of its own rows, and
parameter gradients are *averaged* over ranks. For this, `gather_rows` must sum the incoming gradients of all ranks,
and `mean_over_ranks` must pass its gradient through unchanged.
"""

import gc
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """Number of processes in the default group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process in the default group; 0 without one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def leave_group() -> None:
    """End the default group, if there is one. To be called while Python still runs.

    Gloo's threads may be the last to hold a tensor of a collective, and one that lets go of it after the interpreter
    has ended aborts a process whose work is done.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # wrappers of modules, which hold the group too, are in reference cycles
        dist.destroy_process_group()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_rows = rows.shape[0]
        rows = rows.contiguous()
        # Into one tensor: a list of one for each rank would be copied once more, and cost the host a call a rank.
        everyones = rows.new_empty(world_size() * rows.shape[0], *rows.shape[1:])
        dist.all_gather_single(everyones, rows)
        return everyones

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        start = rank() * ctx.num_rows
        return total[start : start + ctx.num_rows]


class _MeanOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        mean = value.detach() / world_size()
        dist.all_reduce(mean)
        return mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def gather_rows(rows: Tensor) -> Tensor:
    """Gather the rows of all ranks, (W * N, ...), in rank order; differentiable. All ranks must pass equally many."""
    return _GatherRows.apply(rows) if world_size() > 1 else rows


def mean_over_ranks(value: Tensor) -> Tensor:
    """Average `value` over ranks; differentiable."""
    return _MeanOverRanks.apply(value) if world_size() > 1 else value


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.detach().contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum `value` over ranks; differentiable: every rank's loss depends on every rank's value."""
    return _SumOverRanks.apply(value) if world_size() > 1 else value


def gather_on_first(value: T) -> list[T]:
    """Return every rank's value on rank 0, in rank order, and an empty list on the others."""
    if world_size() == 1:
        return [value]
    everyones: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, everyones)
    return everyones or []


def gather_on_all(value: T) -> list[T]:
    """Return every rank's value on every rank, in rank order."""
    if world_size() == 1:
        return [value]
    everyones: list[Any] = [None] * world_size()
    dist.all_gather_object(everyones, value)
    return everyones


def in_turn(own: Iterator[T], count: int) -> Iterator[T]:
    """Yield on rank 0, in order, what all ranks make together; the others go through an iterator without items.

    Ranks stay in step: each makes one more thing while rank 0 uses the last ones. So memory is bounded, what rank 0 has
    is complete up to some point, and a rank that is lost is noticed by the others.

    Args:
        own: what this rank makes, of `count` things those with the numbers rank, rank + world_size, and so on.
        count: of all ranks together.
    """
    for start in range(0, count, world_size()):
        mine = next(own) if start + rank() < count else None
        yield from cast("list[T]", gather_on_first(mine))[: count - start]
