"""Going on with a run that was stopped, or that is finished."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_files import CHECKPOINTS, assert_same_weights, files, rows, sentence

import tapetum
from tapetum.recipe.recipe import dump_recipe


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


def test_a_run_that_stops_before_it_sees_unlabelled_images_goes_on_to_the_same_end(recipe):
    tapetum.train(recipe, "whole", ["method.paws_start=0.7", "optimizer.lr.hold=0.5", "trainer.log_every=1"])
    assert [row["train/cross_entropy"] != "" for row in rows("whole")] == 4 * [False] + 2 * [True]
    shutil.copytree("whole", "run")
    Path("run/checkpoints", CHECKPOINTS[1]).unlink()
    Path("run/summary.json").unlink()
    tapetum.resume("run")
    assert_same_weights("run", "whole")
    assert rows("run") == rows("whole")


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


def test_a_checkpoint_with_changed_bits_gives_way_to_the_one_before(run, capsys):
    whole = shutil.copytree(run, "whole")
    last = run / "checkpoints" / CHECKPOINTS[1]
    content = last.read_bytes()
    last.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    tapetum.report(run)
    error = capsys.readouterr().err
    assert f"{CHECKPOINTS[1]} has its whole length, but bits of it have changed since it was written" in error
    assert "Going back to the checkpoint before it." in error
    tapetum.resume(run)
    assert_same_weights(run, whole)
    assert rows(run) == rows(whole)


def test_a_tuned_network_of_timm_is_compared_with_its_published_weights(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr("tapetum.verbs.resume.assemble", lambda recipe, weights: recipe)
    monkeypatch.setattr("tapetum.verbs.resume.finish", lambda run, folder, inexact: {})
    compare = lambda folder, weights, plugins: compared.append(weights) or {"beside_neighbours": {}}  # noqa: E731
    monkeypatch.setattr("tapetum.verbs.resume.compare_with_start", compare)
    backbone = "backbone={kind: timm, name: resnet10t.c3_in1k, pretrained: true}"
    recipe = tapetum.load_recipe("paws_digits", ["method={kind: finetune}", backbone, "data.test=null"])
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert tapetum.resume(tmp_path) == {"beside_neighbours": {}}
    assert compared == ["timm:resnet10t.c3_in1k"]
