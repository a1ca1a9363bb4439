"""`runtime.compile` compiles a backbone: every kind of it is one graph, in each way in which a method calls it."""

import pytest
import torch
from torch import nn

from tapetum.nn.backbones import (
    BackboneConfig,
    ResNetConfig,
    SmallNetConfig,
    TimmConfig,
    WideResNetConfig,
    build_backbone,
)
from tapetum.nn.batch_norm import running_statistics_frozen

SLOW = pytest.mark.slow
KINDS = [
    SmallNetConfig(stem=4, widths=(4,)),
    ResNetConfig(depth=20),
    WideResNetConfig(depth=10, width=1),
    pytest.param(SmallNetConfig(stem=4, widths=(4, 4, 4), activation="relu", pool="max"), marks=SLOW),
    pytest.param(ResNetConfig(depth=18), marks=SLOW),
    pytest.param(ResNetConfig(depth=50), marks=SLOW),
    pytest.param(WideResNetConfig(depth=10, width=1, dropout=0.1), marks=SLOW),
    pytest.param(WideResNetConfig(depth=10, width=1, variant="keras"), marks=SLOW),
    pytest.param(TimmConfig(name="resnet10t"), marks=SLOW),
    pytest.param(
        TimmConfig(name="test_vit", options={"img_size": 32, "patch_size": 4, "dynamic_img_size": True}), marks=SLOW
    ),
]


def traced(backbone: nn.Module) -> nn.Module:
    """Traced as `Runtime.setup` has it compiled; a break in the graph raises an error, and nothing is generated."""
    torch.compiler.reset()
    return torch.compile(backbone, backend="eager", fullgraph=True, dynamic=False)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_a_backbone_is_one_graph(config: BackboneConfig):
    """Without values: what is traced depends on shapes alone."""
    with torch.device("meta"):
        backbone = build_backbone(config)
    compiled = traced(backbone)
    compiled(torch.empty(2, 3, 32, 32, device="meta")).sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_small_views_and_evaluation_are_one_graph_too():
    backbone = build_backbone(SmallNetConfig(stem=4, widths=(4,)))
    compiled, images = traced(backbone), torch.randn(4, 3, 12, 12)
    with running_statistics_frozen(backbone):
        assert torch.equal(compiled(images), backbone(images))
    backbone.eval()
    assert torch.equal(compiled(images), backbone(images))


def test_a_break_would_be_found():
    class Waiting(nn.Module):
        def forward(self, images):
            print(images.shape)
            return images

    with pytest.raises(torch._dynamo.exc.Unsupported):
        traced(Waiting())(torch.ones(2))
