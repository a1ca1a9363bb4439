"""`tapetum resume`: continue a run that was stopped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tapetum.engine.checkpoint import CHECKPOINTS, list_checkpoints
from tapetum.methods.registry import load_plugins
from tapetum.runs.run import assemble
from tapetum.runs.run_folder import open_run_folder, sole_writer
from tapetum.system.notices import notify
from tapetum.verbs.train import finish


def resume(run: str | Path, inexact: bool = False, plugins: Sequence[str] = ()) -> dict[str, Any]:
    """Continue a run from its last checkpoint, to the weights and metrics that an uninterrupted run would have.

    A run that was stopped before its first checkpoint starts again from step 0; a finished one is evaluated again.

    Args:
        run: the run's folder.
        inexact: continue even if machine, versions or files differ, so that the resulting bits differ, too.
        plugins: modules to import first; they register methods.

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
        begins = not list_checkpoints(folder / CHECKPOINTS)
        if begins:
            notify("no checkpoint was written yet: starting from step 0")
        return finish(assemble(recipe, weights=begins), folder, inexact=inexact)
