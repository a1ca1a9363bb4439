"""benchmarks/suggest.py: what it measures, on images so few that they say nothing, and that it goes on where it was."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tapetum

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def suggest(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("suggest")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    yield module
    sys.modules.pop("suggest", None)


def images(count=100):
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pixels = generator.integers(0, 120, (count, 3, 32, 32))
    pixels[np.arange(count), labels] += 130
    np.savez("colours.npz", x_train=pixels.astype(np.uint8), y_train=labels)


def call(module, monkeypatch, *more):
    words = ["suggest.py", "tiny", "--run", "run", "--images", "colours.npz", "--counts", "4", "8", "--draws", "2"]
    monkeypatch.setattr(sys, "argv", [*words, "--ways", "doubt", "random", "--pool", "60", *more])
    module.main()
    return json.loads(Path("results/tiny.json").read_text())


@pytest.mark.usefixtures("one_thread")
def test_ways_are_judged_and_a_second_call_adds_trainings(suggest, monkeypatch, capsys):
    images()
    settings = ["data.images=colours.npz", "data.test=null", "trainer.minutes=null", "trainer.steps=1"]
    tapetum.train("simclr_cifar10_cpu", "run", [*settings, "data.batch_size=20", "backbone.widths=[8,8,8]"])
    found = call(suggest, monkeypatch)
    assert (found["pool"], found["judges"], found["embedding"], found["num_classes"]) == (60, 20, "simclr", 2)
    keys = [(cell["labels"], cell["way"], cell["draw"]) for cell in found["cells"]]
    assert keys == [(n, way, draw) for n in (4, 8) for way in ("doubt", "random") for draw in (0, 1)]
    assert all(0 <= cell[judge] <= 100 for cell in found["cells"] for judge in ("soft_nn", "linear"))
    assert "doubt" in capsys.readouterr().out

    def never(*arguments):
        raise AssertionError("it was measured already")

    trained = []
    for name in ("choose", "judge"):
        monkeypatch.setattr(suggest, name, never)
    settings = ["data.batch_size=8", "backbone.widths=[8,8,8]", "support.images_per_class=2"]
    train = tapetum.train

    def train_small(recipe, run, given):
        trained.append(Path(run))
        return train(recipe, run, [*given, *settings])

    monkeypatch.setattr(suggest.tapetum, "train", train_small)
    again = call(suggest, monkeypatch, "--paws-steps", "1")
    assert [cell["soft_nn"] for cell in again["cells"]] == [cell["soft_nn"] for cell in found["cells"]]
    assert all(0 <= cell["paws"] <= 100 for cell in again["cells"])
    assert len(trained) == 8
    for run, count in ((path, int(path.parent.name.rpartition("_")[2])) for path in trained):
        assert json.loads((run / "summary.json").read_text())["num_labels"] == count
        assert len((run.parent / "labels.csv").read_text().splitlines()) == count
    assert call(suggest, monkeypatch, "--paws-steps", "1")["cells"] == again["cells"]
    assert len(trained) == 8
