"""Run folders and images that are moved, renamed or copied: nothing is lost, and every bit stays."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_files import CHECKPOINTS, assert_same_weights, rows, sentence

import tapetum

NEW = "elsewhere/colours.npz"


def stop(run: str | Path) -> None:
    """Make of a finished run one that was killed after its first checkpoint."""
    Path(run, "checkpoints", CHECKPOINTS[1]).unlink()
    Path(run, "summary.json").unlink()


@pytest.fixture
def moved(run: Path) -> Path:
    """A finished run whose images are somewhere else now."""
    Path(NEW).parent.mkdir()
    Path("colours.npz").rename(NEW)
    return Path("run")


def test_a_copy_that_was_moved_goes_on_to_the_same_bits_beside_the_other(run, monkeypatch, tmp_path):
    whole = shutil.copytree(run, "whole")
    stop(run)
    deep = tmp_path / "far" / "away"
    shutil.copytree(run, deep)
    shutil.copytree(run, "renamed")
    for copy in ("renamed", deep, run):
        tapetum.resume(copy)
        assert_same_weights(copy, whole)
        assert rows(copy) == rows(whole)


def test_images_that_have_moved_are_asked_for_and_remembered(moved):
    whole = shutil.copytree(moved, "whole")
    stop(moved)
    with pytest.raises(ValueError, match=r"the images of run are not at colours.npz .*--images DIR") as error:
        tapetum.resume(moved)
    sentence(error)
    tapetum.resume(moved, images=NEW)  # which hold the test images, too
    assert_same_weights(moved, whole)
    assert rows(moved) == rows(whole)
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["test"] == json.loads(Path("whole/summary.json").read_text())["test"]
    tapetum.report(moved)  # no longer asks


def test_other_images_in_the_new_place_change_nothing(moved):
    stop(moved)
    recipe = Path("run/recipe.yaml").read_text()
    arrays = dict(np.load(NEW))
    np.savez("other.npz", **(arrays | {"x_train": arrays["x_train"] ^ 1}))
    with pytest.raises(ValueError, match=r"would not give the bits .*data: was"):
        tapetum.resume(moved, images="other.npz", test=NEW)
    with pytest.raises(ValueError, match=r"other.npz does not hold the images that run was trained on .*then .*now"):
        tapetum.predict(moved, NEW, "p.csv", run_images="other.npz")
    assert Path("run/recipe.yaml").read_text() == recipe


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_verb_finds_images_that_have_moved(run, capsys):
    shutil.copy("colours.npz", "pool.npz")
    tapetum.predict(run, "pool.npz", "before.csv")
    before = tapetum.evaluate(run)
    shutil.copytree(run, "whole")
    Path(NEW).parent.mkdir()
    Path("colours.npz").rename(NEW)
    with pytest.raises(ValueError, match=r"the images of run are not at colours.npz .*--images DIR"):
        tapetum.predict("run", "pool.npz", "after.csv")
    tapetum.predict("run", "pool.npz", "after.csv", run_images=NEW)
    assert table("after.csv") == table("before.csv")
    tapetum.embed("run", "pool.npz", "after.npz", run_images=NEW)
    tapetum.review("run", "second", images=NEW)
    tapetum.suggest("run", 3, "next.csv", images=NEW)
    tapetum.export("run", "model.safetensors", "safetensors", images=NEW)
    tapetum.report("run", "page.html", images=NEW)
    after = tapetum.evaluate("run", NEW, images=NEW)
    assert after.as_dict() == before.as_dict()
    assert json.loads(Path("run/summary.json").read_text())["test_images"] == NEW, "it is the usual evaluation"


def test_labels_that_a_run_held_out_stay_so_when_its_images_have_moved(run):
    arrays = dict(np.load("colours.npz"))
    np.savez("others.npz", **(arrays | {"x_train": arrays["x_train"] ^ 1}))
    Path(NEW).parent.mkdir()
    Path("colours.npz").rename(NEW)
    summary = tapetum.finetune(run, "tuned", NEW, test=NEW, overrides=["trainer.steps=1"])
    assert summary["heldout"]["classifier"]["count"] == summary["beside_neighbours"]["count"] == 12
    assert "heldout" not in tapetum.finetune(run, "other", "others.npz", test=NEW, overrides=["trainer.steps=1"])


def test_what_was_passed_in_memory_moves_with_the_run(recipe):
    arrays = dict(np.load("colours.npz"))
    known = np.where(np.arange(60) < 30, arrays["y_train"], -1)
    steps = ["data.batch_size=8", "runtime.threads=1", "trainer.checkpoint_every=2"]
    tapetum.fit(arrays["x_train"], known, "run", steps=4, overrides=steps)
    Path("run").rename("renamed")
    whole = shutil.copytree("renamed", "whole")
    Path("renamed/checkpoints/step-00000004.safetensors").unlink()
    Path("renamed/summary.json").unlink()
    tapetum.resume("renamed")
    assert_same_weights("renamed", whole)
    tapetum.report("whole")


def test_a_fold_finds_the_images_of_its_run(recipe):
    tapetum.train(recipe, "run", ["data.folds=2", "data.held_out_per_class=null", "data.test=null"])
    Path("colours.npz").rename("moved.npz")
    found = tapetum.review("run", "second", images="moved.npz")
    assert "short runs" in found["basis"]
