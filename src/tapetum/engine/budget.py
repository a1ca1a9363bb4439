"""Number of training steps. A budget in minutes becomes steps once, by measuring; after that no clock matters."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch.optim import Optimizer

from tapetum.data.batch import Batch
from tapetum.engine.callbacks import Callback, Row
from tapetum.engine.runtime import Runtime
from tapetum.engine.trainer import Trainer
from tapetum.engine.trainer_config import TrainerConfig
from tapetum.methods.base import EmbedAll, Method, Progress
from tapetum.system.interruption import Interrupted

WARM_UP_STEPS = 5
TIMED_STEPS = 20
TRIAL_STEPS = WARM_UP_STEPS + TIMED_STEPS
RESERVE = 0.1
"""Share of the minutes kept back for evaluation, checkpoints and a machine that becomes busier."""


def resolve_steps(
    config: TrainerConfig, steps_per_epoch: int, measure: Callable[[float], int] | None = None
) -> TrainerConfig:
    """Return the config with its length and evaluation interval in steps, as the resolved recipe stores them.

    Args:
        config: gives the length as epochs, steps or minutes.
        steps_per_epoch: steps in one pass over the images.
        measure: turns minutes into steps; `measure_steps` with its other arguments filled in.
    """
    steps, every = config.steps, config.evaluate_every
    if config.epochs is not None:
        steps = max(1, round(config.epochs * steps_per_epoch))
    elif steps is None:
        assert config.minutes is not None
        assert measure is not None, "a budget in minutes needs measuring"
        steps = measure(config.minutes)
    if every is None and config.evaluations is not None:
        every = max(1, math.ceil(steps / config.evaluations))
    return replace(config, steps=steps, epochs=None, minutes=None, evaluate_every=every, evaluations=None)


def measure_steps(
    method: Method,
    optimizer: Optimizer,
    batches: Callable[[int, int], Iterator[Batch]],
    *,
    minutes: float,
    steps_per_epoch: int,
    config: TrainerConfig,
    runtime: Runtime,
    seed: int = 0,
    embed_all: EmbedAll | None = None,
) -> int:
    """Measure how many steps fit into a budget of minutes on this machine, as busy as it is now.

    Times 20 steps after 5 warm-up steps, and the first two calls of `before_epoch`, on copies of the method and
    optimizer. Weights, buffers, optimizer state, modes and torch's generators stay unchanged. Call it before building
    the `Trainer`.

    Args:
        method, optimizer, batches, runtime, seed, embed_all: as for `Trainer`; the method is not set up yet.
        minutes: the budget in minutes of wall time; a tenth is kept in reserve.
        steps_per_epoch: the time of the second `before_epoch` is spread over this many steps; the extra time of the
            first, for instance to fill a memory bank, counts once.
        config: only its `accumulate` is used.

    Returns:
        Steps, at least 1; the same on every rank.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM.
    """
    # Copied together, so that the copied optimizer refers to the copied parameters.
    trial, trial_optimizer = copy.deepcopy((method, optimizer))
    epoch_watch, step_watch = _EpochWatch(trial), _StepWatch()
    shared: dict[str, Any] = {"runtime": runtime, "seed": seed, "embed_all": embed_all, "config": _trial_config(config)}
    shared["notify"] = _say_nothing
    # One extra step, which begins the second epoch.
    length: dict[str, Any] = {"steps_per_epoch": TRIAL_STEPS, "total_steps": TRIAL_STEPS + 1}
    with torch.random.fork_rng([runtime.device] if runtime.device.type == "cuda" else []):
        trainer = Trainer(trial, trial_optimizer, _keep_rates, batches, callbacks=[step_watch], **length, **shared)
        try:
            trainer.fit()
        except Interrupted:
            raise KeyboardInterrupt from None  # there is nothing to save or resume yet
    if runtime.rank != 0:
        return runtime.broadcast(0)
    first, second = epoch_watch.seconds
    budget = 60.0 * minutes * (1.0 - RESERVE) - (first - second)
    return runtime.broadcast(max(1, int(budget / (step_watch.seconds_per_step() + second / steps_per_epoch))))


def _trial_config(config: TrainerConfig) -> TrainerConfig:
    return TrainerConfig(
        steps=TRIAL_STEPS + 1, log_every=WARM_UP_STEPS, checkpoint_every=None, accumulate=config.accumulate
    )


class _StepWatch(Callback):
    def __init__(self) -> None:
        self._times: dict[int, float] = {}

    def on_steps(self, rows: Sequence[Row]) -> None:
        # Rows arrive only after the device has finished their steps.
        self._times[int(rows[-1]["step"])] = time.perf_counter()

    def seconds_per_step(self) -> float:
        """The median over groups of five steps, so that one hiccup of the machine has no effect."""
        marks = [self._times[step] for step in range(WARM_UP_STEPS, TRIAL_STEPS + 1, WARM_UP_STEPS)]
        return median(end - start for start, end in pairwise(marks)) / WARM_UP_STEPS


class _EpochWatch:
    """Times each `before_epoch` of the trial."""

    def __init__(self, trial: Method) -> None:
        self.seconds: list[float] = []
        self._hook = trial.before_epoch
        trial.before_epoch = self._timed  # type: ignore[method-assign]

    def _timed(self, progress: Progress, embed_all: EmbedAll) -> None:
        start = time.perf_counter()
        self._hook(progress, embed_all)
        self.seconds.append(time.perf_counter() - start)


def _say_nothing(message: str) -> None:
    """Drop the messages of the trial: the training itself repeats those that matter."""


def _keep_rates(step: int) -> None:
    """Leave the learning rates unchanged in the trial: they do not affect its speed."""
