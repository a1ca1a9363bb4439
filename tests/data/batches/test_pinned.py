"""Batches on their way to a GPU lie in page-locked memory, so that no copy waits; shown without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from tapetum.data.batches.pipeline import Cut, Pipeline
from tapetum.data.batches.samplers import SupportConfig
from tapetum.data.images.stores import ArrayStore
from tapetum.data.labels.labels import labels_from_values
from tapetum.data.views.draw import EvaluationViewConfig, ViewConfig, ViewsConfig

VIEWS = ViewsConfig(
    large=ViewConfig(size=12, scale=(0.5, 1.0), count=2),
    small=ViewConfig(size=8, scale=(0.2, 0.5), count=2),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
    evaluation=EvaluationViewConfig(crop=12),
)


@pytest.fixture
def pipeline() -> Pipeline:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    labels = labels_from_values([str(i) for i in range(8)], np.arange(8) % 2)
    return Pipeline(ArrayStore(pixels), labels, VIEWS, SupportConfig(images_per_class=2), batch_size=4, seed=0)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What was asked to be page-locked; pinning itself needs a driver."""
    asked: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        asked.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(Tensor, "pin_memory", note)
    return asked


def parts(cut: Cut) -> list[Tensor]:
    assert cut.support is not None
    given = [group.pixels for group in (*cut.groups, cut.support)]
    return [*given, *(t for t in (cut.index, cut.support_labels, cut.support_classes) if t is not None)]


def test_the_loader_pins_every_tensor_of_a_batch(pipeline, pinned):
    cut = pipeline.cut(0)
    moved = pin_memory(cut)  # what a DataLoader calls
    assert isinstance(moved, Cut)
    assert {id(tensor) for tensor in pinned} == {id(tensor) for tensor in parts(cut)}
    assert len(pinned) == 6
    assert not {id(tensor) for tensor in pinned} & {id(tensor) for tensor in parts(moved)}
    for before, after in zip(parts(cut), parts(moved), strict=True):
        assert torch.equal(before, after)
    assert moved.groups[0].parameters is cut.groups[0].parameters


def test_without_workers_batches_for_a_gpu_are_pinned_too(pipeline, pinned, monkeypatch):
    finished = []
    monkeypatch.setattr(pipeline, "finish", lambda cut, device, channels_last: finished.append((cut, device)))
    list(pipeline.batches(0, 2, device="cuda"))
    assert len(pinned) == 12
    assert [device for _, device in finished] == ["cuda", "cuda"]
    assert not {id(tensor) for tensor in pinned} & {id(tensor) for cut, _ in finished for tensor in parts(cut)}


def test_for_a_cpu_nothing_is_pinned(pipeline, pinned):
    list(pipeline.batches(0, 2))
    assert pinned == []


def test_a_batch_without_labels_is_pinned(pinned):
    cut = Cut([], torch.arange(3), None, None, None).pin_memory()
    assert len(pinned) == 1
    assert (cut.support, cut.support_labels) == (None, None)
