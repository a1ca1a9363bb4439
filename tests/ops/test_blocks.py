"""The blocks of networks are those of their papers."""

import pytest
from torch import nn

from tapetum.nn.backbones import (
    ResNetConfig,
    SmallNetConfig,
    TimmConfig,
    WideResNetConfig,
    build_backbone,
)
from tapetum.ops.blocks import blocks_of


@pytest.mark.parametrize(
    ("config", "count", "kind"),
    [
        (ResNetConfig(depth=20), 9, "BasicBlock"),
        (WideResNetConfig(depth=10, width=1), 3, "_Block"),
        (WideResNetConfig(depth=10, width=1, variant="keras"), 3, "_KerasBlock"),
        (SmallNetConfig(stem=2, widths=(4, 4)), 2, "_Group"),
        pytest.param(ResNetConfig(depth=50), 16, "Bottleneck", marks=pytest.mark.slow),
        pytest.param(TimmConfig(name="vit_tiny_patch16_224"), 12, "Block", marks=pytest.mark.slow),
        pytest.param(TimmConfig(name="convnext_atto"), 12, "ConvNeXtBlock", marks=pytest.mark.slow),
    ],
)
def test_blocks(config, count, kind):
    assert [type(block).__name__ for block in blocks_of(build_backbone(config))] == [kind] * count


def test_single_layers_are_no_blocks():
    assert blocks_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))) == []


def test_batch_norm_with_an_activation_is_a_single_layer():
    class Activated(nn.BatchNorm2d):
        def __init__(self, features: int) -> None:
            super().__init__(features)
            self.drop, self.act = nn.Identity(), nn.ReLU()

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(4, 4, 1), Activated(4))

    network = nn.Sequential(nn.Conv2d(3, 4, 3), Activated(4), Block())
    assert blocks_of(network) == [network[2]]
