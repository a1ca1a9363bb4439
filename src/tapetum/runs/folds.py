"""Measures accuracy on all labels (cross-validation): short runs, one after another, hold out one part each."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tapetum.engine.checkpoint import CHECKPOINTS, list_checkpoints
from tapetum.ops.intervals import wilson
from tapetum.optim.schedules import ScheduleConfig
from tapetum.recipe.recipe import Recipe
from tapetum.runs.run import assemble
from tapetum.runs.run_folder import FOLDS, environment, read_summary, write_recipe, write_summary
from tapetum.runs.weights import check_still_held_out
from tapetum.system.files import RESUME, writing
from tapetum.system.notices import notify

_COUNTS = ("freeze_steps", "queue_start_epoch", "supervised_epochs")
"""Fields of methods that count steps or epochs from the start of the training."""


@dataclass(frozen=True)
class FoldedAccuracy:
    """Accuracy over all folds; each label was used to evaluate once, in a run that did not train on it."""

    right: int
    count: int
    """Number of labels evaluated on."""
    fold_top1: tuple[float, ...]
    """Accuracy of each fold, in percent."""

    @property
    def top1(self) -> float:
        return 100 * self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of `top1`, in percent."""
        return wilson(self.right, self.count)

    def as_dict(self) -> dict[str, Any]:
        return {
            "folds_top1": self.top1,
            "folds_interval": list(self.interval),
            "folds": {"right": self.right, "count": self.count, "top1": list(self.fold_top1)},
        }


def measure_folds(recipe: Recipe, folder: Path, inexact: bool = False) -> FoldedAccuracy:
    """Train and evaluate those runs of `data.folds` that `folder` does not contain yet.

    Each run gets its share of the recipe's steps, and of all that the recipe counts in steps or epochs, so all of them
    together take as long as the recipe.

    Args:
        recipe: resolved, with `data.folds` set.
        folder: the run folder; each fold is a run folder in its `folds/`.
        inexact: continue a stopped fold even if the machine or versions differ.

    Raises:
        Interrupted: Ctrl-C was pressed; finished work is used when the run is resumed.
        ValueError: there are too few labels for this many folds.
    """
    assert recipe.data.folds is not None
    folds = recipe.data.folds
    judged = []
    for fold in range(folds):
        part = folder / FOLDS / f"{fold + 1}-of-{folds}"
        summary = read_summary(part)
        if "heldout" not in summary:
            notify(f"fold {fold + 1} of {folds}")
            summary = _train_fold(_recipe_of(recipe, fold), part, folder, inexact)
        by = summary["heldout"]["predicts_by"]
        judged.append(summary["heldout"][by])
    return FoldedAccuracy(
        right=sum(round(one["top1"] * one["count"] / 100) for one in judged),
        count=sum(one["count"] for one in judged),
        fold_top1=tuple(one["top1"] for one in judged),
    )


def _recipe_of(recipe: Recipe, fold: int) -> Recipe:
    folds, steps, optimizer = recipe.data.folds, recipe.trainer.steps, recipe.optimizer
    assert folds is not None
    assert steps is not None
    decay = optimizer.weight_decay_schedule
    schedules: dict[str, Any] = {"lr": _shortened(optimizer.lr, folds)}
    schedules |= {} if decay is None else {"weight_decay_schedule": _shortened(decay, folds)}
    method: Any = recipe.method
    counts = {name: getattr(method, name) for name in _COUNTS if hasattr(method, name)}
    return replace(
        recipe,
        data=replace(recipe.data, fold=fold, test=None),
        trainer=replace(recipe.trainer, steps=max(1, steps // folds) if steps else 0),
        optimizer=replace(optimizer, **schedules),
        method=replace(method, **{name: type(count)(count / folds) for name, count in counts.items()}),
    )


def _shortened(schedule: ScheduleConfig, folds: int) -> ScheduleConfig:
    milestones = tuple(epoch / folds for epoch in schedule.milestones)
    return replace(schedule, warmup_epochs=schedule.warmup_epochs / folds, milestones=milestones)


def _train_fold(recipe: Recipe, part: Path, folder: Path, inexact: bool) -> dict[str, Any]:
    with writing(part, RESUME):
        part.mkdir(parents=True, exist_ok=True)
    run = assemble(recipe, weights=not list_checkpoints(part / CHECKPOINTS))
    if inexact:
        check_still_held_out(part, run.data)
    write_recipe(part, run.recipe)
    state = run.trainer(part, inexact=inexact, part_of=folder).fit()
    assert run.data.held_out is not None
    held = run.evaluate(run.data.store, run.data.held_out)
    summary = {
        "steps": state.step,
        "train_seconds": round(state.train_seconds, 3),
        "num_labels": len(run.data.labels.labelled),
        "heldout": held.as_dict(),
        "heldout_top1": held.headline.top1,
        "heldout_interval": list(held.headline.interval),
        **environment(),
    }
    write_summary(part, summary)
    return summary
