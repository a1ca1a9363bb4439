"""The checkpoint that predicts held-out labels best, where a recipe asks for it and there are enough of them."""

from __future__ import annotations

from pathlib import Path

from tapetum.data.labels.labels import Labels
from tapetum.engine.checkpoint import CHECKPOINTS, Checkpoint, checkpoint_path, list_checkpoints, read_checkpoint
from tapetum.engine.loggers import METRICS, read_curves

LEAST_TO_CHOOSE_BY = 100
"""Held-out labels; with fewer, checkpoints differ by a few images, and the best of them is mostly the luckiest."""


def check_choosable(held_out: Labels | None) -> None:
    """Whether there are enough held-out labels to choose a checkpoint by.

    Raises:
        ValueError: there are not.
    """
    count = 0 if held_out is None else len(held_out.labelled)
    if count < LEAST_TO_CHOOSE_BY:
        raise ValueError(
            f"trainer.keep_best is true, but {count} labels are held out and choosing a checkpoint takes "
            f"{LEAST_TO_CHOOSE_BY}: hold out more, or set it to false, which uses the last one."
        )


def best_checkpoint(folder: Path, predicts_by: str) -> Checkpoint:
    """Of the kept checkpoints of a finished run, that of the highest held-out accuracy in metrics.csv.

    Args:
        folder: the run folder.
        predicts_by: the method's: "soft_neighbours" or "classifier".

    Raises:
        ValueError: metrics.csv has no accuracy of any of them, or the best one is damaged.
    """
    column = "eval/classifier_top1" if predicts_by == "classifier" else "eval/soft_nn_top1"
    steps, values = read_curves(folder / METRICS).get(column, ([], []))
    kept = set(list_checkpoints(folder / CHECKPOINTS))
    found = [(value, int(step)) for step, value in zip(steps, values)]
    found = [(value, step) for value, step in found if checkpoint_path(folder / CHECKPOINTS, step) in kept]
    if not found:
        raise ValueError(
            f"{folder / METRICS} has no {column} for a checkpoint that is there: set trainer.keep_best to false in "
            f"{folder}'s recipe, which uses the last one."
        )
    return read_checkpoint(checkpoint_path(folder / CHECKPOINTS, max(found)[1]))
