import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tapetum
from tapetum.data.labels.labels import labels_from_values
from tapetum.engine.trainer_config import TrainerConfig
from tapetum.recipe.recipe import RecipeError, load_recipe
from tapetum.runs.best_checkpoint import best_checkpoint, check_choosable
from tapetum.runs.trained_run import open_trained_run

SMALL = ["data.held_out_per_class=10", "data.batch_size=16", "data.labels_per_class=4", "support.images_per_class=2"]
PERIODS = ("evaluate_every", "checkpoint_every", "keep_every")
BEST = ["trainer.keep_best=true", *(f"trainer.{name}=1" for name in PERIODS), "trainer.steps=3"]
SMALL += ["views.small=null", "runtime.threads=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best") / "run"
    threads = torch.get_num_threads()
    summary = tapetum.train("paws_digits", folder, overrides=[*SMALL, *BEST])
    torch.set_num_threads(threads)
    return folder, summary


def curve(folder):
    with (folder / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["eval/soft_nn_top1"]) for row in csv.DictReader(file)}


def test_the_run_is_judged_and_used_by_the_best_checkpoint(run):
    folder, summary = run
    by_step = curve(folder)
    assert set(by_step) == {1, 2, 3}
    best = max(by_step, key=lambda step: (by_step[step], step))
    assert summary["best_step"] == best
    assert summary["heldout_top1"] == pytest.approx(by_step[best])
    trained = open_trained_run(folder)
    assert (trained.checkpoint.step, trained.is_finished) == (best, True)


def test_trainings_start_from_the_checkpoint_that_a_run_predicts_by(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    rewrite(folder / "metrics.csv", (30, 99, 98))
    tapetum.train("paws_digits", tmp_path / "next", overrides=[*SMALL, f"init={folder}", "trainer.steps=0"])
    started = load_file(tmp_path / "next" / "checkpoints" / "step-00000000.safetensors")
    best, last = (load_file(folder / "checkpoints" / f"step-0000000{step}.safetensors") for step in (2, 3))
    names = [name for name in best if name.startswith("method.backbone.") and name.endswith("weight")]
    assert all(torch.equal(started[name], best[name]) for name in names)
    assert not all(torch.equal(started[name], last[name]) for name in names)


def rewrite(path, values):
    rows = list(csv.DictReader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"eval/soft_nn_top1": value} for row, value in zip(rows, values, strict=True))


def test_another_step_is_chosen_where_its_accuracy_is_higher(run, tmp_path, capsys):
    folder = shutil.copytree(run[0], tmp_path / "run")
    rewrite(folder / "metrics.csv", (30, 99, 99))
    assert best_checkpoint(folder, "soft_neighbours").step == 3  # the latest of equal ones
    rewrite(folder / "metrics.csv", (30, 99, 98))
    assert best_checkpoint(folder, "soft_neighbours").step == 2
    method = open_trained_run(folder).parts.method.state_dict()
    saved = load_file(folder / "checkpoints" / "step-00000002.safetensors")
    assert all(torch.equal(value, saved[f"method.{name}"]) for name, value in method.items())
    best = folder / "checkpoints" / "step-00000002.safetensors"
    content = best.read_bytes()
    best.write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    assert best_checkpoint(folder, "soft_neighbours").step == 3
    error = capsys.readouterr().err
    assert "step-00000002.safetensors has its whole length, but bits of it have changed" in error
    assert "Going to the next best checkpoint." in error
    (folder / "metrics.csv").unlink()
    with pytest.raises(
        ValueError, match=r"metrics.csv has no eval/soft_nn_top1 for any kept checkpoint: set trainer.keep_best"
    ):
        open_trained_run(folder)


def test_the_last_checkpoint_is_the_default():
    assert not TrainerConfig(steps=1).keep_best


@pytest.mark.parametrize("count", [0, 99])
def test_with_fewer_than_a_hundred_labels_it_is_refused(count):
    values = np.full(200, -1)
    values[:count] = np.arange(count) % 2
    labels = labels_from_values([str(i) for i in range(200)], values, ["a", "b"]) if count else None
    with pytest.raises(ValueError, match=f"keep_best is true, but {count} labels are held out and .* takes 100"):
        check_choosable(labels)
    values[:100] = np.arange(100) % 2
    check_choosable(labels_from_values([str(i) for i in range(200)], values, ["a", "b"]))


def test_it_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="keep_best is true, but 90 labels are held out"):
        tapetum.train("paws_digits", tmp_path / "run", overrides=[*SMALL, *BEST, "data.held_out_per_class=9"])
    assert not Path(tmp_path / "run" / "recipe.yaml").exists()


def test_folds_leave_nothing_to_choose_by():
    folds = ["data.held_out_per_class=null", "data.folds=3"]
    with pytest.raises(RecipeError, match=r"keep_best is true, but data.folds is 3, .* or folds to null\.$"):
        load_recipe("paws_digits", [*SMALL, *BEST, *folds])
    assert load_recipe("paws_digits", [*SMALL, *BEST, *folds, "data.fold=0"]).trainer.keep_best, "it holds a part out"


@pytest.mark.parametrize("periods", [(None, 5, 5), (5, None, 5), (5, 5, None), (5, 5, 10)])
def test_what_is_not_evaluated_and_kept_cannot_be_chosen(periods):
    given = dict(zip(PERIODS, periods))
    with pytest.raises(ValueError, match=f"evaluate_every {periods[0]}, .*keep_every {periods[2]}: set the three"):
        TrainerConfig(steps=9, keep_best=True, **given)
    TrainerConfig(steps=9, **given)
