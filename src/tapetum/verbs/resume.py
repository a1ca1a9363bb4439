"""`tapetum resume`: continue a run that was stopped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapetum.engine.checkpoint import CHECKPOINTS, list_checkpoints
from tapetum.methods.registry import load_plugins
from tapetum.recipe.from_weights import start_of
from tapetum.recipe.recipe import Recipe
from tapetum.runs.places import located, moved_to
from tapetum.runs.run import assemble
from tapetum.runs.run_folder import open_run_folder, sole_writer, write_recipe
from tapetum.runs.weights import check_still_held_out
from tapetum.system.interruption import Interrupted
from tapetum.system.launcher import process_rank
from tapetum.system.notices import notify
from tapetum.verbs.finetune import compare_with_start
from tapetum.verbs.train import finish


def resume(
    run: str | Path,
    inexact: bool = False,
    plugins: Sequence[str] = (),
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    test: str | Path | None = None,
) -> dict[str, Any]:
    """Continue a run from its last checkpoint, to the weights and metrics that an uninterrupted run would have.

    A run that was stopped before its first checkpoint starts again from step 0; a finished one is evaluated again. If
    the last checkpoint is damaged, the one before is used, which a notice says.

    Args:
        run: the run's folder, which may have been moved, renamed or copied.
        inexact: continue even if machine, versions or files differ, so that the resulting bits differ, too; not if
            other labels than before are held out, as these may have trained the run.
        plugins: modules to import first; they register methods.
        images, labels, test: where they are now, if they have been moved. The run's recipe.yaml keeps the new places.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        ValueError: no run folder, a foreign checkpoint, or another machine, version or file (the message says which).

    Example:
        >>> import tapetum
        >>> summary = tapetum.resume("runs/digits")  # doctest: +SKIP
    """
    load_plugins(plugins)
    folder, recipe = open_run_folder(run)
    with sole_writer(folder):
        moved = moved_to(images, labels, test)
        recipe = located(folder, recipe, moved, needs_test=True)
        begins = not list_checkpoints(folder / CHECKPOINTS)
        if begins:
            notify("no checkpoint was written yet: starting from step 0")
        try:
            parts = assemble(recipe, weights=begins)
            if inexact:  # without it, other labels are refused for the bits that they change
                check_still_held_out(folder, parts.data)
            summary = finish(parts, folder, inexact=inexact)
        except Interrupted:
            _remember(folder, recipe, moved)
            raise
        _remember(folder, recipe, moved)
    if _lacks_comparison(recipe, summary) and process_rank() == 0:
        summary |= compare_with_start(folder, str(start_of(recipe)), plugins=plugins)
    return summary


def _lacks_comparison(recipe: Recipe, summary: Mapping[str, Any]) -> bool:
    """Whether `finetune` was stopped before it had compared the result with the weights that it started from."""
    return recipe.method.kind == "finetune" and start_of(recipe) is not None and "beside_neighbours" not in summary


def _remember(folder: Path, recipe: Recipe, moved: Mapping[str, str]) -> None:
    """Write new places into the run's recipe, once its data has been found there."""
    if moved and process_rank() == 0:
        write_recipe(folder, recipe)
