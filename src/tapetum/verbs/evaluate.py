"""`tapetum evaluate`: measure how well a run classifies labelled images that it has not seen."""

from collections.abc import Sequence
from pathlib import Path

from tapetum.evaluation.accuracy import Accuracy, Evaluation
from tapetum.runs.run_folder import read_summary, write_summary
from tapetum.runs.test_set import check_evaluation, check_unseen, find_test, open_test
from tapetum.runs.trained_run import TrainedRun, open_trained_run

PROTOCOLS = ("soft_nn", "knn", "linear")


def evaluate(
    run: str | Path, test: str | Path | None = None, plugins: Sequence[str] = (), *, protocol: str | None = None
) -> Evaluation:
    """Evaluate a run's last checkpoint by soft nearest neighbours: top-1, top-5 and the accuracy of each class.

    The supports are all labelled images that the run was trained with. The result is printed; for a finished run it is
    also added to summary.json, unless it is that of held-out labels.

    Args:
        run: the run's folder.
        test: labelled images: one folder per class, or any other source. None for the test images of the run's recipe,
            or if it has none, the labels that the run held out.
        plugins: modules to import first; they register methods.
        protocol: what to print: "soft_nn" (also for None) for soft nearest neighbours and the method's own classifier,
            "knn" for the votes of the 20 and the 200 nearest neighbours, or "linear" for a linear probe that is trained
            on the embeddings of the labelled images, its regularisation chosen by cross-validation.

    Returns:
        Accuracies by all protocols, by the linear probe only if `protocol` is "linear", and that of the method's own
        classifier if it has one.

    Raises:
        ValueError: there is no run folder or no checkpoint that fits its recipe, or the test images cannot be evaluated
            or are missing.

    Example:
        >>> import tapetum
        >>> tapetum.evaluate("runs/cifar", "cifar10/test").soft_neighbours.top1  # doctest: +SKIP
    """
    if protocol not in (None, *PROTOCOLS):
        raise ValueError(f"protocol is {protocol!r}: choose one of {', '.join(PROTOCOLS)}.")
    trained = open_trained_run(run, plugins)
    test = test or trained.parts.recipe.data.test
    linear = protocol == "linear"
    evaluation = _judge_held_out(trained, linear) if test is None else _judge(trained, test, linear)
    _tell_all(evaluation, protocol or PROTOCOLS[0])
    if test is not None and trained.is_finished:
        judged = {"test": evaluation.as_dict(), "test_top1": evaluation.headline.top1, "test_images": str(test)}
        write_summary(trained.folder, read_summary(trained.folder) | judged)
    print(f"Next: tapetum report {trained.folder}")
    return evaluation


def _judge(trained: TrainedRun, test: str | Path, linear: bool) -> Evaluation:
    recipe, data = trained.parts.recipe, trained.parts.data
    store, labels = open_test(test, trained.classes, shrink_to=recipe.data.shrink_to)
    check_evaluation(store, recipe.views, trained_on=data.store)
    check_unseen(data.opened, data.labels, find_test(test, trained.classes), test)
    return trained.parts.evaluate(store, labels, linear)


def _judge_held_out(trained: TrainedRun, linear: bool) -> Evaluation:
    if trained.held_out is None:
        raise ValueError(
            f"{trained.folder} names no test images, and no label counts as held out: "
            "give labelled images that training has not seen with --test DIR"
        )
    print("No --test given, so these are the labels that the run held out.")
    return trained.parts.evaluate(trained.parts.data.store, trained.held_out, linear)


def _tell_all(evaluation: Evaluation, protocol: str) -> None:
    if protocol == "knn":
        for count, votes in evaluation.nearest_neighbours.items():
            _tell(f"{count} nearest neighbours", votes)
        return
    if evaluation.linear is not None:
        _tell(f"Linear probe (lambda {evaluation.linear_regularisation:g}, by cross-validation)", evaluation.linear)
        return
    _tell("Soft nearest neighbours", evaluation.soft_neighbours)
    if evaluation.classifier is not None:
        _tell("The method's own classifier", evaluation.classifier)


def _tell(name: str, accuracy: Accuracy) -> None:
    print(f"{name}: top-1 {accuracy.top1:.2f}%, top-5 {accuracy.top5:.2f}% of {accuracy.count} images")
    width = max(len(c) for c in accuracy.per_class)
    for class_name, value in accuracy.per_class.items():
        print(f"  {class_name:<{width}}  {value:6.2f}%")
