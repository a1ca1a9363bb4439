"""Golden networks: the encoder of the published PAWS and its procedural weights (see the golden folder's README)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tapetum.nn.backbones import BackboneConfig, build_backbone
from tapetum.nn.heads import HeadConfig, build_heads

_PUBLISHED_PREFIX = {"backbone": "", "projector": "fc.", "predictor": "pred."}


def _noise(counters: np.ndarray) -> np.ndarray:
    """The hash H of the golden README: uint64 counters to float64 numbers in [-1, 1)."""
    mask = np.uint64(0xFFFFFFFF)
    u = (counters.astype(np.uint64) * np.uint64(2654435761)) & mask
    u ^= u >> np.uint64(15)
    u = (u * np.uint64(2246822519)) & mask
    u ^= u >> np.uint64(13)
    return u.astype(np.float64) / 2.0**31 - 1.0


class Encoder(nn.Module):
    """Backbone, projector and predictor, all three run once per image size, as in the published PAWS."""

    def __init__(self, backbone: BackboneConfig, heads: HeadConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone)
        self.projector, self.predictor = build_heads(heads, self.backbone.num_features)

    def forward(self, images: list[Tensor]) -> tuple[Tensor, Tensor]:
        sizes = [x.shape[-1] for x in images]
        calls = [torch.cat([x for x in images if x.shape[-1] == size]) for size in dict.fromkeys(sizes)]
        h = [self.projector(self.backbone(call)) for call in calls]
        z = h if self.predictor is None else [self.predictor(rows) for rows in h]
        return torch.cat(h), torch.cat(z)

    def published_state_dict(self) -> dict[str, Tensor]:
        """The state dict under published names, in order; the tensors are the module's own."""
        state = {}
        for name, tensor in self.state_dict().items():
            part, rest = name.split(".", 1)
            state[_PUBLISHED_PREFIX[part] + rest] = tensor
        return state

    def fill_procedurally(self) -> None:
        fill(self.published_state_dict())


def fill(state: dict[str, Tensor]) -> None:
    """Write the procedural weights into tensors, by their published names."""
    for i, name in enumerate(sorted(state)):
        tensor = state[name]
        if tensor.dtype == torch.int64:
            tensor.zero_()
            continue
        w = _noise(np.arange(tensor.numel()) + 1000003 * i)
        if name.endswith("running_var"):
            w = 1 + w / 2
        elif tensor.ndim > 1:
            w = w * np.sqrt(2 / (tensor.numel() / tensor.shape[0]))
        else:
            w = 1 + w / 10 if name.endswith("weight") else w / 10
        tensor.copy_(torch.from_numpy(w).view(tensor.shape))


@pytest.fixture
def fill_procedurally() -> Callable[[dict[str, Tensor]], None]:
    return fill


@pytest.fixture
def make_encoder() -> Callable[[BackboneConfig, HeadConfig], Encoder]:
    return Encoder


@pytest.fixture
def procedural_images() -> Callable[[int, int, int], Tensor]:
    def make(j: int, batch: int, size: int) -> Tensor:
        counters = np.arange(batch * 3 * size * size) + 1000003 * (1000000 + j)
        return torch.from_numpy(_noise(counters)).view(batch, 3, size, size)

    return make


@pytest.fixture
def golden_file() -> Callable[[str], Path]:
    """Path of a golden file: in tests/golden, else in TAPETUM_TEST_DATA/golden, else the test is skipped."""

    def find(name: str) -> Path:
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

    return find
