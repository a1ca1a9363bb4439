"""Golden networks: the encoder of the published PAWS and its procedural weights (see the golden folder's README)."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import golden
from tapetum.nn.backbones import BackboneConfig, build_backbone
from tapetum.nn.heads import HeadConfig, build_heads

_PUBLISHED_PREFIX = {"backbone": "", "projector": "fc.", "predictor": "pred."}


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
        golden.fill(self.published_state_dict())


@pytest.fixture
def fill_procedurally() -> Callable[[dict[str, Tensor]], None]:
    return golden.fill


@pytest.fixture
def make_encoder() -> Callable[[BackboneConfig, HeadConfig], Encoder]:
    return Encoder


@pytest.fixture
def procedural_images() -> Callable[[int, int, int], Tensor]:
    return golden.images


@pytest.fixture
def golden_file() -> Callable[[str], Path]:
    return golden.golden_file
