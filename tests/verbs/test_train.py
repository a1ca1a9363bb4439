"""train, resume and evaluate on images that take a second: what they leave on disk, and what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import tapetum
from tapetum.data.sources import open_source
from tapetum.evaluation.intervals import wilson
from tapetum.recipe import load_recipe

CHECKPOINTS = ["step-00000003.safetensors", "step-00000006.safetensors"]


def checkpoints(run: str | Path) -> list[str]:
    return sorted(path.name for path in (Path(run) / "checkpoints").iterdir())


def weights(run: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "checkpoints" / checkpoints(run)[-1])


def assert_same_weights(left: str | Path, right: str | Path) -> None:
    ours, theirs = weights(left), weights(right)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def rows(run: str | Path) -> list[dict[str, str]]:
    """metrics.csv without the columns of time."""
    with (Path(run) / "metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name not in ("train_seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sentence(error: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.fixture
def run(recipe: Path) -> Path:
    tapetum.train(recipe, "run")
    return recipe.parent / "run"


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
    assert summary["versions"].keys() == {"tapetum", "python", "torch", "torchvision"}
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
    from tapetum.assembly import assemble

    parts = assemble(load_recipe(recipe, changes))
    kept_out = set(parts.data.held_out.labelled.tolist())
    assert (len(kept_out), len(parts.data.labels.labelled)) == (count, left)
    assert not kept_out & set(parts.data.pool.tolist())
    assert not kept_out & set(parts.data.labels.labelled.tolist())
    assert not kept_out & {int(i) for number in range(12) for i in parts.pipeline.sampler.draw(number).indices}
    seen = [int(i) for batch in parts.batches(0, 12) for i in batch.index]
    assert set(seen) <= set(parts.data.pool.tolist())


def test_accumulated_batches_are_a_steps_own(recipe):
    from tapetum.assembly import assemble

    single = assemble(load_recipe(recipe))
    double = assemble(load_recipe(recipe, ["trainer.accumulate=2"]))
    assert (single.steps_per_epoch, double.steps_per_epoch) == (6, 3)
    ours, theirs = list(single.batches(2, 6)), list(double.batches(1, 3))
    assert all(torch.equal(a.index, b.index) for a, b in zip(ours, theirs, strict=True))


def test_evaluate_adds_to_the_summary(run, capsys):
    before = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({k: v for k, v in before.items() if not k.startswith("test")}))
    capsys.readouterr()
    evaluation = tapetum.evaluate(run, "colours.npz")
    after = json.loads((run / "summary.json").read_text())
    assert after == before  # the same images, so the very same figures
    assert evaluation.soft_neighbours.top1 == before["test"]["soft_neighbours"]["top1"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"Soft nearest neighbours: top-1 {evaluation.soft_neighbours.top1:.2f}%, top-5 100.00% of 30 images"
    )
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert lines[4].startswith("The method's own classifier: top-1 ")
    assert lines[-1].startswith("Next: tapetum report ")


def test_evaluate_by_nearest_neighbours(run, capsys):
    capsys.readouterr()
    evaluation = tapetum.evaluate(run, "colours.npz", protocol="knn")
    lines = capsys.readouterr().out.splitlines()
    top1 = [evaluation.nearest_neighbours[count].top1 for count in (20, 200)]
    assert lines[0] == f"20 nearest neighbours: top-1 {top1[0]:.2f}%, top-5 100.00% of 30 images"
    assert lines[4] == f"200 nearest neighbours: top-1 {top1[1]:.2f}%, top-5 100.00% of 30 images"
    found = json.loads((run / "summary.json").read_text())["test"]["nearest_neighbours"]
    assert [found[count]["top1"] for count in ("20", "200")] == top1
    assert rows(run)[-1]["eval/knn_top1"]
    with pytest.raises(ValueError, match="protocol is 'linear': choose one of soft_nn, knn"):
        tapetum.evaluate(run, "colours.npz", protocol="linear")


def test_evaluate_on_a_folder_per_class(run):
    images = open_source("colours.npz", split="test")
    for i, image in enumerate(images.store.read(np.arange(6))):
        folder = Path("photos") / str(images.labels.values[i])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy().transpose(1, 2, 0)).save(folder / f"{i}.png")
    evaluation = tapetum.evaluate(run, "photos")
    assert evaluation.soft_neighbours.count == 6
    assert json.loads((run / "summary.json").read_text())["test_images"] == "photos"


def test_evaluating_an_unfinished_run_leaves_no_summary(run):
    (run / "checkpoints" / CHECKPOINTS[1]).unlink()
    (run / "summary.json").unlink()
    assert tapetum.evaluate(run, "colours.npz").soft_neighbours.count == 30
    assert not (run / "summary.json").exists()


def test_resuming_a_finished_run_judges_it_again(run):
    tapetum.evaluate(run, "colours.npz")
    before = files(run)
    summary = tapetum.resume(run)
    after = files(run)
    changed = {name for name in before if before[name] != after[name]}
    assert after.keys() == before.keys()
    assert changed <= {"summary.json"}
    clocks = ("peak_memory_mb",)
    earlier = json.loads(before["summary.json"])
    assert {k: v for k, v in summary.items() if k not in clocks} == {
        k: v for k, v in earlier.items() if k not in clocks
    }


def test_resuming_keeps_what_evaluate_found(recipe):
    tapetum.train(recipe, "run", ["data.test=null"])
    evaluation = tapetum.evaluate("run", "colours.npz")
    summary = tapetum.resume("run")
    assert summary["test_top1"] == evaluation.headline.top1
    assert json.loads(Path("run/summary.json").read_text()) == summary


@pytest.mark.parametrize("left", [[CHECKPOINTS[0]], []])
def test_a_stopped_run_goes_on_to_the_same_end(run, left):
    whole = shutil.copytree(run, "whole")
    for name in set(CHECKPOINTS) - set(left):
        (run / "checkpoints" / name).unlink()
    (run / "summary.json").unlink()
    tapetum.resume(run)
    assert_same_weights(run, whole)
    assert rows(run) == rows(whole)
    ours, theirs = (json.loads((Path(r) / "summary.json").read_text()) for r in (run, whole))
    assert ours["test"] == theirs["test"]
    assert ours["images_seen"] == theirs["images_seen"] == 48


def test_a_folder_that_is_not_empty_is_refused_untouched(recipe, run):
    before = files(run)
    with pytest.raises(ValueError, match=r"is not empty: go on with it by `tapetum resume") as error:
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


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_what_is_no_run_is_said(recipe, verb):
    Path("mine").mkdir()
    for folder in ("mine", "nowhere"):
        with pytest.raises(ValueError, match=f"^{folder} is no run folder") as error:
            call(verb, folder)
        sentence(error)


def call(verb: str, run: str | Path) -> object:
    return tapetum.resume(run) if verb == "resume" else tapetum.evaluate(run, "colours.npz")


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_truncated_checkpoints(run, verb, capsys):
    last, first = (run / "checkpoints" / name for name in reversed(CHECKPOINTS))
    whole = shutil.copytree(run, "whole")
    last.write_bytes(last.read_bytes()[:-100])
    call(verb, run)  # the one before it is taken instead
    assert "is cut short" in capsys.readouterr().err
    if verb == "resume":
        assert_same_weights(run, whole)
    for path in (first, last):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"No checkpoint in .* can be read: start the run again") as error:
        call(verb, run)
    assert str(last.parent) in sentence(error)


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_foreign_checkpoints(run, verb):
    for name in CHECKPOINTS:
        save_file({"weight": torch.zeros(2)}, run / "checkpoints" / name)
    with pytest.raises(ValueError, match="was not written by Tapetum") as error:
        call(verb, run)
    sentence(error)


def test_a_checkpoint_of_another_model(run):
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("output: 8", "output: 9"))
    with pytest.raises(ValueError, match=r"is of another model than its recipe.yaml describes") as error:
        tapetum.evaluate(run, "colours.npz")
    sentence(error)
    with pytest.raises(ValueError, match="output: was 8, is 9"):
        tapetum.resume(run)
    with pytest.raises(ValueError, match="does not fit this PAWS"):
        tapetum.resume(run, inexact=True)


def test_resuming_with_other_images_is_refused(run):
    arrays = dict(np.load("colours.npz"))
    arrays["x_train"][0] += 1
    np.savez("colours.npz", **arrays)
    with pytest.raises(ValueError, match=r"would not give the bits .*data: was .*--inexact") as error:
        tapetum.resume(run)
    sentence(error)
    assert tapetum.resume(run, inexact=True)["steps"] == 6


def test_no_checkpoint_yet(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ValueError, match="has no checkpoint yet: finish it with `tapetum resume"):
        tapetum.evaluate(run, "colours.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.images=null"], "data.images is not set"),
        (["data.images=nowhere"], "there is nothing at nowhere"),
        (["data.test=nowhere"], "there is nothing at nowhere"),
        (["data.test=grey.npz"], "the images to judge have 1 channels but views.mean has 3 numbers"),
        (["data.test=little.npz"], "views.evaluation.crop is 8 but an image is 5 pixels wide or high"),
        (["data.test=classes.npz"], "class '5' is not among the 3 classes trained on"),
        (["data.batch_size=49"], "batch_size is 49, but the pool has only 48 images"),
        (["data.labels_per_class=20"], "has 16 labelled images, fewer than the 20 labels per class asked for"),
        (["views.evaluation.crop=12"], "views.evaluation.crop is 12 but an image is 10 pixels wide or high"),
        (["views.large.count=1"], "views.large.count is 1 but paws compares 2 large views of each image: set it to 2"),
        (["views.large.count=3"], "views.large.count is 3"),
        (["support.classes_per_batch=4"], "classes_per_batch is 4 over all processes, but there are only 3 classes"),
    ],
)
def test_what_does_not_fit_is_said_before_training(recipe, changes, message):
    grey, little, other = (np.zeros((6, c, s, s), np.uint8) for c, s in ((1, 10), (3, 5), (3, 10)))
    np.savez("grey.npz", x=grey, y=np.arange(6) % 3)
    np.savez("little.npz", x=little, y=np.arange(6) % 3)
    np.savez("classes.npz", x=other, y=np.arange(6) % 3 + 5)
    with pytest.raises(ValueError, match=message) as error:
        tapetum.train(recipe, "run", changes)
    sentence(error)
    assert files(Path("run")) == {}
    assert tapetum.train(recipe, "run")["steps"] == 6  # the folder is still fit for use


def test_a_damaged_test_part_is_not_replaced_by_the_training_part(run):
    """Otherwise the accuracy on the images trained on would be reported as that on new ones."""
    for part in ("train", "test"):
        Path("photos", part, "0").mkdir(parents=True)
    for i, (image, label) in enumerate(zip(*(dict(np.load("colours.npz"))[k] for k in ("x_train", "y_train")))):
        folder = Path("photos/train", str(label))
        folder.mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i}.png")
    with pytest.raises(ValueError, match="no images in photos/test"):
        tapetum.evaluate(run, "photos")


PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar, Literal

from tapetum.methods import register
from tapetum.methods.supervised import Supervised, SupervisedConfig


@dataclass(frozen=True, kw_only=True)
class Config(SupervisedConfig):
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}
    kind: Literal["mine"] = "mine"


@register
class Mine(Supervised):
    Config = Config
"""


def test_every_verb_that_builds_the_method_takes_plugins(recipe, tmp_path, monkeypatch):
    (tmp_path / "colour_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def in_another_process() -> None:
        monkeypatch.setattr("tapetum.methods._registered", {})
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
