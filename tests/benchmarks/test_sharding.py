"""The parts of memory that benchmarks/sharding.py reckons are those of the network."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def sharding(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    known = set(sys.modules)
    yield importlib.import_module("sharding")
    for name in {"sharding", "side_by_side"} - known:
        sys.modules.pop(name, None)


def test_parts_of_memory_on_paper(sharding):
    found = sharding.paper("vit_tiny_patch16_224", {64: 20, 32: 10})
    rows = {(row["gpus"], row["strategy"], row["recompute"]): row for row in found["rows"]}
    whole, parts = rows[8, "ddp", "none"], rows[8, "fsdp", "none"]
    assert whole["weights"] == pytest.approx(4 * found["parameters"] / 1e6, abs=1)
    assert whole["weights"] == whole["gradients"] == whole["gathered"]
    assert whole["optimizer"] == pytest.approx(2 * whole["weights"], abs=1)
    assert parts["weights"] < whole["weights"] / 2
    assert rows[64, "fsdp", "none"]["weights"] <= parts["weights"]
    assert rows[8, "fsdp", "blocks"]["activations"] < whole["activations"] / 2
    assert rows[8, "fsdp", "blocks"]["copies"] < parts["copies"]
    for row in rows.values():
        sizes = [row[name] for name in ("weights", "gradients", "optimizer", "gathered", "copies", "activations")]
        assert row["together"] == pytest.approx(sum(sizes), abs=3)
