"""The curves of growth, at sizes too small to say anything about speed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[ModuleType]:
    """The script, whose points are measured in this process; matrix peaks, which take seconds, are made up."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    known = set(sys.modules)
    module = importlib.import_module("growth")
    monkeypatch.setattr(module, "peaks", lambda threads: {"float32": 80.0, "bfloat16": 200.0})

    def measured_here(script: Path, arguments: Sequence[str], threads: int) -> object:
        assert arguments[2] == "--point"
        return module.measure(arguments[3], int(arguments[4]))

    monkeypatch.setattr(module, "in_own_process", measured_here)
    yield module
    for name in ("growth", "side_by_side"):
        if name not in known:
            sys.modules.pop(name, None)


def run(growth: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["growth.py", "--threads", "1", *arguments])
    growth.main()


@pytest.mark.slow
def test_every_curve_is_measured_from_small_to_large(growth, monkeypatch, tmp_path: Path, capsys) -> None:
    sizes = {"step by supports in chunks": (20, 40), "step by pixels": (8, 10), "step by classes": (2, 4)}
    small = {name: replace(curve, sizes=sizes.get(name, (16, 32))) for name, curve in growth.curves().items()}
    monkeypatch.setattr(growth, "curves", lambda: small)
    monkeypatch.setattr(growth, "STARTS", {"nothing": ["-c", ""]})
    monkeypatch.setattr(growth, "PROTOTYPES", 4)
    chosen = [name for name in small if not name.startswith("step") or name in ("step by pixels", "step by classes")]
    run(growth, monkeypatch, "--curves", *chosen, "--json", str(tmp_path / "growth.json"))
    found = json.loads((tmp_path / "growth.json").read_text())
    assert list(found["curves"]) == chosen
    for name, curve in found["curves"].items():
        assert tuple(point["size"] for point in curve["points"]) == small[name].sizes
        assert all(point["seconds"] > 0 and point["peak_memory_mb"] > 0 for point in curve["points"])
    assert set(found["starts"]) == {"nothing"}
    assert "step by pixels" in capsys.readouterr().out


def test_one_size_grows_and_the_others_stay(growth, monkeypatch) -> None:
    """What the recipe is told, and what the method is then given."""
    from tapetum.methods.paws import PAWS

    seen: list[tuple[int, ...]] = []
    forward = PAWS.forward

    def noted(self, batch, progress):
        large, supports = batch.views.groups[0], batch.support.groups[0]
        seen.append((len(large) // 2, len(supports), len(batch.support_classes), large.shape[-1], self.support_chunk))
        return forward(self, batch, progress)

    monkeypatch.setattr(PAWS, "forward", noted)
    growth.step(20, "supports", chunk=10)
    growth.step(8, "images")
    growth.step(8, "pixels")
    steps = growth.WARMUP + growth.STEPS
    assert seen == [(64, 20, 10, 24, 10)] * steps + [(8, 80, 10, 24, None)] * steps + [(64, 80, 10, 8, None)] * steps


def test_quick_leaves_out_the_large_sizes(growth, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(growth, "STARTS", {})
    run(growth, monkeypatch, "--quick", "--curves", "opening", "--json", str(tmp_path / "growth.json"))
    (curve,) = json.loads((tmp_path / "growth.json").read_text())["curves"].values()
    assert [point["size"] for point in curve["points"]] == [1000, 10_000]
