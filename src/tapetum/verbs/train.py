"""`tapetum train`: train a recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapetum.data.health.unreadable import skip_unreadable, write_unreadable
from tapetum.data.images.cache import decoded
from tapetum.data.images.stores import shrunk
from tapetum.engine.sharding import weights_of
from tapetum.engine.state import TrainState
from tapetum.methods.registry import load_plugins
from tapetum.recipe.recipe import Recipe, load_recipe
from tapetum.runs.best_checkpoint import best_checkpoint
from tapetum.runs.folds import measure_folds
from tapetum.runs.run import Run, assemble
from tapetum.runs.run_folder import (
    UNREADABLE,
    command,
    environment,
    new_run_folder,
    read_summary,
    sole_writer,
    update_summary,
    write_recipe,
    write_summary,
)
from tapetum.runs.test_set import check_evaluation, check_unseen, find_test, open_test
from tapetum.runs.weights import check_unseen_by_run, count_known
from tapetum.system.interruption import Interrupted
from tapetum.system.notices import notify, progress_notices
from tapetum.system.started import command_began


def train(
    recipe: str | Path | Recipe, output: str | Path, overrides: Sequence[str] = (), plugins: Sequence[str] = ()
) -> dict[str, Any]:
    """Train a recipe, evaluate the result, and write everything into a new run folder.

    Args:
        recipe: name of a shipped recipe, path of a YAML file, or a `Recipe`.
        output: the run folder, new or empty.
        overrides: `key.path=value` each; not with a `Recipe`.
        plugins: modules to import first; they register methods.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        ValueError: the recipe is faulty, the data does not fit it, or the folder is not empty.

    Example:
        >>> import tapetum
        >>> summary = tapetum.train("paws_digits", "runs/digits")  # doctest: +SKIP
    """
    began = command_began()
    load_plugins(plugins)
    settings = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    return train_since(began, settings, output)


def train_since(began: float, recipe: Recipe, output: str | Path) -> dict[str, Any]:
    """Train a recipe, as `train` does, for a command that began when `time.perf_counter` returned `began`.

    The minutes of a recipe are those of the whole command: what has passed since it began is no longer left to train.
    """
    with new_run_folder(output) as folder, sole_writer(folder):
        return finish(_prepare(recipe, folder, began), folder)


def _prepare(settings: Recipe, folder: Path, began: float) -> Run:
    """Assemble the run, with its length in steps, and write its recipe into the folder so that it can be resumed."""
    run = assemble(settings)
    unreadable, num_test = list(run.data.unreadable), 0
    if run.recipe.data.test is not None:
        # Missing test images are reported now, not after hours of training. They are used only after the last step.
        test = find_test(run.recipe.data.test, run.data.labels.classes)
        test, unreadable_tests = skip_unreadable(test, run.recipe.data.strict)
        unreadable += unreadable_tests
        check_evaluation(test.store, run.embedder_for(test.store).views, trained_on=run.data.store)
        check_unseen(run.data.opened, run.data.labels, test, run.recipe.data.test)
        if run.recipe.init is not None:
            check_unseen_by_run(run.recipe.init, run.recipe.data, test, run.recipe.data.test)
        # Decoded now, so that it counts among what has passed when minutes become steps.
        decoded(shrunk(test.store, run.recipe.data.shrink_to), report=progress_notices("decoded"))
        assert test.labels is not None
        num_test = len(test.labels.labelled)
    notify(f"pool: {run.data.description}; {len(run.data.labels.labelled)} labels")
    begun = {"command": command(), "num_classes": run.data.labels.num_classes}
    if run.runtime.rank == 0 and (known := count_known(run.recipe, run.data)):
        notify(f"{known} of the labels that accuracy is measured on trained {run.recipe.init}, where this run starts")
        begun["known_to_start"] = known
    run.resolve(began, folder, num_test)
    run.runtime.barrier()  # until every process has found the folder empty
    if run.runtime.rank == 0:
        write_summary(folder, begun)
        if unreadable:
            write_unreadable(folder / UNREADABLE, unreadable)
        write_recipe(folder, run.recipe)  # last: from now on the run can be resumed, which writes none of these
    return run


def finish(run: Run, folder: Path, inexact: bool = False) -> dict[str, Any]:
    """Train to the end from the folder's last checkpoint, if any, evaluate, and write the summary.

    Entries of an earlier summary that this one lacks, such as those of `evaluate`, are kept: the weights are the same.
    The original command is kept, too, because resuming does not change what was trained.

    Raises:
        Interrupted: on Ctrl-C, after printing how to continue.
    """
    earlier = read_summary(folder)
    trainer = run.trainer(folder, inexact=inexact)
    is_folded = run.recipe.data.folds is not None and run.recipe.data.fold is None
    try:
        folded = measure_folds(run.recipe, folder, inexact).as_dict() if is_folded else {}
        found = _judge(run, trainer.fit(), folder) | folded | environment()
        summary = {"command": command()} | earlier | found
    except KeyboardInterrupt:  # while evaluating, between folds, or for the second time while training
        message = f"Stopped at once. Continue from what is saved with: tapetum resume {folder}"
        notify(message)
        raise Interrupted(trainer.state.step, message) from None
    if run.runtime.rank == 0:
        summary = update_summary(folder, {"command": summary["command"]} | found)
        _tell(run, folder, summary)
    return summary


def _judge(run: Run, state: TrainState, folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "method": run.recipe.method.kind,
        "steps": state.step,
        "images_seen": state.images_seen,
        "train_seconds": round(state.train_seconds, 3),
        "num_classes": run.data.labels.num_classes,
        "num_labels": len(run.data.labels.labelled),
        "num_images": len(run.data.pool),
        "skipped_steps": state.skipped_steps,
    }
    if run.recipe.trainer.keep_best:
        best = best_checkpoint(folder, run.method.predicts_by)
        weights_of(run.method).load(best.part("method"))
        summary["best_step"] = best.step
    if run.data.held_out is not None:
        held = run.evaluate(run.data.store, run.data.held_out)
        summary["heldout"] = held.as_dict()
        summary["heldout_top1"] = held.headline.top1
        summary["heldout_interval"] = list(held.headline.interval)
    if run.recipe.data.test is not None:
        shrink_to = run.recipe.data.shrink_to
        judged = run.evaluate(*open_test(run.recipe.data.test, run.data.labels.classes, shrink_to=shrink_to))
        summary["test"] = judged.as_dict()
        summary["test_top1"] = judged.headline.top1
        summary["test_images"] = run.recipe.data.test
    return summary


def _tell(run: Run, folder: Path, summary: dict[str, Any]) -> None:
    print(f"Trained {summary['steps']} steps in {summary['train_seconds']:.0f} s; everything is in {folder}.")
    if run.data.held_out is not None:
        count, (low, high) = len(run.data.held_out.labelled), summary["heldout_interval"]
        reach = f"95% interval {low:.1f} to {high:.1f}%, from {count} label{'s' * (count > 1)}"
        print(f"Accuracy on held-out labels: {summary['heldout_top1']:.2f}% ({reach})")
        _tell_known(run, summary)
    if "test_top1" in summary:
        print(f"Accuracy on test images: {summary['test_top1']:.2f}%")
    if "best_step" in summary:
        print(f"  Step {summary['best_step']} was chosen by its held-out accuracy: expect slightly less on new images.")
    if "folds_top1" in summary:
        (low, high), count = summary["folds_interval"], summary["folds"]["count"]
        reach = f"95% interval {low:.1f} to {high:.1f}%, each of {count} labels predicted once"
        print(
            f"Accuracy of {run.recipe.data.folds} short runs on held-out labels: {summary['folds_top1']:.2f}% ({reach})"
        )
        _tell_known(run, summary)
    if not run.data.labels.num_classes:
        print("No accuracy: no image is labelled.")
        print(f"Next: tapetum cluster {folder} {run.recipe.data.images} --output clusters --clusters 20")
        return
    if run.data.held_out is None and not {"test_top1", "folds_top1"} & set(summary):
        used = "every label trained the model" if run.recipe.support is not None else "there are no test images"
        print(f"No accuracy: {used}, and no label is held out to measure on.")
    print(f"Next: tapetum report {folder}")


def _tell_known(run: Run, summary: Mapping[str, Any]) -> None:
    if known := summary.get("known_to_start"):
        print(
            f"  {known} of these labels trained {run.recipe.init}, where this run started: expect less on new images, "
            "and give labelled ones that neither has seen with --test DIR."
        )
