"""The benchmarks of wrong labels and of images of no class run on small data, and their scores are what they say."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import tapetum
from tapetum.data.labels.labels import labels_from_folders
from tapetum.evaluation.prediction import Supports

ROOT = Path(__file__).parents[2]
RECIPE = """
method: {kind: swav, num_prototypes: [6], freeze_steps: 0, head: {hidden: 16, output: 8, layers: 2}}
backbone: {kind: small_net, stem: 8, widths: [8, 8]}
data: {images: pool.npz, labels: none, batch_size: 8}
views:
  {large: {size: 8, count: 2, scale: [0.5, 1.0]}, mean: [0.4, 0.4, 0.4], std: [0.3, 0.3, 0.3], evaluation: {crop: 8}}
optimizer: {kind: sgd, lr: {start: 0.05, peak: 0.1, final: 0.0, warmup_epochs: 1}}
runtime: {accelerator: cpu, precision: float32, channels_last: false, threads: 1}
trainer: {steps: 4, log_every: 2, checkpoint_every: 4}
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield importlib.import_module
    for name in {"label_errors", "out_of_class", "side_by_side"} - known:
        sys.modules.pop(name, None)


def run_without_labels(count: int = 90) -> None:
    """A run of SwAV on images of three colours, whose labels it has not seen."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 120, (count, 3, 10, 10))
    images[np.arange(count), np.arange(count) % 3] += 130
    np.savez("pool.npz", x_train=images, y_train=np.arange(count) % 3, x_test=images[::-1], y_test=np.arange(count) % 3)
    arrays = dict(np.load("pool.npz"))
    np.savez("pool.npz", **{name: a.astype(np.uint8) if name[0] == "x" else a for name, a in arrays.items()})
    Path("recipe.yaml").write_text(RECIPE)
    tapetum.train("recipe.yaml", "run")


def test_labels_are_flipped_to_other_classes_always_the_same_ones(load):
    benchmark = load("label_errors")
    labels = labels_from_folders([f"{c}/{i}" for c in "abcd" for i in range(50)])
    true, given = benchmark.flipped(labels, 25, 0.05, seed=3)
    assert (true.counts.tolist(), len(given.labelled)) == ([25] * 4, 100)
    assert (true.values != given.values).sum() == 5
    assert benchmark.flipped(labels, 25, 0.05, seed=3)[1].fingerprint == given.fingerprint
    assert benchmark.flipped(labels, 25, 0.05, seed=4)[1].fingerprint != given.fingerprint


def test_every_way_tells_flipped_labels(load, monkeypatch):
    benchmark = load("label_errors")
    monkeypatch.setattr(benchmark, "FIRST", 10)
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(300) % 3
    rows = torch.eye(8)[true] + 0.3 * torch.randn(300, 8, generator=generator)
    given = true.clone()
    given[:10] = (given[:10] + 1) % 3
    for way in benchmark.WAYS.values():
        shares = way(rows, given, 3)
        np.testing.assert_allclose(shares.sum(dim=1), 1, atol=1e-4)
        for name, found in benchmark.precision(shares, given, true).items():
            assert found["listed"] >= 7, name  # not each image is sure of anything
            assert found["precision"] >= 0.8 * min(1, found["listed"] / 10), name


def test_runs_are_judged_by_labels_that_they_have_not_seen(load, monkeypatch):
    benchmark = load("label_errors")
    monkeypatch.setattr(benchmark, "NEAREST", 5)
    run_without_labels()
    size = Namespace(per_class=20, share=0.1)
    found = benchmark.measure(Path("pool.npz"), [Path("run")], [], 2, size)
    assert (found["per_class"], len(found["runs"]["run"]["draws"])) == (20, 2)
    assert set(found["runs"]["run"]["draws"][0]) == set(benchmark.WAYS)
    json.dumps(found)


def test_a_file_of_flipped_labels_is_written(load, monkeypatch):
    benchmark = load("label_errors")
    run_without_labels()
    monkeypatch.setattr(sys, "argv", ["label_errors.py", "flip", "f.csv", "--images", "pool.npz", "--per-class", "20"])
    benchmark.main()
    rows = list(csv.DictReader(Path("f.csv").read_text().splitlines()))
    assert len(rows) == 60
    assert sum(int(row["path"]) % 3 != int(row["label"]) for row in rows) == 3


def cloud(centre: float, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(count, 8)
    rows[:, 0], rows[:, 1] = 1.0, centre
    return rows + 0.2 * torch.randn(count, 8, generator=generator)


def test_every_score_is_higher_for_images_of_the_classes(load):
    benchmark = load("out_of_class")
    known = Supports(torch.cat([cloud(1, 40, 0), cloud(-1, 40, 1)]), torch.arange(80) // 40, 2)
    inside, outside = torch.cat([cloud(1, 40, 2), cloud(-1, 40, 3)]), torch.eye(8)[5] + 0.2 * cloud(0, 60, 4)
    for name, score in benchmark.SCORES.items():
        assert benchmark.auroc(score(inside, known), score(outside, known)) > 0.9, name
        own = benchmark.without_themselves(score, known)
        assert abs(float((score(inside, known) < own.quantile(0.2)).double().mean()) - 0.2) < 0.2, name


def test_mahalanobis_is_what_its_formula_says(load):
    benchmark = load("out_of_class")
    known = Supports(torch.cat([cloud(1, 4000, 0), cloud(-1, 4000, 1)]), torch.arange(8000) // 4000, 2)
    queries = cloud(0.3, 5, 2)
    rows = known.embeddings.double().numpy()
    means = np.stack([rows[:4000].mean(axis=0), rows[4000:].mean(axis=0)])
    inverse = np.linalg.inv(np.cov((rows - means.repeat(4000, 0)).T, bias=True))
    gaps = queries.double().numpy()[:, None] - means[None]
    expected = -np.einsum("ncd,de,nce->nc", gaps, inverse, gaps).min(axis=1)
    np.testing.assert_allclose(benchmark.mahalanobis(queries, known, unit=False), expected, rtol=0.15)


def test_runs_are_judged_against_other_images(load, monkeypatch):
    benchmark = load("out_of_class")
    run_without_labels()
    images = np.load("pool.npz")["x_test"]
    np.savez("others.npz", x=255 - images[:40])
    monkeypatch.setattr(benchmark, "RESULTS", Path("results"))
    monkeypatch.setattr(benchmark, "HELD_OUT", 30)
    given = ["--images", "pool.npz", "--others", "inverse=others.npz", "--runs", "run", "--labels-per-class", "10"]
    monkeypatch.setattr(sys, "argv", ["out_of_class.py", "small", *given])
    benchmark.main()
    found = json.loads(Path("results/small.json").read_text())["runs"]["run"]
    assert found["labels"] == 30
    assert set(found["helped"]) == {"5 of inverse", "20 of inverse"}
    aurocs = [part["auroc"]["inverse"] for part in (found["helped"]["20 of inverse"], found["scores"]["in_domain"])]
    assert aurocs[0] > aurocs[1]
