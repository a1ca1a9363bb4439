"""`tapetum evaluate`: measure how well a run, or a file of weights, classifies labelled images that it has not seen."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.evaluation.accuracy import (
    Accuracy,
    Evaluation,
    Neighbourhood,
    embed_supports,
    evaluate_by,
    evaluate_linearly,
    read_evaluation,
)
from tapetum.evaluation.embedding import Embedder, Features
from tapetum.evaluation.prediction import Supports
from tapetum.evaluation.soft_neighbours import TEMPERATURE
from tapetum.methods.registry import load_plugins
from tapetum.ops.collectives import gather_on_all
from tapetum.recipe.files import RECIPE
from tapetum.runs.added_classes import refuse_added
from tapetum.runs.run_folder import new_run_folder, update_summary
from tapetum.runs.test_set import check_evaluation, check_unseen, find_test, open_test
from tapetum.runs.trained_run import TrainedRun, open_trained_run
from tapetum.runs.tuning import TUNING, refuse_other, tuning_recipe
from tapetum.runs.weights import changed_data, check_unseen_by_run, is_run, open_weights, recipe_for_weights
from tapetum.system.launcher import process_rank
from tapetum.verbs.resume import resume
from tapetum.verbs.train import train

PROTOCOLS = ("soft_nn", "knn", "linear", *TUNING)
_PLACES = {"images", "labels"}
FEATURES = ("own", "backbone", "predictor")


@dataclass(frozen=True)
class _Wish:
    """What to measure, of which weights, by which images."""

    weights: str | Path
    protocol: str
    features: str | None
    neighbourhood: Neighbourhood
    data: dict[str, Any]
    output: str | Path | None
    plugins: Sequence[str]
    overrides: Sequence[str] = field(default=())

    @property
    def is_usual(self) -> bool:
        """Whether this is the evaluation that a run's summary holds."""
        return not (self.features or self.data.keys() - {"test", *_PLACES}) and self.neighbourhood == Neighbourhood()


def evaluate(
    run: str | Path,
    test: str | Path | None = None,
    plugins: Sequence[str] = (),
    *,
    protocol: str | None = None,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    labels_per_class: int | None = None,
    labels_percent: float | None = None,
    draws: int | None = None,
    features: str | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Evaluation | list[Evaluation]:
    """Evaluate a run, or other weights: top-1, top-5 and the accuracy of each class.

    By default, soft nearest neighbours among all labelled images that the run was trained with, and those added since.
    Processes that torchrun or srun started share the images out.
    The result is printed; for a finished run it is also added to summary.json, unless it is that of held-out labels or
    of settings that are not the default.

    Args:
        run: the run's folder; or a file of tensors, or `timm:NAME`, which need `images` (and labels for them).
        test: labelled images: one folder per class, or any other source. None for the test images of the run's recipe,
            or if it has none, the labels that the run held out.
        plugins: modules to import first; they register methods.
        protocol: what to measure: "soft_nn" (also for None) for soft nearest neighbours and the method's own
            classifier; "knn" for the votes of the 20 and the 200 nearest neighbours; "linear" for a linear probe on
            cached features, its regularisation chosen by cross-validation. Three protocols train, in a run folder of
            their own, and go on where they were interrupted: "linear_crops", a linear classifier on random crops;
            "finetune", the network with a linear classifier; and "suncet", its neighbours, by SuNCEt.
        images, labels: labelled images to use instead of those of the run.
        labels_per_class, labels_percent: use this many labels of each class, or this share of them.
        draws: measure this many random draws of the labels (and, for protocols that train, seeds), and print mean and
            standard deviation; needs test images.
        features: what stands for an image: "own", what the method is judged by (the projector's output for PAWS);
            "backbone"; or "predictor", the prediction head's output. None for "own", and for "linear" for "backbone".
        temperature: tau of soft nearest neighbours; None for 0.1.
        top_k: number of nearest labelled images that vote in soft nearest neighbours; None for all.
        output: the run folder of a protocol that trains; None for one below the run's `evaluations`.
        overrides: `key.path=value` each, for a protocol that trains.

    Returns:
        Accuracies by soft nearest neighbours, k-NN and the method's own classifier if it has one, by the linear probe
        if `protocol` is "linear"; a list of them, one a draw, if `draws` is given.

    Raises:
        ValueError: there is no run folder or no checkpoint that fits its recipe, or the test images cannot be evaluated
            or are missing.

    Example:
        >>> import tapetum
        >>> tapetum.evaluate("runs/cifar", "cifar10/test").soft_neighbours.top1  # doctest: +SKIP
    """
    chosen = protocol or PROTOCOLS[0]
    neighbourhood = Neighbourhood(TEMPERATURE if temperature is None else temperature, top_k)
    paths = {name: None if path is None else str(path) for name, path in (("images", images), ("labels", labels))}
    data: dict[str, Any] = {**paths, "labels_per_class": labels_per_class, "labels_percent": labels_percent}
    data |= {"test": None if test is None else str(test)}
    wish = _Wish(run, chosen, features, neighbourhood, changed_data(data), output, plugins, tuple(overrides))
    _check(wish, draws)
    load_plugins(plugins)
    if draws is None:
        evaluation = _measured(wish, None)
        _tell_all(evaluation, chosen)
    else:
        found = [_measured(wish, draw) for draw in range(draws)]
        _tell_spread(found, chosen)
    given = " ".join(f"--{name} {path}" for name, path in paths.items() if path is not None)
    _say(f"Next: tapetum report {run}" if is_run(run) else f"Next: tapetum finetune {run} {given} --output RUN")
    return evaluation if draws is None else found


def _check(wish: _Wish, draws: int | None) -> None:
    protocol, features, overrides = wish.protocol, wish.features, wish.overrides
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}: choose one of {', '.join(PROTOCOLS)}.")
    if features not in (None, *FEATURES):
        raise ValueError(f"features is {features!r}: choose one of {', '.join(FEATURES)}.")
    if draws is not None and draws < 2:
        raise ValueError(f"draws is {draws}: use 2 or more, or leave it out.")
    if protocol not in TUNING and (overrides or wish.output):
        raise ValueError(f"{protocol} trains nothing: leave out output and {' '.join(overrides) or 'recipe values'}.")
    if protocol in TUNING and features:
        raise ValueError(f"features is {features}, but {protocol} decides itself: leave it out.")
    if protocol != "soft_nn" and wish.neighbourhood != Neighbourhood():
        raise ValueError(f"temperature and top_k are for soft_nn, not for {protocol}: leave them out.")


def _measured(wish: _Wish, draw: int | None) -> Evaluation:
    data = wish.data if draw is None else {**wish.data, "label_seed": draw}
    if wish.protocol in TUNING:
        return _tuned(wish, data, draw)
    if not is_run(wish.weights):
        trained = open_weights(recipe_for_weights(wish.weights, data), shared=True)
    else:
        changes = {name: value for name, value in data.items() if name != "test"}
        trained = open_trained_run(wish.weights, wish.plugins, data=changes, shared=True)
    test = data.get("test") or trained.parts.recipe.data.test
    if test is None and draw is not None:
        raise ValueError("draws is given, so which labels are held out changes: give labelled images with --test DIR.")
    store, judged = _held_out(trained) if test is None else _opened(trained, test)
    evaluation = _judged(trained, wish, store, judged)
    is_own = _is_on_own_data(trained) or not wish.data.keys() & _PLACES
    if test is not None and trained.is_finished and wish.is_usual and draw is None and is_own:
        saved = {"test": evaluation.as_dict(), "test_top1": evaluation.headline.top1, "test_images": str(test)}
        if process_rank() == 0:
            update_summary(trained.folder, saved)
    return evaluation


def _judged(trained: TrainedRun, wish: _Wish, store: Store, labels: Labels) -> Evaluation:
    own, judged = trained.parts.embedder, trained.embedder_for(store)
    if wish.features in (None, "own"):
        evaluation = trained.evaluate(store, labels, wish.neighbourhood)
    else:
        features = cast(Features, wish.features)
        supports = _supports(trained, replace(own, features=features))
        known = replace(judged, features=features), supports, trained.classes
        evaluation = evaluate_by(*known, test=store, test_labels=labels, neighbourhood=wish.neighbourhood)
    if wish.protocol != "linear":
        return evaluation
    usual = "backbone" if hasattr(trained.parts.method, "backbone") else "own"
    features = cast(Features, wish.features or usual)
    supports = _supports(trained, replace(own, features=features, classifies=False))
    probed = replace(judged, features=features, classifies=False)
    accuracy, value = evaluate_linearly(probed, supports, trained.classes, test=store, test_labels=labels)
    return replace(evaluation, linear=accuracy, linear_regularisation=value)


def _supports(trained: TrainedRun, embedder: Embedder) -> Supports:
    """Embed the images that training had labels of, and those that were added since."""
    if not trained.added:
        return embed_supports(embedder, trained.parts.data.store, trained.labels)
    if embedder.features != "own":
        raise ValueError(
            f"images were added to {trained.folder}, and of these only the method's own features are kept, not those "
            f"of the {embedder.features}: give --features own."
        )
    return trained.training_supports


def _opened(trained: TrainedRun, test: str | Path) -> tuple[Store, Labels]:
    """Open test images, and refuse those whose labels have trained the run, or support its predictions now."""
    recipe, data = trained.parts.recipe, trained.parts.data
    store, labels = open_test(test, trained.classes, shrink_to=recipe.data.shrink_to)
    check_evaluation(store, trained.embedder_for(store).views, trained_on=data.store)
    tests = find_test(test, trained.classes)
    if not _is_on_own_data(trained):
        check_unseen_by_run(trained.folder, recipe.data, tests, test)
    check_unseen(data.opened, data.labels, tests, test)
    refuse_added(trained.added, trained.embedder_for(store), store, labels.labelled, str(test))
    return store, labels


def _is_on_own_data(trained: TrainedRun) -> bool:
    """Whether the images and labels are those of the training, wherever they are now."""
    return trained.has_own("data", "labels")


def _held_out(trained: TrainedRun) -> tuple[Store, Labels]:
    if trained.held_out is None:
        raise ValueError(
            f"{trained.folder} names no test images, and no label counts as held out: "
            "give labelled images that training has not seen with --test DIR"
        )
    _say("No --test given, so these are the labels that the run held out.")
    return trained.parts.data.store, trained.held_out


def _tuned(wish: _Wish, data: dict[str, Any], draw: int | None) -> Evaluation:
    """Train by the protocol, or go on with its run, and return the accuracies of the result."""
    name = wish.protocol if draw is None else f"{wish.protocol}_{draw}"
    if wish.output is None and not is_run(wish.weights):
        raise ValueError(
            f"{wish.protocol} trains, and {wish.weights} is no run to keep the result in: give --output RUN."
        )
    folder = Path(wish.weights, "evaluations", name) if wish.output is None else Path(wish.output)
    if wish.output is not None and draw is not None:
        folder = folder / name
    if gather_on_all((folder / RECIPE).is_file())[0]:  # the first process may go on and write one
        refuse_other(folder, data, wish.overrides)
        summary = resume(folder, plugins=wish.plugins)
    else:
        seeds = [] if draw is None else [f"seed={draw}"]
        base = recipe_for_weights(wish.weights, data)
        recipe = tuning_recipe(base, wish.protocol, wish.weights, [*seeds, *wish.overrides])
        chosen = recipe.data
        if (chosen.test, chosen.held_out_per_class, chosen.held_out_share, chosen.folds) == (None, None, None, None):
            raise ValueError(
                f"{wish.weights} names no test images, and no label would be held out: give labelled images that "
                "training has not seen with --test DIR."
            )
        with new_run_folder(folder):
            summary = train(recipe, folder)
    return read_evaluation(summary.get("test") or summary["heldout"])


def _accuracies(evaluation: Evaluation, protocol: str) -> dict[str, Accuracy]:
    """What a protocol measures, by the name to print."""
    if protocol == "knn":
        return {f"{count} nearest neighbours": votes for count, votes in evaluation.nearest_neighbours.items()}
    if protocol == "linear":
        assert evaluation.linear is not None
        chosen = f"lambda {evaluation.linear_regularisation:g}, by cross-validation"
        return {f"Linear probe ({chosen})": evaluation.linear}
    if protocol in ("finetune", "linear_crops"):
        return {"The classifier": evaluation.headline}
    found = {"Soft nearest neighbours": evaluation.soft_neighbours}
    if evaluation.classifier is not None:
        found["The method's own classifier"] = evaluation.classifier
    return found


def _say(result: str) -> None:
    if process_rank() == 0:
        print(result)


def _tell_all(evaluation: Evaluation, protocol: str) -> None:
    for name, accuracy in _accuracies(evaluation, protocol).items():
        _say(f"{name}: top-1 {accuracy.top1:.2f}%, top-5 {accuracy.top5:.2f}% of {accuracy.count} images")
        width = max(len(c) for c in accuracy.per_class)
        for class_name, value in accuracy.per_class.items():
            _say(f"  {class_name:<{width}}  {value:6.2f}%")


def _tell_spread(evaluations: Sequence[Evaluation], protocol: str) -> None:
    draws = [list(_accuracies(evaluation, protocol).items()) for evaluation in evaluations]
    for measured in zip(*draws):
        name = measured[0][0].partition(" (lambda")[0]
        top1 = [accuracy.top1 for _, accuracy in measured]
        each = " ".join(f"{value:.2f}" for value in top1)
        mean, deviation = statistics.mean(top1), statistics.stdev(top1)
        _say(f"{name}: top-1 {mean:.2f}% +- {deviation:.2f} over {len(top1)} draws ({each})")
