"""The doctor's rules on trainings that were broken on purpose, and on healthy ones: 40 to 80 steps of tiny networks."""

from __future__ import annotations

import math
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tapetum.diagnosis.collapse_doctor import CollapseDoctor, advice, read_history
from tapetum.diagnosis.history import POINTS, Finding, History, Setting
from tapetum.diagnosis.rules import RULES, diagnose
from tapetum.methods.registry import method_class
from tapetum.nn.prototypes import Prototypes
from tapetum.ops.spread import spread
from tapetum.recipe.files import shipped_recipes
from tapetum.recipe.recipe import load_recipe
from tapetum.runs.run import setting_of

pytestmark = pytest.mark.usefixtures("one_thread")


def setting(family: ModuleType, kind: str, num_classes: int | None = None, **settings: Any) -> Setting:
    return Setting(
        method=method_class(kind).Config(**family.CASES[kind] | settings),
        batch_size=family.BATCH_SIZE,
        total_steps=80,
        num_classes=family.NUM_CLASSES if num_classes is None else num_classes,
        uses_labels=method_class(kind).uses_support,
    )


def examined(
    family: ModuleType, kind: str, monkeypatch: pytest.MonkeyPatch, *, steps: int = 80, lr: float = 0.1, **settings: Any
) -> tuple[dict[str, Finding], list[str]]:
    """What is found after a training, and what was said during it."""
    monkeypatch.setitem(family.CASES, kind, family.CASES[kind] | settings)
    said: list[str] = []
    run = family.trainer(kind, None, steps)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    doctor = CollapseDoctor(setting(family, kind), None, said.append)
    run.callbacks.append(doctor)
    run.fit()
    return {finding.rule: finding for finding in diagnose(doctor._history, doctor.setting)}, said


def test_silent_on_healthy_trainings(family, kind, monkeypatch):
    assert examined(family, kind, monkeypatch) == ({}, [])


def test_epsilon_too_large(family, monkeypatch):
    found, said = examined(family, "swav", monkeypatch, epsilon=5.0)
    assert list(found) == ["codes_uniform", "embeddings_alike", "loss_at_ln_k"]
    assert all(finding.changes[0] == "set method.epsilon=0.05" for finding in found.values())
    assert found["codes_uniform"].since == 1
    assert 1 < found["embeddings_alike"].since < 20 < found["loss_at_ln_k"].since
    assert len(said) == 3  # each once, however often it was seen
    assert said[0].startswith(
        "Codes say nothing: their entropy is 1.61 of at most ln K = 1.61. Since step 1. What helps"
    )


def test_no_stop_gradient(family, monkeypatch):
    """Codes that follow the gradient and are not balanced: all images end at one prototype."""
    monkeypatch.setattr("tapetum.methods.swav.swav_codes", lambda scores, *_: torch.softmax(scores / 0.05, dim=1))
    found, _ = examined(family, "swav", monkeypatch, queue_length=0)
    assert list(found) == ["few_prototypes_used"]
    assert any("carry no gradient" in change for change in found["few_prototypes_used"].changes)


def test_learning_rate_too_high(family, monkeypatch):
    found, _ = examined(family, "swav", monkeypatch, steps=50, lr=10.0)
    assert next(iter(found)) == "diverging"
    assert found["diverging"].changes[0] == "divide optimizer.lr.peak by 10"


def test_queue_from_the_first_step(family, monkeypatch):
    found, _ = examined(family, "swav", monkeypatch, queue_start_epoch=0)
    assert {name: finding.since for name, finding in found.items()} == {"queue_too_early": 1}


def test_prototypes_not_normalised(family, monkeypatch):
    monkeypatch.setattr(Prototypes, "normalise", lambda self: None)
    found, _ = examined(family, "swav", monkeypatch, steps=40)
    assert list(found) == ["prototypes_not_unit"]


def test_far_more_prototypes_than_images_in_a_batch(family, monkeypatch):
    found, _ = examined(family, "swav", monkeypatch, num_prototypes=(200,), queue_length=0)
    assert list(found) == ["too_many_prototypes"]
    assert "method.num_prototypes=[4]" in found["too_many_prototypes"].changes[0]


def rows(steps: int, **columns: Any) -> list[dict[str, float]]:
    """Steps 1..steps with columns under `train/`: numbers, or functions of the step."""
    return [
        {"step": step, **{f"train/{n}": c(step) if callable(c) else c for n, c in columns.items()}}
        for step in range(1, steps + 1)
    ]


def names(family: ModuleType, kind: str, rows: list[dict[str, float]], **settings: Any) -> dict[str, int]:
    history = History()
    history.add(rows)
    return {finding.rule: finding.since for finding in diagnose(history, setting(family, kind, **settings))}


def test_one_class_only(family):
    assert names(family, "paws", rows(1, loss=0.0), num_classes=1) == {"one_class": 1}
    assert names(family, "simclr", rows(1, loss=0.0), num_classes=1) == {}
    collapses = rows(60, cross_entropy=0.01, mean_entropy=lambda step: -1.0 if step <= 30 else -0.01)
    assert names(family, "paws", collapses) == {"one_class": 31}


@pytest.mark.parametrize("learner", ["swav", "suave", "deepcluster", "sela"])
def test_changes_are_to_fields_that_the_method_has(family, learner):
    history, given = History(), setting(family, learner)
    count = given.prototype_counts[-1]
    even = math.log(count)
    history.add(rows(60, loss=even, swapped=even, code_entropy=even, used_prototypes=0.1, embedding_std=0.01))
    changes = [change for finding in diagnose(history, given) for change in finding.changes]
    assert changes
    for field in re.findall(r"method\.(\w+)", " ".join(changes)):
        assert hasattr(given.method, field), field


def test_mean_entropy_saturates(family):
    even = math.log(3)
    assert names(family, "paws", rows(60, cross_entropy=even, mean_entropy=-even)) == {"predictions_uniform": 1}
    assert names(family, "paws", rows(60, cross_entropy=0.3, mean_entropy=-even)) == {}


def test_not_finite_since_when(family):
    assert names(family, "paws", rows(7, loss=lambda step: math.nan if step == 7 else 1.0)) == {"not_finite": 7}
    assert names(family, "paws", rows(7, loss=1.0, gradient_norm=lambda step: math.inf)) == {"not_finite": 1}


def test_a_queue_that_raises_the_loss(family):
    def history(after: float) -> list[dict[str, float]]:
        found = rows(100, loss=lambda step: 0.8 if step <= 42 else after)
        return [row | {"epoch": int(row["step"] > 40)} for row in found]

    assert names(family, "swav", history(1.2)) == {"queue_raised_loss": 43}
    assert names(family, "swav", history(0.7)) == {}


def test_embeddings_on_a_line(family):
    line = rows(60, embedding_std=0.6, effective_rank=1.01)
    assert names(family, "swav", line) == {"embeddings_on_a_line": 1}
    assert names(family, "paws", line, num_classes=2) == {}


def test_what_a_method_does_not_report_is_no_finding(family):
    for kind in family.CASES:
        assert names(family, kind, rows(60, loss=0.9)) == {}
        assert diagnose(History(), setting(family, kind)) == []


@pytest.mark.parametrize("name", shipped_recipes())
def test_silent_on_the_settings_of_shipped_recipes(name):
    history = History()
    history.add(rows(1, loss=1.0))
    assert diagnose(history, setting_of(load_recipe(name), 10)) == []


def test_every_rule_is_said_in_a_sentence():
    assert all(rule.__doc__.count("\n") == 0 for rule in RULES)
    told = advice(Finding("It broke.", 3, ("mend it", "buy another")))
    assert told == "It broke. Since step 3. What helps, in this order:\n  1. mend it\n  2. buy another"


def test_a_long_history_keeps_few_points_and_their_steps():
    history = History()
    steps = 10_000
    for begin in range(0, steps, 7):
        history.add([{"step": s + 1, "train/loss": float(s >= 5000)} for s in range(begin, min(steps, begin + 7))])
    assert POINTS <= len(history) <= 2 * POINTS
    assert history.last_step == steps
    assert history.column("train/loss").mean() == pytest.approx(0.5, abs=0.01)
    assert history.since(history.column("train/loss") == 1) == pytest.approx(5000, abs=80)
    assert np.array_equal(history.column("step"), np.sort(history.column("step")))


def test_medians_pass_over_odd_steps_and_gaps():
    history = History()
    history.add([{"step": i + 1, "train/x": 9.0 if i == 4 else 1.0} for i in range(8)])
    history.add([{"step": 9}])
    assert history.smooth("train/x").tolist() == [1.0] * 9
    assert np.isnan(history.smooth("train/y")).all()
    assert history.since(history.column("train/x") == 1) is None  # the last step has none


def test_a_resumed_training_remembers_what_was_before(tmp_path):
    lines = ["step,epoch,train/loss", *(f"{step},0,1.5" for step in range(1, 31)), "31,0,"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n32,0,1.")
    history = read_history(tmp_path / "metrics.csv")
    assert history.last_step == 31
    assert np.isnan(history.column("train/loss")[-1])
    assert len(read_history(tmp_path / "nowhere.csv")) == 0


def test_spread_is_that_of_the_eigenvalues():
    rows = torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = rows / rows.norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(torch.cov(unit.T, correction=0))
    found = spread(rows)
    torch.testing.assert_close(found["embedding_std"], values.sum().sqrt())
    torch.testing.assert_close(found["effective_rank"], values.sum() ** 2 / values.square().sum())
    alike = spread(torch.ones(4, 3))
    assert alike["embedding_std"] < 1e-6
    assert alike["effective_rank"].isfinite()
