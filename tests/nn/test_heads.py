"""Projector and predictor."""

import pytest
import torch

from tapetum.nn.heads import HeadConfig, PredictionHead, ProjectionHead, build_heads


@pytest.mark.parametrize(
    ("head", "count"),
    [
        (ProjectionHead(2048, 2048, 2048), 12_597_248),
        (ProjectionHead(128, 128, 128), 50_048),
        (PredictionHead(2048), 2_104_832),
        (PredictionHead(128), 8_672),
    ],
)
def test_parameter_counts(head, count):
    assert sum(p.numel() for p in head.parameters()) == count


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_number_of_layers(layers):
    head = ProjectionHead(6, 10, 4, layers)
    names = ["fc1", "bn1", "relu1", "fc2", "bn2", "relu2", "fc3"]
    assert [name for name, _ in head.named_children()] == names[: max(0, 3 * layers - 2)]
    assert head(torch.randn(5, 6)).shape == (5, head.out_features) == (5, 4 if layers else 6)


def test_build_heads_takes_the_hidden_width_from_the_backbone():
    projector, predictor = build_heads(HeadConfig(output=8, predictor=True), 12)
    assert projector.fc1.out_features == 12
    assert predictor(projector(torch.randn(3, 12))).shape == (3, 8)
    projector, predictor = build_heads(HeadConfig(hidden=20, layers=0), 12)
    assert projector.out_features == 12
    assert predictor is None


@pytest.mark.parametrize("field", [{"hidden": 0}, {"output": 0}, {"layers": 4}, {"layers": -1}])
def test_errors_name_field_and_value(field):
    ((name, value),) = field.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        HeadConfig(**field)
