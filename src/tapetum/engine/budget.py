"""Number of training steps. A budget in minutes becomes steps once, from measured costs; after that no clock matters.

The minutes are those of the whole command, so everything besides training is subtracted: what has passed already, the
evaluations, the checkpoints. `engine.trial` measures what they take.
"""

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tapetum.engine.callbacks import Callback, Row
from tapetum.engine.trainer_config import TrainerConfig
from tapetum.system.notices import notify

RESERVE = 0.03
"""Share of the minutes kept back for what is not measured (starting the training, writing tables, the summary), and
because steps of a long training took some percent longer than the few that were measured."""
LATE = 0.1
"""A run that is expected to end later than planned by more than this share of its minutes says so."""
_PATIENCE = 0.05
"""Share of the minutes to train before judging the pace, so that one hiccup at the beginning does not count."""


def resolve_steps(
    config: TrainerConfig, steps_per_epoch: int, measure: Callable[[float], int] | None = None
) -> TrainerConfig:
    """Return the config with its length and evaluation interval in steps, as the resolved recipe stores them.

    Args:
        config: gives the length as epochs, steps or minutes.
        steps_per_epoch: steps in one pass over the images.
        measure: turns minutes into steps, which must be the same on every rank.
    """
    steps = config.steps
    if config.epochs is not None:
        steps = max(1, round(config.epochs * steps_per_epoch))
    elif steps is None:
        assert config.minutes is not None
        assert measure is not None, "a budget in minutes needs measuring"
        steps = measure(config.minutes)
    every = _evaluate_every(config, steps)
    return replace(config, steps=steps, epochs=None, minutes=None, evaluate_every=every, evaluations=None)


def _evaluate_every(config: TrainerConfig, steps: int) -> int | None:
    if config.evaluate_every is None and config.evaluations is not None:
        return max(1, math.ceil(steps / config.evaluations))
    return config.evaluate_every


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds that the parts of a run take on this machine, as busy as it was when they were measured."""

    step: float
    """One optimiser step, with its share of logging."""
    early_step: float = 0.0
    """The same for a step before `Method.first_with_views`, if there are such."""
    epoch: float = 0.0
    """One call of `before_epoch`."""
    first_epoch: float = 0.0
    """What the first call takes beyond that, for instance to fill a memory bank."""
    evaluation: float = 0.0
    """One evaluation during training."""
    checkpoint: float = 0.0
    """Writing one checkpoint."""
    finish: float = 0.0
    """All evaluations after the last step."""
    folding: float = 0.0
    """All evaluations of the short runs of `data.folds`."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a run is expected to take: its costs, and how often each of them occurs."""

    costs: Costs
    config: TrainerConfig
    """When to evaluate and to write checkpoints; its own length does not matter."""
    steps_per_epoch: int
    folds: int = 0
    """Number of short runs that come first, each with that fraction of the steps."""
    first_with_views: Callable[[int], int] = lambda total_steps: 0
    """That of the method: steps before it cost `early_step`."""

    def training(self, step: int, steps: int) -> float:
        """Seconds from the start of a training of `steps` steps until `step` of them are finished."""
        costs = self.costs
        early = min(step, self.first_with_views(steps))
        seconds = early * costs.early_step + (step - early) * costs.step
        seconds += math.ceil(step / self.steps_per_epoch) * costs.epoch
        seconds += costs.first_epoch if step else 0.0
        seconds += _times(_evaluate_every(self.config, steps), step, steps) * costs.evaluation
        return seconds + _times(self.config.checkpoint_every, step, steps) * costs.checkpoint

    def total(self, steps: int) -> float:
        """Seconds for the short runs, a training of `steps` steps after them, and its finish: all that trains."""
        short = max(1, steps // self.folds) if self.folds else 0
        return self.folds * self.training(short, short) + self.costs.folding + self.after(0, steps)

    def after(self, step: int, steps: int) -> float:
        """Seconds from the moment when `step` of `steps` steps of the training are finished to the command's end."""
        return self.training(steps, steps) - self.training(step, steps) + self.costs.finish

    def most_steps(self, seconds: float) -> int:
        """Return how many steps fit, with all that comes with them, into so many seconds; at least 1."""
        beyond = 2
        while self.total(beyond) <= seconds:
            beyond *= 2
        # The steps from beyond / 2 on; `total` grows with them, but for a few where an evaluation less comes due.
        fitting = bisect_right(range(beyond // 2, beyond), seconds, key=self.total)
        return max(1, beyond // 2 + fitting - 1)


def _times(every: int | None, step: int, steps: int) -> int:
    """How often something has happened after `step` steps that is due every so many steps, and after the last."""
    if every is None:
        return int(step == steps)
    return step // every + (step == steps and steps % every != 0)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The minutes that a command may take, and since when they run."""

    minutes: float
    began: float
    """What `time.perf_counter` returned when the command began."""

    @property
    def seconds(self) -> float:
        return 60.0 * self.minutes

    def spent(self) -> float:
        """Seconds that have passed since the command began."""
        return time.perf_counter() - self.began

    def steps(self, plan: Plan, notify: Callable[[str], None] = notify) -> int:
        """Return how many steps fit into what is left now, but for a small reserve; at least 1.

        Args:
            plan: what the run is expected to take from now on.
            notify: called with a message if not even one step fits.
        """
        spent = self.spent()
        steps = plan.most_steps(self.seconds * (1.0 - RESERVE) - spent)
        needed = (spent + plan.total(1)) / 60.0
        if needed > self.minutes:
            notify(
                f"trainer.minutes is {self.minutes:g}, but preparing, evaluating and a single step take {needed:.2g} "
                f"minutes: training for {steps} step{'s' * (steps > 1)}; give more minutes."
            )
        return steps


class LateNotice(Callback):
    """Says when a run is expected to end much later than planned; it decides nothing, so nothing is ever cut off.

    Says it once, and again when the delay has doubled.

    Args:
        budget: the minutes, and since when they run.
        plan: what the run was expected to take.
        folder: the run folder, which the notice names.
        notify: called with the notice.
    """

    def __init__(self, budget: Budget, plan: Plan, folder: Path, notify: Callable[[str], None] = notify) -> None:
        self._budget, self._plan, self._folder, self._notify = budget, plan, folder, notify
        self._tolerated = LATE * budget.seconds
        self._steps = 0
        self._first: tuple[int, float] | None = None

    def on_start(self, step: int, total_steps: int) -> None:
        self._steps, self._first = total_steps, None

    def on_steps(self, rows: Sequence[Row]) -> None:
        step, spent = int(rows[-1]["step"]), self._budget.spent()
        if self._first is None:  # before it, data loaders start and code is compiled: that says nothing of the pace
            self._first = step, spent
            return
        first, since = self._first
        if step == self._steps or spent - since < _PATIENCE * self._budget.seconds:
            return
        left = self._plan.after(step, self._steps)
        slower = (spent - since) / (self._plan.after(first, self._steps) - left)
        late = spent + slower * left - self._budget.seconds
        if late > self._tolerated:
            self._tolerated = 2 * late
            self._tell(late, slower)

    def _tell(self, late: float, slower: float) -> None:
        reason = f"steps take {slower:.1f} times as long as measured; the machine is slower or busier than it was"
        if slower < 1.05:  # for instance in the short runs
            reason = "what came before took longer than planned"
        number = f"{late / 60:.2g}"
        minutes = "a minute" if number == "1" else f"{number} minutes"
        self._notify(
            f"at this pace, the run will end about {minutes} after the {self._budget.minutes:g} that it was given "
            f"({reason}). Nothing is cut off if you let it finish; or press Ctrl-C, and "
            f"`tapetum resume {self._folder}` continues from there when the machine is free."
        )
