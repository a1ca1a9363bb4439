"""Procedural weights and images of golden networks (see the README of the folder golden/)."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor


def noise(counters: np.ndarray) -> np.ndarray:
    """The hash H of the golden README: uint64 counters to float64 numbers in [-1, 1)."""
    mask = np.uint64(0xFFFFFFFF)
    u = (counters.astype(np.uint64) * np.uint64(2654435761)) & mask
    u ^= u >> np.uint64(15)
    u = (u * np.uint64(2246822519)) & mask
    u ^= u >> np.uint64(13)
    return u.astype(np.float64) / 2.0**31 - 1.0


def fill(state: dict[str, Tensor]) -> None:
    """Write the procedural weights into tensors, by their published names."""
    for i, name in enumerate(sorted(state)):
        tensor = state[name]
        if tensor.dtype == torch.int64:
            tensor.zero_()
            continue
        w = noise(np.arange(tensor.numel()) + 1000003 * i)
        if name.endswith("running_var"):
            w = 1 + w / 2
        elif tensor.ndim > 1:
            w = w * np.sqrt(2 / (tensor.numel() / tensor.shape[0]))
        else:
            w = 1 + w / 10 if name.endswith("weight") else w / 10
        tensor.copy_(torch.from_numpy(w).view(tensor.shape))


def images(j: int, batch: int, size: int) -> Tensor:
    """Input number j, (batch, 3, size, size) float64."""
    counters = np.arange(batch * 3 * size * size) + 1000003 * (1000000 + j)
    return torch.from_numpy(noise(counters)).view(batch, 3, size, size)


def golden_file(name: str) -> Path:
    """Path of a golden file: in tests/golden, else in TAPETUM_TEST_DATA/golden, else the test is skipped."""
    own = Path(__file__).parent.parent / "golden" / name
    if own.exists():
        return own
    folder = os.environ.get("TAPETUM_TEST_DATA")
    if folder is None:
        pytest.skip(f"{name} lies outside the repository: set TAPETUM_TEST_DATA to the folder that holds golden/")
    path = Path(folder) / "golden" / name
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return path
