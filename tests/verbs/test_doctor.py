"""doctor: what a run's metrics and recipe say, while it trains and afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tapetum

SWAV = [
    *("method.kind=swav", "method.num_prototypes=[6]", "method.epsilon=5", "method.freeze_steps=0", "support=null"),
    *("data.labels_per_class=null", "data.held_out_per_class=null", "data.test=null", "trainer.steps=40"),
]


def test_a_broken_run_is_told_of_and_explained(recipe, capsys):
    tapetum.train(recipe, "run", SWAV)
    said = capsys.readouterr().err
    assert said.count("tapetum: Codes say nothing") == 1
    for images in Path().glob("*.npz"):
        images.unlink()
    shutil.rmtree("run/checkpoints")  # neither images nor weights are needed
    result = tapetum.doctor("run")
    assert (result["step"], result["steps"]) == (40, 40)
    assert result["findings"][0]["rule"] == "codes_uniform"
    assert result["findings"][0]["changes"][0] == "set method.epsilon=0.05"
    assert 0 < result["metrics"]["embedding_std"] < 1
    printed = capsys.readouterr().out
    assert printed.startswith("Step 40 of 40, swav.\nloss 1.")
    assert "\nCodes say nothing" in printed
    assert printed.splitlines()[-1].startswith("Next: tapetum train RECIPE")
    assert tapetum.doctor("run", json=True) == result == json.loads(capsys.readouterr().out)


def test_a_healthy_run(recipe, capsys):
    tapetum.train(recipe, "run", ["trainer.steps=30"])
    assert "What helps" not in capsys.readouterr().err
    assert tapetum.doctor("run")["findings"] == []
    printed = capsys.readouterr().out
    assert "None of the 13 rules found a problem." in printed
    assert printed.splitlines()[-1] == "Next: tapetum report run"


def test_a_running_run_with_one_class(recipe):
    """The number of classes is known from the start."""
    tapetum.train(recipe, "run", ["trainer.steps=4"])
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["num_classes"] == 3
    Path("run/summary.json").write_text(json.dumps({"command": "tapetum", "num_classes": 1}))
    assert [finding["rule"] for finding in tapetum.doctor("run")["findings"]] == ["one_class"]


def test_mistakes_are_one_sentence(recipe):
    with pytest.raises(ValueError, match=r"nowhere is no run folder"):
        tapetum.doctor("nowhere")
    tapetum.train(recipe, "run", ["trainer.steps=2"])
    Path("run/metrics.csv").unlink()
    with pytest.raises(ValueError, match=r"run/metrics.csv has no row yet: wait for step 2\."):
        tapetum.doctor("run")
