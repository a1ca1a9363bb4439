"""Processes and threads are compared as `tapetum train` runs them, at sizes that say nothing about speed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    known = set(sys.modules)
    yield importlib.import_module("processes")
    for name in {"processes", "side_by_side"} - known:
        sys.modules.pop(name, None)


def test_rates_leave_out_the_first_steps(processes, tmp_path: Path):
    rows = [f"{step},{64 * step},{10 if step <= processes.WARMUP else 10 + step}" for step in range(1, 9)]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,images_seen,train_seconds", *rows]))
    assert processes.rate(tmp_path / "metrics.csv") == pytest.approx(3 * 64 / 8)


def test_ratios_are_taken_within_rounds(processes):
    found = {"one": [10, 20], "threads": [15, 32], "processes": [18, 38]}
    samples = {way: [{"images_per_second": float(rate)} for rate in rates] for way, rates in found.items()}
    summary = processes.summary(samples)
    assert summary["images_per_second"] == {"one": 15.0, "threads": 23.5, "processes": 28.0}
    assert summary["efficiency"] == {"threads": pytest.approx((0.75 + 0.8) / 2), "processes": 0.925}
    assert summary["processes_over_threads"] == pytest.approx((1.2 + 38 / 32) / 2, abs=1e-3)


@pytest.mark.slow
def test_two_processes_train_what_one_does(processes, tmp_path: Path, monkeypatch):
    """Really trained, as two processes: the figure comes from the run's own metrics."""
    images = tmp_path / "images.npz"
    np.savez(images, images=processes.photographs(32), labels=np.arange(32) % 2)
    small = ["data.batch_size=8", "backbone.widths=[4]", "data.labels_per_class=4", "method.num_prototypes=[4]"]
    plain = processes.settings_of
    monkeypatch.setattr(processes, "settings_of", lambda *arguments: [*plain(*arguments), *small])
    sample = processes.measure("swav_cifar10_cpu", "processes", images, tmp_path / "run", steps=2)
    assert sample["images_per_second"] > 0
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + processes.WARMUP + 2


def test_the_section_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    make_results = importlib.import_module("make_results")
    recipe = {
        "images_per_second": {"one": 1000.0, "threads": 1500.0, "processes": 1800.04},
        "efficiency": {"threads": 0.75, "processes": 0.9},
        "processes_over_threads": 1.2,
    }
    page = make_results.render_performance(
        processes={"two_cores": json.loads(json.dumps({"recipes": {"paws": recipe}}))}
    )
    (line,) = [line for line in page.splitlines() if "| `paws` |" in line]
    link = "[two_cores](results/processes/two_cores.json)"
    assert line == f"| {link} | `paws` | 1,000.0 | 1,500.0 | 1,800.0 | 75% | 90% | **1.20** |"
    assert "Two processes" not in make_results.render_performance()
