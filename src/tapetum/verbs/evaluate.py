"""`tapetum evaluate`: how well a finished run classifies labelled images that it has not seen."""

from __future__ import annotations

from pathlib import Path

from tapetum.assembly import assemble, open_test
from tapetum.engine.callbacks import notify
from tapetum.engine.checkpoint import latest_checkpoint
from tapetum.evaluation.soft_neighbours import Accuracy, Evaluation
from tapetum.run_folder import CHECKPOINTS, open_run_folder, read_summary, write_summary


def evaluate(run: str | Path, test: str | Path) -> Evaluation:
    """Judge a run's last checkpoint by soft nearest neighbours, top-1, top-5 and per class.

    The supports are all labelled images that the run was trained with. The result is printed and added to the
    run's summary.json.

    Args:
        run: its folder.
        test: labelled images: one folder a class, or any other source.

    Returns:
        Accuracies; for methods with a classifier of their own also its.

    Raises:
        ValueError: no run folder, no checkpoint in it, or test images with unknown classes.

    Example:
        >>> import tapetum
        >>> tapetum.evaluate("runs/cifar", "cifar10/test").soft_neighbours.top1  # doctest: +SKIP
    """
    folder, recipe = open_run_folder(run)
    parts = assemble(recipe)
    checkpoint = latest_checkpoint(folder / CHECKPOINTS, notify)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint yet: finish it with `tapetum resume {folder}`.")
    parts.method.load_state_dict(checkpoint.part("method"))
    parts.runtime.setup(parts.method, parts.optimizer)
    evaluation = parts.evaluate(*open_test(test, parts.data.labels.classes))
    _tell("Soft nearest neighbours", evaluation.soft_neighbours)
    if evaluation.classifier is not None:
        _tell("The method's own classifier", evaluation.classifier)
    if checkpoint.step == recipe.trainer.steps:
        judged = {"test": evaluation.as_dict(), "test_top1": evaluation.headline.top1, "test_images": str(test)}
        write_summary(folder, read_summary(folder) | judged)
    print(f"Next: tapetum views {folder / 'recipe.yaml'} --output {folder / 'views.png'}")
    return evaluation


def _tell(name: str, accuracy: Accuracy) -> None:
    print(f"{name}: top-1 {accuracy.top1:.2f}%, top-5 {accuracy.top5:.2f}% of {accuracy.count} images")
    width = max(len(c) for c in accuracy.per_class)
    for class_name, value in accuracy.per_class.items():
        print(f"  {class_name:<{width}}  {value:6.2f}%")
