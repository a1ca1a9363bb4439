"""Minutes become steps by measuring, and measuring leaves no trace."""

import copy

import pytest
import torch

from tapetum.engine import budget
from tapetum.engine.budget import measure_steps, resolve_steps
from tapetum.engine.trainer import TrainerConfig


class Clock:
    """Advances a hundredth of a second per optimiser step, three seconds per before_epoch, and by more in the first."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def slow_toy(toy, clock, first=3.0, hiccup=0.0):
    class Slow(toy.Toy):
        steps = 0

        def before_epoch(self, progress, embed_all):
            clock.now += 3.0 if progress.epoch else first
            super().before_epoch(progress, embed_all)

        def after_step(self, output, batch):
            self.steps += 1
            clock.now += 0.01 + (hiccup if self.steps == 12 else 0.0)
            super().after_step(output, batch)

        def __deepcopy__(self, memo):
            made = Slow()
            memo[id(self)] = made
            for name, parameter in self.named_parameters():
                memo[id(parameter)] = made.get_parameter(name)
            return made

    return Slow()


def measured(toy, method, minutes=1.0, **changes):
    arguments = {"minutes": minutes, "steps_per_epoch": 100, "config": TrainerConfig(minutes=minutes), **changes}
    return measure_steps(method, toy.sgd(method), toy.batches, runtime=toy.runtime(), **arguments)


def test_a_tenth_is_reserved_and_before_epoch_is_spread_over_its_steps(toy, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(budget, "time", clock)
    # 54 seconds at 0.01 a step and 3 seconds every 100 steps.
    assert measured(toy, slow_toy(toy, clock)) == pytest.approx(54 / (0.01 + 0.03), abs=1)
    assert measured(toy, slow_toy(toy, clock), minutes=1e-6) == 1


def test_one_hiccup_of_the_machine_changes_nothing(toy, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(budget, "time", clock)
    assert measured(toy, slow_toy(toy, clock, hiccup=5.0)) == measured(toy, slow_toy(toy, clock))


def test_what_the_first_epoch_alone_needs_is_spent_once(toy, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(budget, "time", clock)
    # As above, but for ten seconds in which a memory bank is filled.
    assert measured(toy, slow_toy(toy, clock, first=13.0)) == pytest.approx((54 - 10) / (0.01 + 0.03), abs=1)
    assert measured(toy, slow_toy(toy, clock, first=100.0)) == 1


def test_measuring_leaves_no_trace(toy):
    run = toy.trainer(None, 5)
    run.fit()
    method, optimizer = run.method, run.optimizer
    method.head.eval()
    before, groups = toy.state_of(run), copy.deepcopy([{**g, "params": 0} for g in optimizer.param_groups])
    gradients = [p.grad.clone() for p in method.parameters()]
    modes = [m.training for m in method.modules()]
    queue, generator = method.queue, torch.get_rng_state()
    steps = measure_steps(
        method,
        optimizer,
        toy.batches,
        minutes=0.5,
        steps_per_epoch=7,
        config=TrainerConfig(minutes=0.5),
        runtime=run.runtime,
    )
    assert steps > 1
    toy.assert_same(before, toy.state_of(run))
    assert method.queue is queue
    assert [{**g, "params": 0} for g in optimizer.param_groups] == groups
    assert all(torch.equal(p.grad, g) for p, g in zip(method.parameters(), gradients, strict=True))
    assert [m.training for m in method.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert "before_epoch" not in vars(method)


def test_a_fresh_run_is_the_same_after_measuring(toy):
    plain, after = toy.trainer(None, 6), toy.Toy()
    measured(toy, after, minutes=0.1)
    later = toy.trainer(None, 6, method=after)
    plain.fit()
    later.fit()
    toy.assert_same(toy.state_of(plain), toy.state_of(later))


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
