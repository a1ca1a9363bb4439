"""train on images that take a second: what it leaves on disk, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_files import CHECKPOINTS, assert_same_weights, checkpoints, files, rows, sentence, weights

import tapetum
from tapetum.ops.intervals import wilson
from tapetum.recipe.recipe import load_recipe
from tapetum.runs import run as run_module
from tapetum.runs.run_folder import read_summary


def test_what_a_run_leaves(recipe, capsys):
    summary = tapetum.train(recipe, "runs/first", ["seed=2"])
    folder = Path("runs/first")
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "metrics.csv",
        "recipe.yaml",
        "summary.json",
    ]
    assert checkpoints(folder) == CHECKPOINTS
    assert json.loads((folder / "summary.json").read_text()) == summary
    table = rows(folder)
    assert [row["step"] for row in table] == list("123456")
    assert {"train/loss", "train/cross_entropy", "train/supervised", "lr", "images_seen"} <= table[0].keys()
    assert [bool(row["eval/soft_nn_top1"]) for row in table] == [False] * 5 + [True]
    output = capsys.readouterr().out
    assert "Accuracy on test images" in output
    assert output.splitlines()[-1] == "Next: tapetum report runs/first"


def test_the_summary(run):
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["method"], summary["steps"], summary["images_seen"]) == ("paws", 6, 48)
    assert (summary["num_labels"], summary["num_images"], summary["skipped_steps"]) == (9, 60 - 12, [])
    assert summary["train_seconds"] > 0
    assert summary["peak_memory_mb"] > 50
    assert summary["versions"].keys() == {"tapetum", "python", "torch"}
    assert summary["machine"]["threads"] == 1
    assert isinstance(summary["command"], str)
    for part, count in (("test", 30), ("heldout", 12)):
        judged = summary[part]["soft_neighbours"]
        assert judged["count"] == count
        assert judged["per_class"].keys() == {"0", "1", "2"}
        assert summary[f"{part}_top1"] == judged["top1"]
        assert judged["top5"] == 100
        assert summary[part]["classifier"]["count"] == count
    top1 = summary["heldout_top1"]
    assert summary["heldout_interval"] == pytest.approx(wilson(round(12 * top1 / 100), 12))
    assert summary["test_top1"] > 50  # colours are easy


def test_the_recipe_is_resolved_and_loads_back(recipe, run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what null takes at most
    asked, resolved = load_recipe(recipe), load_recipe(run / "recipe.yaml")
    assert resolved == asked  # it had nothing left to resolve
    tapetum.train(recipe, "epochs", ["trainer.steps=null", "trainer.epochs=1.5", "runtime.threads=null"])
    resolved = load_recipe("epochs/recipe.yaml")
    assert (resolved.trainer.steps, resolved.trainer.epochs, resolved.runtime.threads) == (9, None, 1)
    assert len(rows("epochs")) == 9
    tapetum.train(resolved, "again")
    assert (Path("again") / "recipe.yaml").read_bytes() == Path("epochs/recipe.yaml").read_bytes()
    assert_same_weights("epochs", "again")


def test_one_recipe_gives_one_result(recipe, run):
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 (whatever others do with it must not matter)
    tapetum.train(recipe, "again", ["data.workers=1", "trainer.log_every=1"])
    assert_same_weights(run, "again")
    assert rows(run) == rows("again")
    tapetum.train(recipe, "other", ["seed=1"])
    name = "method.projector.fc1.weight"
    assert not torch.equal(weights(run)[name], weights("other")[name])


def test_supervised_baseline(recipe):
    changes = ["method={kind: supervised}", "data.held_out_per_class=null"]
    summary = tapetum.train(recipe, "baseline", changes)
    assert summary["method"] == "supervised"
    assert summary["test_top1"] == summary["test"]["classifier"]["top1"]
    assert summary["images_seen"] == 6 * 6
    assert "heldout" not in summary
    assert "eval/soft_nn_top1" not in rows("baseline")[-1]


def test_cutting_the_pool_to_the_labelled_images(recipe):
    summary = tapetum.train(recipe, "cut", ["data.pool=false"])
    assert (summary["num_images"], summary["num_labels"]) == (9, 9)


@pytest.mark.parametrize(
    ("changes", "count", "left"),
    [
        ([], 12, 9),
        (["data.held_out_per_class=null", "data.held_out_share=0.2"], 3, 6),  # of the 9 that training may know
        (["data.held_out_per_class=null", "data.held_out_share=0.2", "data.labels_per_class=null"], 12, 48),
    ],
)
def test_held_out_images_are_in_no_batch(recipe, changes, count, left):
    from tapetum.runs.run import assemble

    parts = assemble(load_recipe(recipe, changes))
    kept_out = set(parts.data.held_out.labelled.tolist())
    assert (len(kept_out), len(parts.data.labels.labelled)) == (count, left)
    assert not kept_out & set(parts.data.pool.tolist())
    assert not kept_out & set(parts.data.labels.labelled.tolist())
    assert not kept_out & {int(i) for number in range(12) for i in parts.pipeline.sampler.draw(number).indices}
    seen = [int(i) for batch in parts.batches(0, 12) for i in batch.index]
    assert set(seen) <= set(parts.data.pool.tolist())


def test_accumulated_batches_are_a_steps_own(recipe):
    from tapetum.runs.run import assemble

    single = assemble(load_recipe(recipe))
    double = assemble(load_recipe(recipe, ["trainer.accumulate=2"]))
    assert (single.steps_per_epoch, double.steps_per_epoch) == (6, 3)
    ours, theirs = list(single.batches(2, 6)), list(double.batches(1, 3))
    assert all(torch.equal(a.index, b.index) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("accumulate", "told"), [(2, []), (4, ["an epoch is 4 batches here."])])
def test_an_epoch_that_accumulation_shortens_is_told(recipe, capsys, accumulate, told):
    from tapetum.runs.run import assemble

    length = ["trainer.steps=null", "trainer.epochs=2", f"trainer.accumulate={accumulate}"]
    assemble(load_recipe(recipe, length)).resolve()
    errors = capsys.readouterr().err
    assert [line[-len(told[0]) :] for line in errors.splitlines() if "does not divide the 6 batches" in line] == told


def test_a_folder_that_is_not_empty_is_refused_untouched(recipe, run):
    before = files(run)
    with pytest.raises(ValueError, match=r"is not empty: continue the run with `tapetum resume") as error:
        tapetum.train(recipe, run)
    sentence(error)
    assert files(run) == before
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"^mine is not empty: give another --output"):
        tapetum.train(recipe, "mine")
    with pytest.raises(ValueError, match="is a file: give a new folder as --output"):
        tapetum.train(recipe, "mine/thesis.txt")
    assert files(Path("mine")) == {"thesis.txt": b"years of work"}
    Path("mine/thesis.txt").rename("mine/summary.json")  # a name that a run's file has, too
    with pytest.raises(ValueError, match=r"^mine is not empty: give another --output"):
        tapetum.train(recipe, "mine")
    assert files(Path("mine")) == {"summary.json": b"years of work"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.images=null"], "data.images is not set"),
        (["data.images=nowhere"], "there is nothing at nowhere"),
        (["data.test=nowhere"], "there is nothing at nowhere"),
        (["data.test=grey.npz"], "the images to evaluate have 1 channels but views.mean has 3 numbers"),
        (["data.test=classes.npz"], "class '5' is not among the 3 classes trained on"),
        (["data.batch_size=49"], "batch_size is 49, but the pool has only 48 images"),
        (["data.labels_per_class=20"], "has 16 labelled images, fewer than the 20 requested labels per class"),
        (["views.evaluation.crop=12"], "views.evaluation.crop is 12 but an image is 10 pixels wide or high"),
        (["views.evaluation.scales=[]"], "views.evaluation.scales is \\(\\): give one factor or more, each above 0"),
        (["views.evaluation.scales=[75, 100]"], "views.evaluation.scales is \\(75.0, 100.0\\): give one .* at most 4"),
        (
            ["views.evaluation.scales=[1.0, 0.1]"],
            "views.evaluation.scales: 0.1 of crop is 1, which the backbone cannot",
        ),
        (["views.large.count=1"], "views.large.count is 1 but paws compares 2 large views of each image: set it to 2"),
        (["views.large.count=3"], "views.large.count is 3"),
        (["support.classes_per_batch=4"], "classes_per_batch is 4 over all processes, but there are only 3 classes"),
    ],
)
def test_what_does_not_fit_is_said_before_training(recipe, changes, message):
    grey, other = (np.zeros((6, channels, 10, 10), np.uint8) for channels in (1, 3))
    np.savez("grey.npz", x=grey, y=np.arange(6) % 3)
    np.savez("classes.npz", x=other, y=np.arange(6) % 3 + 5)
    with pytest.raises(ValueError, match=message) as error:
        tapetum.train(recipe, "run", changes)
    sentence(error)
    assert files(Path("run")) == {}
    assert tapetum.train(recipe, "run")["steps"] == 6  # the folder is still fit for use


PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar, Literal

from tapetum.methods.registry import register
from tapetum.methods.supervised import Supervised, SupervisedConfig


@dataclass(frozen=True, kw_only=True)
class Config(SupervisedConfig):
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}
    kind: Literal["mine"] = "mine"


@register
class Mine(Supervised):
    Config = Config
"""


def test_every_verb_that_reads_a_recipe_takes_plugins(recipe, tmp_path, monkeypatch, capsys):
    (tmp_path / "colour_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def in_another_process() -> None:
        monkeypatch.setattr("tapetum.methods.registry._registered", {})
        monkeypatch.delitem(sys.modules, "colour_plugin", raising=False)

    changes = ["method={kind: mine}", "data.held_out_per_class=null"]
    in_another_process()
    assert tapetum.train(recipe, "run", changes, ["colour_plugin"])["method"] == "mine"
    in_another_process()
    with pytest.raises(ValueError, match=r"'mine' is no known method.*--plugin"):
        tapetum.resume("run")
    assert tapetum.resume("run", plugins=["colour_plugin"])["method"] == "mine"
    in_another_process()
    assert tapetum.evaluate("run", "colours.npz", plugins=["colour_plugin"]).predicts_by == "classifier"
    in_another_process()
    assert tapetum.views("run/recipe.yaml", "sheet.png", plugins=["colour_plugin"]).is_file()
    in_another_process()
    capsys.readouterr()
    tapetum.recipes(fields="mine", plugins=["colour_plugin"])
    assert capsys.readouterr().out.startswith("method: {kind: mine}")
    in_another_process()
    quick = ["method.kind=mine", "data.batch_size=8", "support.images_per_class=2"]
    fitted = tapetum.fit("colours.npz", None, "fitted", steps=2, overrides=quick, plugins=["colour_plugin"])
    assert fitted["method"] == "mine"


def test_labels_that_trained_the_weights_to_start_from_are_counted(recipe, capfd):
    """Accuracy on them says less about new images, so it never stands alone."""
    data = ["data.test=null", "data.labels_per_class=null", "trainer.steps=2"]
    tapetum.train(recipe, "first", [*data, "data.held_out_per_class=null"])
    tapetum.train(recipe, "second", [*data, "init=first", "data.held_out_per_class=4"])
    assert read_summary(Path("second"))["known_to_start"] == 12
    said = capfd.readouterr()
    assert "12 of the labels that accuracy is measured on trained first, where this run starts" in said.err
    assert "12 of these labels trained first, where this run started: expect less on new images" in said.out
    assert "12 of which trained first" in tapetum.report("second").read_text()
    tapetum.train(recipe, "third", [*data, "init=second", "data.held_out_per_class=4"])
    assert read_summary(Path("third"))["known_to_start"] == 12  # by way of the second
    tapetum.train(recipe, "alone", [*data, "data.held_out_per_class=4"])
    tapetum.train(recipe, "like_it", [*data, "init=alone", "data.held_out_per_class=4"])
    assert "known_to_start" not in read_summary(Path("like_it"))  # the same labels are held out again
    shutil.rmtree("second")
    shutil.move("third", "second")  # whose recipe now says that it started from itself
    tapetum.train(recipe, "fourth", [*data, "init=second", "data.held_out_per_class=4"])
    assert "known_to_start" not in read_summary(Path("fourth"))  # held out by it, too; what came before it is gone


def test_test_images_that_trained_the_weights_to_start_from_are_refused(recipe):
    """Whoever starts from a run has seen what it has seen."""
    images, labels = np.load("colours.npz")["x_train"], np.load("colours.npz")["y_train"]
    for i, (image, label) in enumerate(zip(images, labels)):
        Path("mine", str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(f"mine/{label}/{i}.png")
    data = ["data.labels_per_class=null", "data.held_out_per_class=null", "trainer.steps=2"]
    tapetum.train(recipe, "first", [*data, "data.images=mine", "data.test=null"])
    with pytest.raises(ValueError, match=r"test is mine, but 60 of its images, such as .*, have labels that train"):
        tapetum.train(recipe, "second", [*data, "data.images=colours.npz", "init=first", "data.test=mine"])
    assert not Path("second").exists()


def test_processes_that_see_other_images_are_refused(recipe, monkeypatch):
    data = run_module.assemble(load_recipe(recipe)).data
    other = data.fingerprint | {"pool": "59 images (0)"}
    monkeypatch.setattr("tapetum.runs.run.gather_on_all", lambda own: [own, own, other])
    with pytest.raises(
        ValueError, match=r"^process 2 sees other images .* \(pool: was 48 images .*, is 59 images \(0\)\)"
    ):
        run_module._check_all_see(data)
