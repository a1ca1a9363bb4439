"""Minutes are those of the whole command, and a finish is never cut off."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_files import assert_same_weights

import tapetum
import tapetum.verbs.fit
from tapetum.engine.budget import Budget
from tapetum.recipe.recipe import load_recipe
from tapetum.runs.run import assemble
from tapetum.verbs.fit import fit
from tapetum.verbs.train import train_since

NO_JUDGE = ["data.test=null", "data.held_out_per_class=null"]


def planned(recipe, overrides=(), **options):
    run = assemble(load_recipe(recipe, ["trainer.minutes=0.1", *overrides]))
    run.resolve(**options)
    assert run.planned is not None
    return run.planned


def test_nothing_is_reserved_where_nothing_is_evaluated_or_written(recipe):
    _, plan = planned(recipe, NO_JUDGE)
    assert (plan.costs.evaluation, plan.costs.finish, plan.costs.checkpoint) == (0, 0, 0)
    assert plan.costs.step > 0


def test_every_evaluation_is_reserved_for(recipe, tmp_path):
    _, plan = planned(recipe, folder=tmp_path)
    assert plan.costs.finish == plan.costs.evaluation > 0  # the held-out labels once more
    assert plan.costs.checkpoint > 0
    _, plan = planned(recipe, num_test=10**6)
    assert plan.costs.finish > 1000 * plan.costs.evaluation
    _, plan = planned(recipe, [*NO_JUDGE, "data.folds=3"])
    assert plan.folds == 3
    assert (plan.costs.evaluation, plan.costs.finish, plan.costs.folding > 0) == (0, 0, True)


def test_minutes_begin_with_the_verb(recipe, monkeypatch):
    began = []
    monkeypatch.setattr(Budget, "steps", lambda budget, plan: began.append(budget.began) or 1)
    before = time.perf_counter()
    tapetum.train(recipe, "now", ["trainer.minutes=1"])
    assert before <= began[0] <= time.perf_counter()
    train_since(before - 60, load_recipe(recipe, ["trainer.minutes=1"]), "earlier")
    assert began[1] == before - 60


def test_fit_counts_what_comes_before_training(recipe, monkeypatch):
    times, glance = [], tapetum.verbs.fit.glance

    def timed(*arguments):
        times.append(time.perf_counter())
        return glance(*arguments)

    monkeypatch.setattr("tapetum.verbs.fit.glance", timed)
    monkeypatch.setattr("tapetum.verbs.fit.train_since", lambda began, recipe, folder: times.append(began))
    before = time.perf_counter()
    fit("colours.npz", None, "run", minutes=1)
    glanced, began = times
    assert before <= began <= glanced


def test_short_runs_share_the_minutes(recipe, monkeypatch, capsys):
    monkeypatch.setattr("tapetum.verbs.fit.train_since", lambda began, recipe, folder: recipe.trainer.minutes)
    assert fit("colours.npz", None, "run", minutes=4, folds=2) == 4
    assert "as you set it; the 2 short runs together take half of it" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_train_the_same_number_of_steps(recipe):
    """Otherwise one of them would wait for the other without end."""
    words = ("-m", "tapetum", "train", "colours.yaml", "--output", "run", "trainer.minutes=0.1", "runtime.devices=2")
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("run/summary.json").read_text())["steps"] == load_recipe("run/recipe.yaml").trainer.steps


def test_too_few_minutes_cut_nothing_off(recipe, capsys):
    summary = tapetum.train(recipe, "run", ["trainer.minutes=0.0001"])
    assert summary["steps"] == 1
    assert {"test_top1", "heldout_top1"} <= summary.keys()
    assert "trainer.minutes is 0.0001, but preparing, evaluating and a single step take" in capsys.readouterr().err


@pytest.fixture
def late(recipe, monkeypatch):
    """Overrides of a run of 40 steps that has minutes for a fraction of them."""
    monkeypatch.setattr(Budget, "steps", lambda budget, plan: 40)
    return ["trainer.minutes=0.001", "trainer.checkpoint_every=20"]


def test_a_late_run_says_so_and_finishes(recipe, late, capsys):
    summary = tapetum.train(recipe, "run", late)
    assert summary["steps"] == 40
    assert {"test_top1", "heldout_top1"} <= summary.keys()
    said = [line for line in capsys.readouterr().err.splitlines() if "will end about" in line]
    assert 1 <= len(said) <= 2
    assert "minutes after the 0.001 that it was given" in said[0]
    assert "`tapetum resume run` continues" in said[0]


def test_minutes_and_their_steps_train_the_same(recipe, late, capsys):
    tapetum.train(recipe, "run", late)
    capsys.readouterr()
    tapetum.train(Path("run/recipe.yaml"), "again")
    assert "will end about" not in capsys.readouterr().err
    assert_same_weights("run", "again")
