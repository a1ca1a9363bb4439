"""How fast this machine multiplies matrices right now: the unit beside which times are worth something."""

from __future__ import annotations

import time

import torch

SIZE = 2048


def matrix_peak(dtype: torch.dtype, repeats: int = 8) -> float:
    """GFLOP/s of products of two square matrices of side 2048, the best of `repeats`."""
    left, right = torch.ones(SIZE, SIZE, dtype=dtype), torch.ones(SIZE, SIZE, dtype=dtype)
    left @ right
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * SIZE**3 / best / 1e9


def matrix_peaks() -> dict[str, float]:
    """GFLOP/s in float32 and bfloat16, with torch's current number of threads."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {name: round(matrix_peak(dtype), 1) for name, dtype in kinds.items()}


if __name__ == "__main__":
    print(f"{torch.get_num_threads()} threads: {matrix_peaks()}")
