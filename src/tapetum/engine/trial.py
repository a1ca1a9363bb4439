"""Measures what the parts of a run take, on copies, before training; `engine.budget` makes a number of steps of it."""

import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

from tapetum.data.batch import Batch
from tapetum.engine.budget import Costs
from tapetum.engine.callbacks import Callback, Row
from tapetum.engine.checkpoint import capture
from tapetum.engine.runtime import Runtime
from tapetum.engine.sharding import weights_of
from tapetum.engine.trainer import Trainer
from tapetum.engine.trainer_config import TrainerConfig
from tapetum.methods.base import EmbedAll, Method, Progress
from tapetum.system.files import writing
from tapetum.system.interruption import Interrupted

SHARE = 0.02
"""Share of the minutes for timing steps, as far as the numbers below allow."""
GROUP = 5
"""Steps that are timed together: the device is waited for after each group only."""
LEAST_TIMED = 20
MOST_TIMED = 1000
_FIRST = GROUP + LEAST_TIMED
_TRIMMED = 0.1

Evaluations = Callable[[Method], tuple[float, float, float]]
"""Returns seconds as in `Costs`: `evaluation`, `finish` and `folding`."""


def measure_costs(
    method: Method,
    optimizer: Optimizer,
    batches: Callable[[int, int], Iterator[Batch]],
    *,
    seconds: float,
    config: TrainerConfig,
    runtime: Runtime,
    seed: int = 0,
    embed_all: Callable[[Method], EmbedAll] | None = None,
    evaluations: Evaluations | None = None,
    early_batches: Callable[[int, int], Iterator[Batch]] | None = None,
    folder: Path | None = None,
) -> Costs:
    """Measure what steps, epochs, evaluations and checkpoints take on this machine, as busy as it is now.

    After 5 steps to warm up, times 20 steps and the first two calls of `before_epoch`, on copies of the method and
    optimizer; then, if `seconds` are many, as many more steps as fit into 2% of them, 1,000 at most, half of them steps
    without views if there are such. Weights, buffers, optimizer state, modes and torch's generators stay unchanged.
    Call it before building the `Trainer`.

    Args:
        method, optimizer, batches, runtime, seed: as for `Trainer`; the method is not set up yet.
        seconds: the whole budget, in seconds of wall time.
        config: only its `accumulate` is used.
        embed_all: makes what `Trainer` takes, for the copy of the method.
        evaluations: times evaluations of the copy of the method, which has been set up; None if there are none.
        early_batches: yields batches without views like those before `Method.first_with_views`; None if there are none.
        folder: where checkpoints will be written; None if nowhere.

    Returns:
        The costs, those of rank 0 on every rank.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM.
    """
    # Copied together, so that the copied optimizer refers to the copied parameters.
    trial, trial_optimizer = copy.deepcopy((method, optimizer))
    epoch_watch, step_watch, early_watch = _EpochWatch(trial), _StepWatch(), _StepWatch()
    shared: dict[str, Any] = {"runtime": runtime, "seed": seed, "config": _trial_config(config)}
    shared |= {"embed_all": embed_all(trial) if embed_all is not None else None, "notify": _say_nothing}
    # One extra step, which begins the second epoch.
    length: dict[str, Any] = {"steps_per_epoch": _FIRST, "total_steps": _FIRST + 1}
    with torch.random.fork_rng([runtime.device] if runtime.device.type == "cuda" else []):
        trainer = Trainer(trial, trial_optimizer, _keep_rates, batches, callbacks=[step_watch], **length, **shared)
        try:
            timed_for = SHARE * seconds / (1 if early_batches is None else 2)
            _time_steps(trainer, step_watch, timed_for, runtime)
            if early_batches is not None:
                early = {**length, "callbacks": [early_watch], **shared, "embed_all": None}
                trainer = Trainer(trial, trial_optimizer, _keep_rates, early_batches, **early)
                _time_steps(trainer, early_watch, timed_for, runtime)
        except Interrupted:
            raise KeyboardInterrupt from None  # there is nothing to save or resume yet
        evaluation, finish, folding = evaluations(trial) if evaluations is not None else (0.0, 0.0, 0.0)
    costs = None
    if runtime.rank == 0:
        first, epoch = epoch_watch.seconds[:2]
        costs = Costs(
            step=step_watch.seconds_per_step(),
            early_step=0.0 if early_batches is None else early_watch.seconds_per_step(),
            epoch=epoch,
            first_epoch=first - epoch,
            evaluation=evaluation,
            checkpoint=0.0 if folder is None else _seconds_to_save(trial, trial_optimizer, folder),
            finish=finish,
            folding=folding,
        )
    costs = runtime.broadcast(costs)
    assert costs is not None
    return costs


def _time_steps(trainer: Trainer, watch: "_StepWatch", seconds: float, runtime: Runtime) -> None:
    """Train the first steps, and more if `seconds` are many."""
    trainer.fit()
    more = runtime.broadcast(watch.more_steps(seconds) if runtime.rank == 0 else 0)
    if more:
        # The same trainer goes on, and begins no further epoch.
        trainer.total_steps = trainer.steps_per_epoch = trainer.total_steps + more
        trainer.fit()


def _trial_config(config: TrainerConfig) -> TrainerConfig:
    return TrainerConfig(steps=_FIRST + 1, log_every=GROUP, checkpoint_every=None, accumulate=config.accumulate)


def _seconds_to_save(method: Method, optimizer: Optimizer, folder: Path) -> float:
    """Time a checkpoint's way to the disk of a folder, in a file without a name: even a kill leaves nothing behind."""
    start = time.perf_counter()
    tensors = capture(weights_of(method).stored, optimizer, [method.local_state()], {"step": 0}).tensors.values()
    with writing(folder), tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(sum(tensor.numel() * tensor.element_size() for tensor in tensors)))
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start


T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what a function returns, and the seconds that it took (more than 0)."""
    start = time.perf_counter()
    result = work()
    return result, max(time.perf_counter() - start, 1e-9)


class _StepWatch(Callback):
    """Times steps in groups; the first steps after a start count in no group, because they warm up."""

    def __init__(self) -> None:
        self.groups: list[float] = []
        self._last = 0.0
        self._is_warm = False

    def on_start(self, step: int, total_steps: int) -> None:
        self._is_warm = False

    def on_steps(self, rows: Sequence[Row]) -> None:
        # Rows arrive only after the device has finished their steps.
        now = time.perf_counter()
        if self._is_warm and len(rows) == GROUP:
            self.groups.append(now - self._last)
        self._is_warm, self._last = True, now

    def seconds_per_step(self) -> float:
        """The mean over groups but for the fastest and the slowest tenth, and at least one of each.

        One hiccup of the machine, which may take longer than all other steps together, then has no effect. What recurs
        within 50 steps counts as often as it happens, unlike in a median.
        """
        ordered = sorted(self.groups)
        trimmed = max(1, int(_TRIMMED * len(ordered)))
        return fmean(ordered[trimmed:-trimmed]) / GROUP

    def more_steps(self, seconds: float) -> int:
        """Return how many steps to do after the first so that all of them take so many seconds; 0 or 14 at least."""
        groups = int(seconds / (GROUP * max(self.seconds_per_step(), 1e-9))) - _FIRST // GROUP
        # One group to warm up, less the step that began the second epoch, so that groups end at multiples of five.
        most = 1 + (MOST_TIMED - LEAST_TIMED) // GROUP
        return GROUP * min(groups, most) - 1 if groups > 2 else 0


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
