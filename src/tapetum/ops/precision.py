"""Keeps losses and operations from running in reduced precision, or in one that the device lacks."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")


def _at_least_float32(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    return value


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with autocast off and its half-precision tensor arguments raised to float32.

    Inside autocast even `z.float() @ s.float().T` silently returns bfloat16, which float64 tests cannot detect. So
    every public function of `losses/` and `ops/` that does arithmetic has this decorator. float64 stays float64.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        device = tensors[0].device.type if tensors else "cpu"
        with torch.autocast(device, enabled=False):
            raised = [_at_least_float32(a) for a in args]
            raised_named = {name: _at_least_float32(a) for name, a in kwargs.items()}
            return cast(Callable[..., R], function)(*raised, **raised_named)

    return wrapped


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 for Apple's GPUs, which refuse float64.

    Example:
        >>> widest_float(torch.device("mps"))
        torch.float32
    """
    return torch.float32 if device.type == "mps" else torch.float64


def narrow_buffers(module: nn.Module, device: torch.device) -> None:
    """Round a module's float64 buffers, in place, to the widest type of the device that it will be moved to.

    Example:
        >>> module = nn.Module()
        >>> module.register_buffer("shares", torch.ones(2, dtype=torch.float64))
        >>> narrow_buffers(module, torch.device("mps"))
        >>> module.shares.dtype
        torch.float32
    """
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.dtype == torch.float64:
                setattr(part, name, buffer.to(widest_float(device)))
