"""Finds the checkpoint that predicts held-out labels best (`trainer.keep_best`), if there are enough of these."""

from pathlib import Path

from torch import Tensor

from tapetum.data.labels.labels import Labels
from tapetum.engine.checkpoint import CHECKPOINTS, Checkpoint, checkpoint_path, list_checkpoints, read_checkpoint
from tapetum.engine.loggers import METRICS, read_curves
from tapetum.recipe.files import RECIPE
from tapetum.runs.run_folder import open_run_folder, read_summary
from tapetum.system.notices import notify

LEAST_TO_CHOOSE_BY = 100
"""Least number of held-out labels. With fewer, checkpoints differ by a few images, and the best is mostly lucky."""


def check_choosable(held_out: Labels | None) -> None:
    """Check that there are enough held-out labels to choose a checkpoint by.

    Raises:
        ValueError: there are too few.
    """
    count = 0 if held_out is None else len(held_out.labelled)
    if count < LEAST_TO_CHOOSE_BY:
        raise ValueError(
            f"trainer.keep_best is true, but {count} labels are held out and choosing a checkpoint takes "
            f"{LEAST_TO_CHOOSE_BY}: hold out more, or set it to false, which uses the last one."
        )


def best_checkpoint(folder: Path, predicts_by: str) -> Checkpoint:
    """Read the kept checkpoint of a finished run that has the highest held-out accuracy in metrics.csv.

    If that one is damaged, a notice says so, and the next best is read.

    Args:
        folder: the run folder.
        predicts_by: what the method predicts with: "soft_neighbours" or "classifier".

    Raises:
        ValueError: metrics.csv has no accuracy for any kept checkpoint, or none of these can be read.
    """
    column = "eval/classifier_top1" if predicts_by == "classifier" else "eval/soft_nn_top1"
    steps, values = read_curves(folder / METRICS).get(column, ([], []))
    kept = set(list_checkpoints(folder / CHECKPOINTS))
    found = [(value, int(step)) for step, value in zip(steps, values)]
    found = [(value, step) for value, step in found if checkpoint_path(folder / CHECKPOINTS, step) in kept]
    if not found:
        raise ValueError(
            f"{folder / METRICS} has no {column} for any kept checkpoint: set trainer.keep_best to false in "
            f"{folder}'s recipe, which uses the last one."
        )
    for _, step in sorted(found, reverse=True):
        try:
            return read_checkpoint(checkpoint_path(folder / CHECKPOINTS, step))
        except ValueError as error:
            notify(f"{error} Going to the next best checkpoint.")
    raise ValueError(f"No checkpoint in {folder} that was measured can be read: start the run again.")


def best_weights(weights: str | Path) -> dict[str, Tensor] | None:
    """Read what a finished run predicts by, if that is not its last checkpoint; None for all other weights."""
    if not Path(weights, RECIPE).is_file():
        return None
    folder, recipe = open_run_folder(weights)
    summary = read_summary(folder)
    if not recipe.trainer.keep_best or "best_step" not in summary:  # still training, or stopped
        return None
    return dict(best_checkpoint(folder, summary["heldout"]["predicts_by"]).tensors)
