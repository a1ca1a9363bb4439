import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tapetum.ops.intervals import wilson
from tapetum.recipe.recipe import load_recipe
from tapetum.runs import folds as folded_accuracy
from tapetum.system.interruption import Interrupted
from tapetum.verbs.fit import fit
from tapetum.verbs.resume import resume

QUICK = ["data.batch_size=8", "support.images_per_class=2", "runtime.threads=1"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    pixels = np.random.default_rng(0).integers(0, 120, (36, 20, 20, 3))
    pixels[np.arange(36), :, :, np.arange(36) % 3] += 100
    np.savez("images.npz", x=pixels.astype(np.uint8), y=np.where(np.arange(36) < 12, np.arange(36) % 3, -1))
    yield
    torch.set_num_threads(threads)


def folded(output="run", **arguments):
    given = {"images": "images.npz", "labels": None, "output": output, "steps": 8, "folds": 3, "overrides": QUICK}
    return fit(**given | arguments)


def weights(run):
    return load_file(Path(run, "checkpoints", "step-00000004.safetensors"))


def test_every_label_measures_once_and_trains_the_model(capsys):
    summary = folded()
    said = capsys.readouterr().out
    judged = summary["folds"]
    assert (summary["steps"], summary["num_labels"], judged["count"]) == (4, 12, 12)
    assert summary["folds_top1"] == pytest.approx(100 * judged["right"] / 12)
    assert summary["folds_interval"] == pytest.approx(wilson(judged["right"], 12))
    low, high = summary["folds_interval"]
    reach = f"95% interval {low:.1f} to {high:.1f}%, each of 12 labels predicted once"
    assert f"Accuracy of 3 short runs on held-out labels: {summary['folds_top1']:.2f}% ({reach})" in said
    assert "No accuracy" not in said
    assert "heldout_top1" not in summary
    parts = [json.loads(Path(f"run/folds/{i}-of-3/summary.json").read_text()) for i in (1, 2, 3)]
    assert [part["heldout"]["soft_neighbours"]["count"] for part in parts] == [4, 4, 4]
    assert [(part["steps"], part["num_labels"]) for part in parts] == [(1, 8)] * 3
    assert judged["top1"] == [part["heldout_top1"] for part in parts]
    assert round(sum(part["heldout_top1"] for part in parts) / 3, 6) == round(summary["folds_top1"], 6)
    final, part = (load_recipe(f"{run}/recipe.yaml") for run in ("run", "run/folds/2-of-3"))
    assert (final.data.folds, final.data.fold, part.data.fold) == (3, None, 1)
    assert part.optimizer.lr.warmup_epochs == pytest.approx(final.optimizer.lr.warmup_epochs / 3)


def test_all_that_a_recipe_counts_in_steps_or_epochs_is_shortened():
    short = ["data.folds=4", "data.held_out_per_class=null", "trainer.steps=80"]
    decay = "optimizer.weight_decay_schedule={peak: 1e-4, warmup_epochs: 2}"
    stepped = load_recipe("finetune_imagenet_10percent_after_swav", [*short, decay])
    part = folded_accuracy._recipe_of(stepped, 0)
    assert (part.trainer.steps, part.optimizer.lr.milestones) == (20, (3, 4))
    assert part.optimizer.weight_decay_schedule.warmup_epochs == 0.5
    swav = folded_accuracy._recipe_of(load_recipe("swav_imagenet_bs256_200ep", short), 1).method
    assert (swav.freeze_steps, swav.queue_start_epoch) == (1251, 3)
    suncet = load_recipe("suncet_imagenet_10percent", short)
    assert folded_accuracy._recipe_of(suncet, 2).method.supervised_epochs == 25


@pytest.mark.parametrize("stop", [Interrupted(0, "stopped"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_stopped_between_folds_it_goes_on_and_ends_the_same(monkeypatch, capsys, stop):
    undisturbed = folded("undisturbed")
    assemble, calls = folded_accuracy.assemble, []

    def stopping(recipe, **options):
        calls.append(recipe.data.fold)
        if len(calls) == 2:
            raise stop
        return assemble(recipe, **options)

    monkeypatch.setattr(folded_accuracy, "assemble", stopping)
    with pytest.raises(OSError if isinstance(stop, OSError) else Interrupted):
        folded()
    if isinstance(stop, KeyboardInterrupt):
        assert "Continue from what is saved with: tapetum resume run\n" in capsys.readouterr().err
    summary = resume("run")
    assert calls == [0, 1, 1, 2]  # the finished one is not trained again
    assert summary["folds"] == undisturbed["folds"]
    one, other = weights("run"), weights("undisturbed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_short_runs_change_no_weight_of_the_model():
    folded()
    plain = fit(
        images="images.npz", labels=None, output="plain", steps=4, overrides=[*QUICK, "data.held_out_share=null"]
    )
    assert plain["num_labels"] == 12
    one, other = weights("run"), weights("plain")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_ctrl_c_in_a_fold_names_the_run_to_resume(capsys, monkeypatch):
    from tapetum.engine.trainer import Trainer

    monkeypatch.setattr(Trainer, "_is_asked_to_stop", lambda self, reads: self.state.step == 1)
    with pytest.raises(Interrupted):
        folded(steps=16)
    assert "Saved step 1. Continue with: tapetum resume run\n" in capsys.readouterr().err


def test_they_are_offered_where_too_few_labels_can_be_spared(capsys):
    fit(images="images.npz", labels=None, output="few", steps=2, labels_per_class=2, overrides=QUICK)
    said = capsys.readouterr().out
    assert "needs --test or --folds 2" in said
    shutil.rmtree("few")
    fit(images="images.npz", labels=None, output="few", steps=2, labels_per_class=1, overrides=QUICK)
    said = capsys.readouterr().out
    assert "--folds" not in said
    fit(images="images.npz", labels=None, output="some", steps=2, overrides=QUICK)
    assert re.search(r"held out +3 labels .*--folds 5 measures with all labels", capsys.readouterr().out)


def test_two_labels_a_class_can_be_folded():
    summary = folded(folds=2, labels_per_class=2)
    assert (summary["num_labels"], summary["folds"]["count"]) == (6, 6)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"folds": 1}, "folds is 1: use 2 or more"),
        ({"folds": 13}, "folds is 13, but just 12 labels can be held out: use at most 12"),
        ({"labels_per_class": 1}, "folds is 3, but just 0 labels can be held out: label at least two"),
        ({"overrides": ["data.held_out_share=0.2"]}, "folds is 3: use 2 or more, and set held_out_share"),
        ({"overrides": ["data.fold=3"]}, "fold is 3: use null, or a number from 0 to folds - 1"),
        ({"overrides": ["runtime.devices=2"]}, "data.folds is 3, for which runtime.devices must be 1"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        folded(**arguments)
    assert not Path("run/recipe.yaml").exists()
