"""`tapetum evaluate`: how well a finished run classifies labelled images that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tapetum.evaluation.soft_neighbours import Accuracy, Evaluation
from tapetum.opening import check_evaluation, open_test
from tapetum.run_folder import read_summary, write_summary
from tapetum.trained_run import open_trained_run

PROTOCOLS = ("soft_nn", "knn")


def evaluate(
    run: str | Path, test: str | Path, plugins: Sequence[str] = (), *, protocol: str | None = None
) -> Evaluation:
    """Judge a run's last checkpoint by soft nearest neighbours, top-1, top-5 and per class.

    The supports are all labelled images that the run was trained with. The result is printed and added to the
    run's summary.json.

    Args:
        run: its folder.
        test: labelled images: one folder a class, or any other source.
        plugins: modules to import first, which register methods.
        protocol: what is printed: "soft_nn", soft nearest neighbours and the method's own classifier (None: this),
            or "knn", the votes of the 20 and the 200 nearest neighbours.

    Returns:
        Accuracies by all protocols; for methods with a classifier of their own also its.

    Raises:
        ValueError: no run folder, no checkpoint in it that fits its recipe, or test images that cannot be judged.

    Example:
        >>> import tapetum
        >>> tapetum.evaluate("runs/cifar", "cifar10/test").soft_neighbours.top1  # doctest: +SKIP
    """
    if protocol not in (None, *PROTOCOLS):
        raise ValueError(f"protocol is {protocol!r}: choose one of {', '.join(PROTOCOLS)}.")
    trained = open_trained_run(run, plugins)
    parts = trained.parts
    store, labels = open_test(test, trained.classes, shrink_to=parts.recipe.data.shrink_to)
    check_evaluation(store, parts.recipe.views, trained_on=parts.data.store)
    evaluation = parts.evaluate(store, labels)
    _tell_all(evaluation, protocol or PROTOCOLS[0])
    _report(evaluation, trained.folder, test, trained.is_finished)
    return evaluation


def _tell_all(evaluation: Evaluation, protocol: str) -> None:
    if protocol == "knn":
        for count, votes in evaluation.nearest_neighbours.items():
            _tell(f"{count} nearest neighbours", votes)
        return
    _tell("Soft nearest neighbours", evaluation.soft_neighbours)
    if evaluation.classifier is not None:
        _tell("The method's own classifier", evaluation.classifier)


def _report(evaluation: Evaluation, folder: Path, test: str | Path, is_finished: bool) -> None:
    if is_finished:
        judged = {"test": evaluation.as_dict(), "test_top1": evaluation.headline.top1, "test_images": str(test)}
        write_summary(folder, read_summary(folder) | judged)
    print(f"Next: tapetum report {folder}")


def _tell(name: str, accuracy: Accuracy) -> None:
    print(f"{name}: top-1 {accuracy.top1:.2f}%, top-5 {accuracy.top5:.2f}% of {accuracy.count} images")
    width = max(len(c) for c in accuracy.per_class)
    for class_name, value in accuracy.per_class.items():
        print(f"  {class_name:<{width}}  {value:6.2f}%")
