"""Minutes become steps once, from costs; a run that is late says so, and decides nothing."""

from dataclasses import replace

import pytest

from tapetum.engine import budget
from tapetum.engine.budget import Budget, Costs, LateNotice, Plan, resolve_steps
from tapetum.engine.trainer import TrainerConfig

MINUTES = TrainerConfig(minutes=1, checkpoint_every=None)


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(budget, "time", made)
    return made


def plan_of(config=MINUTES, folds=0, **costs):
    return Plan(costs=Costs(**{"step": 0.01, **costs}), config=config, steps_per_epoch=100, folds=folds)


def steps_in(minutes, plan, told=None):
    return Budget(minutes=minutes, began=0.0).steps(plan, (told if told is not None else []).append)


def test_without_other_costs_steps_take_all_minutes_but_a_small_reserve(clock):
    assert steps_in(1, plan_of()) == pytest.approx(5820, abs=1)  # 58.2 seconds


def test_what_has_passed_is_no_longer_left(clock):
    clock.now = 8.2
    assert steps_in(1, plan_of()) == pytest.approx(5000, abs=1)


@pytest.mark.parametrize(
    "costs", [{"epoch": 3.0}, {"epoch": 3.0, "first_epoch": 10.0}, {"finish": 20.0}, {"folding": 20.0}]
)
@pytest.mark.parametrize("checkpoint", [0.0, 0.5])
@pytest.mark.parametrize("evaluate", [{}, {"evaluations": 10}, {"evaluate_every": 150}])
def test_one_more_step_would_take_too_long(clock, costs, checkpoint, evaluate):
    config = replace(MINUTES, checkpoint_every=500, **evaluate)
    plan = plan_of(config, checkpoint=checkpoint, evaluation=0.7, **costs)
    steps = steps_in(1, plan)
    assert plan.total(steps) <= 58.2 + 1e-9
    assert plan.total(steps + 1) > 58.2 - 1e-9


def test_each_cost_counts_as_often_as_it_occurs():
    config = replace(MINUTES, checkpoint_every=500, evaluate_every=150)
    plan = plan_of(config, epoch=3.0, first_epoch=10.0, evaluation=0.7, checkpoint=0.5, finish=20.0)
    # Of 1,210 steps: 13 epochs; 8 evaluations and 2 checkpoints, and one of each after the last step.
    assert plan.training(1210, 1210) == pytest.approx(12.1 + 13 * 3 + 10 + 9 * 0.7 + 3 * 0.5)
    assert plan.training(1200, 1210) == pytest.approx(12.0 + 12 * 3 + 10 + 8 * 0.7 + 2 * 0.5)
    assert plan.training(0, 1210) == 0
    assert plan.total(1210) == pytest.approx(plan.training(1210, 1210) + 20)


def test_steps_before_the_first_with_views_cost_less(clock):
    plan = replace(plan_of(early_step=0.004), first_with_views=lambda total: int(0.6 * total))
    assert plan.training(1000, 1000) == pytest.approx(600 * 0.004 + 400 * 0.01)
    assert plan.training(300, 1000) == pytest.approx(300 * 0.004)
    assert plan.after(800, 1000) == pytest.approx(200 * 0.01)
    steps = steps_in(1, plan)
    assert plan.total(steps) <= 58.2 + 1e-9
    assert plan.total(steps + 1) > 58.2 - 1e-9
    assert steps == pytest.approx(58.2 / (0.6 * 0.004 + 0.4 * 0.01), abs=2)


def test_short_runs_take_half_of_the_minutes(clock):
    assert steps_in(1, plan_of(folds=3)) == pytest.approx(5820 / 2, abs=3)


def test_if_nothing_fits_one_step_is_trained_and_said(clock):
    told = []
    clock.now = 30.0
    assert steps_in(1, plan_of(finish=60.0), told) == 1
    assert told == [
        "trainer.minutes is 1, but preparing, evaluating and a single step take 1.5 minutes: training for 1 step; "
        "give more minutes."
    ]


def late_run(clock, seconds_per_step, steps=5000, minutes=1.0, folds=0, **costs):
    """Train `steps` steps that take so many seconds each (a function of the step); returns what was said, and when."""
    told = []
    plan = plan_of(TrainerConfig(minutes=minutes), folds=folds, **costs)
    notice = LateNotice(Budget(minutes=minutes, began=0.0), plan, "run", lambda text: told.append((step, text)))
    notice.on_start(0, steps)
    for step in range(10, steps + 1, 10):
        clock.now += 10 * seconds_per_step(step)
        notice.on_steps([{"step": step - 1}, {"step": step}])
    return told


def test_a_slower_machine_is_told_once(clock):
    told = late_run(clock, lambda step: 0.03)
    assert len(told) == 1
    step, text = told[0]
    assert step < 0.1 * 5000
    assert text == (
        "at this pace, the run will end about 1.5 minutes after the 1 that it was given (steps take 3.0 times as long "
        "as measured; the machine is slower or busier than it was). Nothing is cut off if you let it finish; or press "
        "Ctrl-C, and `tapetum resume run` continues from there when the machine is free."
    )


def test_a_delay_of_a_minute_is_said_in_words(clock):
    told = late_run(clock, lambda step: 0.0242)
    assert "will end about a minute after the 1 that it was given" in told[0][1]


def test_it_is_told_again_when_the_delay_doubles(clock):
    told = late_run(clock, lambda step: 0.02 if step < 2500 else 0.1)
    assert [text.split("minutes")[0].split()[-1] for _, text in told] == ["0.67", "1.3", "2.7"]


def test_a_run_in_time_says_nothing(clock):
    assert late_run(clock, lambda step: 0.0105) == []
    clock.now = 0.0
    # What only the beginning takes is no sign of a slow machine, and neither is one hiccup.
    assert late_run(clock, lambda step: {10: 0.4, 2000: 0.4}.get(step, 0.01), steps=4500) == []


def test_epochs_and_evaluations_that_were_planned_are_no_delay(clock):
    def seconds(step):
        return 0.01 + (0.3 if step % 100 == 10 else 0.0)  # three seconds as each epoch begins

    assert late_run(clock, seconds, steps=1400, epoch=3.0) == []


def test_short_runs_are_over_when_the_training_begins(clock):
    clock.now = 30.0  # what they took
    assert late_run(clock, lambda step: 0.01, steps=2900, folds=3, folding=1.0) == []


def test_a_delay_of_the_short_runs_is_not_blamed_on_the_steps(clock):
    clock.now = 60.0
    told = late_run(clock, lambda step: 0.01, steps=2900, folds=3)
    assert len(told) == 1
    assert "given (what came before took longer than planned). Nothing is cut off" in told[0][1]


def test_only_steps_are_left():
    assert resolve_steps(TrainerConfig(epochs=2.5), 10) == TrainerConfig(steps=25)
    assert resolve_steps(TrainerConfig(epochs=0.001), 10).steps == 1
    assert resolve_steps(TrainerConfig(minutes=2), 10, lambda minutes: int(minutes * 7)) == TrainerConfig(steps=14)
    assert resolve_steps(TrainerConfig(steps=3), 10) == TrainerConfig(steps=3)


@pytest.mark.parametrize("steps,evaluations,every", [(100, 10, 10), (101, 10, 11), (5, 10, 1), (0, 10, 1)])
def test_evaluations_are_spread_evenly(steps, evaluations, every):
    config = TrainerConfig(steps=steps, evaluations=evaluations)
    assert resolve_steps(config, 10) == TrainerConfig(steps=steps, evaluate_every=every)
    given = TrainerConfig(steps=steps, evaluations=evaluations, evaluate_every=7)
    assert resolve_steps(given, 10) == TrainerConfig(steps=steps, evaluate_every=7)
