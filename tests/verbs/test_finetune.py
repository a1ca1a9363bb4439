"""Fine-tune a run or a file, and compare it with its neighbours before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tapetum
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.recipe.recipe import load_recipe
from tapetum.runs.trained_run import open_trained_run
from tapetum.runs.tuning import tuning_recipe
from tapetum.verbs.finetune import compare_with_start


def test_a_run_becomes_a_classifier_and_is_compared(run, capsys):
    before = open_trained_run(run)
    capsys.readouterr()
    summary = tapetum.finetune(run, "tuned", overrides=["trainer.steps=30"])
    recipe = load_recipe("tuned/recipe.yaml")
    assert (recipe.method.kind, recipe.init, recipe.data) == ("finetune", str(run), before.parts.recipe.data)
    assert (recipe.support.batch_size, recipe.views.large.brightness, recipe.views.small) == (9, 0.0, None)
    beside = summary["beside_neighbours"]
    assert json.loads(Path("tuned/summary.json").read_text())["beside_neighbours"] == beside
    assert beside["count"] == len(before.held_out.labelled)
    assert beside["second"] == pytest.approx(summary["heldout_top1"])
    earlier = before.evaluate(before.parts.data.store, before.held_out)
    assert beside["first"] == pytest.approx(earlier.soft_neighbours.top1)
    said = capsys.readouterr().out
    assert f"the classifier ({beside['second']:.2f}%) is " in said
    assert said.splitlines()[-1].startswith("Next: tapetum export tuned ")
    assert tapetum.predict("tuned", "colours.npz", "p.csv")["images"] == 30


def test_images_that_were_added_to_the_run_are_said_to_be_left_out(run, capsys, monkeypatch):
    monkeypatch.setattr("tapetum.runs.tuning.added_labels", lambda folder: ["heron"] if folder == Path(run) else [])
    tuning_recipe(open_trained_run(run).parts.recipe, "finetune", run)
    assert "images of heron were added to" in capsys.readouterr().err


def test_a_run_is_compared_on_other_images_also_where_its_own_are_gone(run, capsys):
    arrays = dict(np.load("colours.npz"))
    order = {"x_train": slice(None, None, -1), "y_train": slice(None, None, -1)}
    np.savez("others.npz", **{name: array[order.get(name, ...)] for name, array in arrays.items()})

    def first(images, output):
        settings = ["trainer.steps=1", "data.held_out_per_class=null"]  # judged by the test images of both
        summary = tapetum.finetune(run, output, images, test="colours.npz", overrides=settings)
        return summary["beside_neighbours"]["first"]

    before = first("colours.npz", "same")
    assert first("others.npz", "others") == before
    Path("colours.npz").rename("test.npz")
    summary = tapetum.finetune(run, "gone", "others.npz", test="test.npz", overrides=["trainer.steps=1"])
    assert summary["beside_neighbours"]["first"] == before
    assert compare_with_start(Path("gone"), "nowhere.pth") == {}
    assert "not compared with the weights that it started from: " in capsys.readouterr().err


def test_a_file_becomes_a_classifier_of_other_images(run):
    weights = {k.removeprefix("method."): v for k, v in read_weights(run).items() if k.startswith("method.backbone")}
    save_file(weights, "backbone.safetensors")
    summary = tapetum.finetune("backbone.safetensors", "tuned", "colours.npz", overrides=["trainer.steps=3"])
    assert summary["beside_neighbours"]["count"] == 12  # a fifth of the labels of each class
    assert load_recipe("tuned/recipe.yaml").backbone.widths == (8, 8)
    with pytest.raises(ValueError, match="is no run, which would know its images: give images, and labels for them"):
        tapetum.finetune("backbone.safetensors", "again")
    assert not Path("again").exists()


def test_without_labels_to_judge_by_nothing_is_compared(recipe):
    tapetum.train(recipe, "run", ["data.held_out_per_class=null", "data.test=null"])
    summary = tapetum.finetune("run", "tuned", overrides=["trainer.steps=2"])
    assert "beside_neighbours" not in summary


def test_other_labels_of_a_run_without_any(recipe):
    tapetum.train(recipe, "run", ["method={kind: swav, num_prototypes: [4], head: {hidden: 8, output: 4, layers: 2}}"])
    summary = tapetum.finetune("run", "tuned", labels_per_class=5, overrides=["trainer.steps=2", "seed=3"])
    assert summary["num_labels"] == 15
    assert "heldout" not in summary  # another draw of held-out labels could hold some that have trained the run
    start = read_weights("tuned")
    assert torch.isfinite(start["method.classifier.weight"]).all()
