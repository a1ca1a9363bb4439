"""Labels spread over neighbours: from hand to hand where neighbours are alike, and evenly if asked to."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "after_training", raising=False)
    return importlib.import_module("after_training")


def test_a_label_goes_along_a_chain_that_soft_neighbours_cut(script, monkeypatch):
    """Two arcs of a circle, labelled at one end each; the first one's far end is nearer to the other's label."""
    monkeypatch.setattr(script, "NEIGHBOURS", 2)
    degrees = torch.cat([torch.arange(0, 100, 5), torch.arange(125, 180, 5)]).deg2rad()
    circle = torch.stack([degrees.cos(), degrees.sin()], dim=1)
    truth = torch.tensor([0] * 20 + [1] * 11)
    supports, labels = circle[[0, 20]], torch.tensor([0, 1])
    alone = script.classify_by_neighbours(circle, supports, labels, 2)
    spread = script.spread_labels(circle, supports, labels, 2)
    assert script.top1(alone, truth) < 100
    assert script.top1(spread, truth) == 100


def test_balanced_classes_win_equally_often(script):
    generator = torch.Generator().manual_seed(0)
    shares = (torch.randn(400, 4, generator=generator) + torch.tensor([1.0, 0, 0, 0])).softmax(dim=1)
    assert shares.argmax(dim=1).bincount(minlength=4).max() > 150
    assert script.balanced(shares).mean(dim=0).tolist() == pytest.approx([0.25] * 4, abs=0.01)


def test_outputs_are_averaged(script):
    views = [script.Outputs(torch.full((2, 3), value), None) for value in (1.0, 2.0)]
    assert script.mean(views).embeddings.tolist() == [[1.5] * 3] * 2
    assert script.mean(views).logits is None


def test_judges_are_of_all_classes_though_sorted(script):
    places = script.evenly(45_960, 10_000)
    assert len(set(places)) == 10_000
    assert (places // 4596).tolist().count(9) == 1000
    assert script.evenly(3, 10).tolist() == [0, 1, 2]
