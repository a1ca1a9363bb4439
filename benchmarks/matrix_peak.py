"""How fast this machine multiplies matrices right now: the unit beside which times are worth something."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

SIZES = (256, 512, 1024, 2048)
PATIENCE = 0.05
"""Seconds of a product from which on no larger one is tried: without units for bfloat16 one of 2048 takes a minute."""


def matrix_peak(dtype: torch.dtype, repeats: int = 8, clock: Callable[[], float] = time.perf_counter) -> float:
    """GFLOP/s of products of two square matrices, the largest that take no time to speak of; the best of `repeats`."""
    for size in SIZES:
        left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        _seconds(left, right, clock)  # warms up
        best = min(_seconds(left, right, clock) for _ in range(repeats))
        if best > PATIENCE:
            break
    return 2 * size**3 / best / 1e9


def _seconds(left: torch.Tensor, right: torch.Tensor, clock: Callable[[], float]) -> float:
    start = clock()
    left @ right
    return clock() - start


def matrix_peaks() -> dict[str, float]:
    """GFLOP/s in float32 and bfloat16, with torch's current number of threads."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {name: round(matrix_peak(dtype), 1) for name, dtype in kinds.items()}


if __name__ == "__main__":
    print(f"{torch.get_num_threads()} threads: {matrix_peaks()}")
