"""What may differ between a run and its resumption, and what happens to damaged and foreign checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tapetum.evaluation.embedding
import tapetum.methods.paws
import tapetum.runs.pool
import tapetum.runs.run
from tapetum.cli.main import main

LAST = "run/checkpoints/step-00000024.safetensors"
TRAIN = ("train", "tiny.yaml", "--output")


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code


@pytest.fixture
def stopped(runs, monkeypatch, one_thread):
    """A run `whole` and a copy `run` that was killed after step 18, both in the current folder."""
    monkeypatch.chdir(runs.folder)
    monkeypatch.setenv("TAPETUM_CACHE", str(runs.folder / "cache"))
    monkeypatch.delenv("TAPETUM_TRACEBACK", raising=False)
    runs.write()
    assert call(*TRAIN, "whole", "trainer.keep_every=6") == 0
    shutil.copytree("whole", "run")
    os.remove(LAST)
    os.remove("run/summary.json")
    return runs


def refusal(capsys):
    assert call("resume", "run") == 2
    return capsys.readouterr().err.splitlines()[-1]


def move_a_label():
    images = sorted(Path("photos/train/red").iterdir())
    images[0].rename(f"photos/train/green/was-{images[0].name}")


@pytest.mark.parametrize(
    ("change", "names", "holds_out_others"),
    [
        (lambda: shutil.copy("photos/train/red/03.jpg", "photos/train/red/99.jpg"), "data: was 60 images (", True),
        (lambda: os.remove("photos/train/blue/03.jpg"), "data: was 60 images (", False),
        (move_a_label, "labels: was 12 images (", False),
        (lambda: torch.set_num_threads(2), None, False),
    ],
    ids=["file added", "file removed", "label changed", "threads"],
)
def test_a_change_of_the_data_is_refused_by_name(stopped, capsys, change, names, holds_out_others):
    change()
    if names is None:  # no change of the data, and the run's own thread count is restored
        assert call("resume", "run") == 0
        stopped.assert_same("whole", "run")
        return
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    error = refusal(capsys)
    assert names in error
    assert "--inexact" in error
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    if holds_out_others:  # as they are drawn from one image more
        assert call("resume", "run", "--inexact") == 2
        assert "some which trained it may be held out now" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
        return
    assert call("resume", "run", "--inexact") == 0
    assert f"tapetum: Resuming inexactly: {names}" in capsys.readouterr().err
    assert stopped.checkpoints("run")[-1] == 24


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("peak: 0.1\n", "peak: 0.2\n", "optimizer.lr.peak: was 0.1, is 0.2"),
        ("batch_size: 8\n", "batch_size: 4\n", "data.batch_size: was 8, is 4"),
        ("hue: 0.1\n", "hue: 0.2\n", "views.large.hue: was 0.1, is 0.2"),
        ("log_every: 4\n", "log_every: 3\n", None),
    ],
)
def test_a_change_of_the_recipe_is_refused_by_name_where_it_changes_bits(stopped, capsys, old, new, names):
    recipe = Path("run/recipe.yaml")
    assert recipe.read_text().count(old) == 1
    recipe.write_text(recipe.read_text().replace(old, new))
    if names is None:
        assert call("resume", "run") == 0
        stopped.assert_same("whole", "run")
    else:
        assert names in refusal(capsys)


def test_the_command_stays_that_of_the_training(stopped, monkeypatch):
    Path("run/summary.json").write_text(json.dumps({"command": "tapetum train tiny.yaml --output run"}))
    monkeypatch.setattr("sys.argv", ["tapetum", "resume", "run"])
    assert call("resume", "run") == 0
    assert json.loads(Path("run/summary.json").read_text())["command"] == "tapetum train tiny.yaml --output run"


def test_held_out_labels_count_as_data(stopped, capsys):
    """They change no weight, but the accuracies of metrics.csv."""
    Path("photos/labels.csv").write_text(labels_of("photos/train"))
    where = ["data.labels=photos/labels.csv", "data.labels_per_class=null", "trainer.steps=6"]
    assert call(*TRAIN, "flat", *where) == 0
    held_out = tapetum.runs.pool.open_pool(tapetum.load_recipe("flat/recipe.yaml").data).held_out
    name = held_out.names[held_out.labelled[0]]
    content = Path("photos/labels.csv").read_text().splitlines()
    Path("photos/labels.csv").write_text("\n".join(line for line in content if not line.startswith(name)))
    assert call("resume", "flat") == 2
    assert "held_out: was 12 images" in capsys.readouterr().err


def labels_of(folder):
    return "".join(f"{path.relative_to(folder)},{path.parent.name}\n" for path in sorted(Path(folder).rglob("*.jpg")))


def test_a_truncated_checkpoint_gives_way_to_the_one_before(stopped, capsys):
    shutil.copy("whole/checkpoints/step-00000024.safetensors", LAST)
    os.truncate(LAST, os.path.getsize(LAST) // 2)
    assert call("resume", "run") == 0
    error = capsys.readouterr().err
    assert f"{LAST} is cut short" in error
    assert "Going back to the checkpoint before it." in error
    stopped.assert_same("whole", "run")


def test_foreign_files_are_passed_over_and_kept(stopped, capsys):
    foreign = {name: f"run/checkpoints/step-{name}.safetensors" for name in ("00000099", "best")}
    for path in foreign.values():
        save_file({"weight": torch.zeros(2)}, path)
    assert call("resume", "run") == 0
    error = capsys.readouterr().err
    assert f"{foreign['00000099']} was not written by Tapetum: move it out of the run's folder." in error
    for path in foreign.values():
        assert Path(path).is_file()
        os.remove(path)
    stopped.assert_same("whole", "run")


def test_ctrl_c_saves_and_says_how_to_go_on(stopped, capsys, monkeypatch):
    shutil.rmtree("run")
    set_schedules = tapetum.runs.run.set_schedules

    def interrupting(optimizer, config, step, *rest):
        if step == 8:
            os.kill(os.getpid(), signal.SIGINT)
        set_schedules(optimizer, config, step, *rest)

    monkeypatch.setattr(tapetum.runs.run, "set_schedules", interrupting)
    assert call(*TRAIN, "run", "trainer.keep_every=6") == 130
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.splitlines()[-2:] == [
        "tapetum: Finishing this step and saving; interrupt again to stop at once.",
        "tapetum: Saved step 9. Continue with: tapetum resume run",
    ]
    monkeypatch.setattr(tapetum.runs.run, "set_schedules", set_schedules)
    assert stopped.checkpoints("run") == [6, 9]
    assert call("resume", "run") == 0
    stopped.assert_same("whole", "run")


def test_ctrl_c_while_steps_are_timed_leaves_the_folder_free(stopped, capsys, monkeypatch):
    shutil.rmtree("run")
    forward = tapetum.methods.paws.PAWS.forward

    def interrupting(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return forward(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tapetum.methods.paws.PAWS, "forward", interrupting)
        assert call(*TRAIN, "run", "trainer.minutes=1") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "tapetum: stopped at once, nothing more saved."
    assert call(*TRAIN, "run", "trainer.keep_every=6") == 0
    stopped.assert_same("whole", "run")


def test_ctrl_c_while_judging_loses_nothing(stopped, capsys, monkeypatch):
    shutil.copy("whole/checkpoints/step-00000024.safetensors", LAST)
    monkeypatch.setattr(tapetum.evaluation.embedding.Embedder, "outputs", interrupted)
    assert call("resume", "run") == 130
    assert capsys.readouterr().err.splitlines() == [
        "tapetum: Stopped at once. Continue from what is saved with: tapetum resume run"
    ]
    monkeypatch.undo()
    os.chdir(stopped.folder)
    assert call("resume", "run") == 0
    assert json.loads(Path("run/summary.json").read_text())["test"]
    stopped.assert_same("whole", "run")


def interrupted(*_):
    raise KeyboardInterrupt  # what Python makes of Ctrl-C here; a real signal may come a line too late for a test
