"""What a run takes is measured on copies, and measuring leaves no trace."""

import copy
import os
import signal

import pytest
import torch

from tapetum.engine import trial
from tapetum.engine.trainer import TrainerConfig
from tapetum.engine.trial import measure_costs


class Clock:
    """Advances by a hundredth of a second per optimiser step, and by more in `before_epoch`; counts the steps."""

    now = 0.0
    steps = 0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(trial, "time", made)
    return made


def slow_toy(toy, clock, first=3.0, extra=lambda step: 0.0):
    class Slow(toy.Toy):
        def before_epoch(self, progress, embed_all):
            clock.now += 3.0 if progress.epoch else first
            super().before_epoch(progress, embed_all)

        def after_step(self, output, batch):
            clock.steps += 1
            clock.now += 0.01 + extra(clock.steps)
            super().after_step(output, batch)

        def __deepcopy__(self, memo):
            made = Slow()
            memo[id(self)] = made
            for name, parameter in self.named_parameters():
                memo[id(parameter)] = made.get_parameter(name)
            return made

    return Slow()


def measured(toy, method, seconds=60.0, **changes):
    arguments = {"seconds": seconds, "config": TrainerConfig(minutes=1), **changes}
    return measure_costs(method, toy.sgd(method), toy.batches, runtime=toy.runtime(), **arguments)


def test_steps_and_epochs_are_told_apart(toy, clock):
    costs = measured(toy, slow_toy(toy, clock, first=13.0))
    assert costs.step == pytest.approx(0.01)
    assert (costs.epoch, costs.first_epoch) == pytest.approx((3, 10))
    assert (costs.evaluation, costs.checkpoint, costs.finish) == (0, 0, 0)


def test_steps_without_views_are_timed_apart(toy, clock):
    """They are recognised by their batches alone; the first steps after a start count nowhere."""
    kinds = []

    def early(start, stop):
        kinds.append("early")
        return toy.batches(start, stop)

    def normal(start, stop):
        kinds.append("normal")
        return toy.batches(start, stop)

    method = slow_toy(toy, clock, extra=lambda step: -0.006 if kinds[-1] == "early" else 0.0)
    costs = measure_costs(
        method, toy.sgd(method), normal, early_batches=early, seconds=60.0, config=TrainerConfig(minutes=1),
        runtime=toy.runtime(),
    )  # fmt: skip
    assert (costs.step, costs.early_step) == pytest.approx((0.01, 0.004))
    assert costs.epoch == pytest.approx(3)
    assert clock.steps == pytest.approx(60 + 150, abs=10)  # 0.6 seconds of each


@pytest.mark.parametrize("hiccups", [{12}, {2}, {70, 90}])
def test_hiccups_of_the_machine_change_nothing(toy, clock, hiccups):
    costs = measured(toy, slow_toy(toy, clock, extra=lambda step: 5.0 * (step in hiccups)), seconds=600)
    assert costs.step == pytest.approx(0.01)


def test_what_recurs_counts_as_often_as_it_happens(toy, clock):
    # A median over groups of five would count it not at all.
    costs = measured(toy, slow_toy(toy, clock, first=0.0, extra=lambda step: 0.05 * (step % 15 == 0)), seconds=3600)
    assert costs.step == pytest.approx(0.01 + 0.05 / 15, rel=0.1)


@pytest.mark.parametrize(
    "seconds,steps",
    [
        (1, 26),
        (60, 120 - 1),  # 1.2 seconds
        (120, 240 - 1),
        (3600, 26 + 4 + 980),  # 1,000 are timed
    ],
)
def test_more_minutes_time_more_steps(toy, clock, seconds, steps):
    costs = measured(toy, slow_toy(toy, clock, first=0.0), seconds=seconds)
    assert clock.steps == pytest.approx(steps, abs=5)
    assert (costs.step, costs.epoch) == pytest.approx((0.01, 3))  # the longer trial begins no third epoch


def test_a_signal_in_the_last_timed_step_begins_no_training(toy, clock):
    def interrupt(step):
        if step == 26:
            os.kill(os.getpid(), signal.SIGINT)
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        measured(toy, slow_toy(toy, clock, extra=interrupt), seconds=1)
    assert clock.steps == 26


def test_evaluations_are_timed_on_the_copy(toy):
    method, seen = toy.Toy(), []

    def evaluations(copied):
        seen.append(copied)
        return 1.5, 4.5, 9.0

    costs = measured(toy, method, evaluations=evaluations)
    assert (costs.evaluation, costs.finish, costs.folding) == (1.5, 4.5, 9.0)
    assert seen[0] is not method


def test_writing_a_checkpoint_is_timed_and_leaves_no_file(toy, tmp_path):
    assert measured(toy, toy.Toy(), folder=tmp_path).checkpoint > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [1, 100])
def test_measuring_leaves_no_trace(toy, tmp_path, seconds):
    run = toy.trainer(None, 5)
    run.fit()
    method, optimizer = run.method, run.optimizer
    method.head.eval()
    before, groups = toy.state_of(run), copy.deepcopy([{**g, "params": 0} for g in optimizer.param_groups])
    gradients = [p.grad.clone() for p in method.parameters()]
    modes = [m.training for m in method.modules()]
    queue, generator = method.queue, torch.get_rng_state()

    def evaluations(copied):
        torch.rand(3)
        return 0.0, 0.0, 0.0

    config = TrainerConfig(minutes=0.5)
    options = {"seconds": seconds, "config": config, "evaluations": evaluations, "folder": tmp_path}
    costs = measure_costs(method, optimizer, toy.batches, runtime=run.runtime, **options)
    assert costs.step > 0
    toy.assert_same(before, toy.state_of(run))
    assert method.queue is queue
    assert [{**g, "params": 0} for g in optimizer.param_groups] == groups
    assert all(torch.equal(p.grad, g) for p, g in zip(method.parameters(), gradients, strict=True))
    assert [m.training for m in method.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert "before_epoch" not in vars(method)


def test_a_fresh_run_is_the_same_after_measuring(toy):
    plain, after = toy.trainer(None, 6), toy.Toy()
    measured(toy, after)
    later = toy.trainer(None, 6, method=after)
    plain.fit()
    later.fit()
    toy.assert_same(toy.state_of(plain), toy.state_of(later))
