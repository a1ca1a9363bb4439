"""Processes that are not there: what one process of many would send, counted, on tensors without values.

`pretended` stands in for torch.distributed below `tapetum.ops.collectives`, so a method runs as in one process of many,
and every collective of its own can be noted with its bytes. Tensors on torch's `meta` device have shapes but no
values: nothing is computed, and a ResNet-50 takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tapetum.ops import collectives


class Exchange:
    """One process of many, which answers as torch.distributed does and keeps count.

    Args:
        world_size: number of processes.
        rank: of this one.
    """

    def __init__(self, world_size: int, rank: int = 0) -> None:
        self._world_size, self._rank = world_size, rank
        self.note: Callable[[str, int], None] = lambda collective, size: None
        """Told of every collective and the bytes of its result."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def get_world_size(self) -> int:
        return self._world_size

    def get_rank(self) -> int:
        return self._rank

    def all_gather_single(self, everyones: Tensor, own: Tensor) -> None:
        assert everyones.numel() == own.numel() * self._world_size
        self.note("all-gather", everyones.nbytes)

    def all_reduce(self, tensor: Tensor) -> None:
        self.note("all-reduce", tensor.nbytes)


@contextmanager
def pretended(world_size: int) -> Iterator[Exchange]:
    """Run what is inside as the first of `world_size` processes, on `meta` tensors; with one, nothing is exchanged."""

    def no_autocast(device_type: str, **settings: Any) -> Any:
        # torch has no autocast for `meta`, not even to be turned off.
        return nullcontext() if device_type == "meta" else autocast(device_type, **settings)

    autocast, exchange = torch.autocast, Exchange(world_size)
    with mock.patch.object(collectives, "dist", exchange), mock.patch.object(torch, "autocast", no_autocast):
        yield exchange
