"""Makes of a trained run what every export starts from."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tapetum.data.views.draw import ViewsConfig
from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.runs.run_folder import read_summary
from tapetum.runs.trained_run import TrainedRun
from tapetum.system.notices import notify


def trained_model(trained: TrainedRun, with_supports: bool) -> TrainedModel:
    """Return a run's model with its classes, preprocessing and measured accuracies.

    The run's own method is moved to the CPU, to evaluation mode and to float32.

    Args:
        trained: the run; it is not used for anything else afterwards.
        with_supports: whether to embed the labelled images, which takes a pass over all of them.

    Raises:
        ValueError: a labelled image cannot be read, or the run's summary is damaged.
    """
    recipe = trained.parts.recipe
    supports = trained.supports if with_supports and trained.classes else None  # before the method leaves its device
    return TrainedModel(
        name=trained.folder.resolve().name,
        description=_description(trained),
        method=trained.parts.method.cpu().float().eval(),
        backbone=recipe.backbone,
        views=_views(trained),
        classes=trained.classes,
        supports=supports,
        support_names=trained.support_names if supports is not None else (),
        accuracies=_accuracies(trained),
    )


def _accuracies(trained: TrainedRun) -> dict[str, float]:
    """The accuracies in the run's summary, unless they are those of other weights, labels or classes than it has."""
    found = measured_accuracies(read_summary(trained.folder)) if trained.is_finished else {}
    is_same = not trained.added and trained.has_own_labels
    if not found or is_same or trained.predicts_by == "classifier":  # which knows nothing of later labels
        return found
    notify(f"the accuracies of {trained.folder} are left out, as its labels or classes have changed since training")
    return {}


def _description(trained: TrainedRun) -> str:
    recipe, labelled = trained.parts.recipe, len(trained.parts.data.labels.labelled)
    return (
        f"Trained with Tapetum: method {recipe.method.kind}, {trained.checkpoint.step:,} steps, "
        f"{len(trained.parts.data.pool):,} images, {f'{labelled:,} of them' if labelled else 'none'} with labels."
    )


def _views(trained: TrainedRun) -> ViewsConfig:
    """The run's views; the evaluation view says to what size images unlike the pool's are resized."""
    views, pool = trained.parts.recipe.views, trained.parts.data.store
    resize = views.evaluation.resize
    if resize is None:
        resize = trained.parts.recipe.data.shrink_to if pool.image_size is None else min(pool.image_size)
    return replace(views, evaluation=replace(views.evaluation, resize=resize))


def measured_accuracies(summary: Mapping[str, Any]) -> dict[str, float]:
    """Collect from a run's summary the top-1 accuracies on images that training has not seen, in percent.

    Returns:
        What measured them -> accuracy, of the classifier that the method predicts with.

    Example:
        >>> measured_accuracies({"test_top1": 81.25, "test": {"predicts_by": "classifier", "classifier": {"count": 8}}})
        {'8 test images': 81.25}
    """
    seen, found = summary.get("known_to_start"), {}
    known = f" ({seen:,} of them trained the run that this one started from)" if seen else ""
    for part, what in (("test", "test images"), ("heldout", "held-out labels")):
        if f"{part}_top1" in summary:
            judged, note = summary[part], known if part == "heldout" else ""
            count = (judged.get(judged["predicts_by"]) or judged["soft_neighbours"])["count"]
            found[f"{count:,} {what}{note}"] = summary[f"{part}_top1"]
    if "folds_top1" in summary:
        what = "labels, by short runs that each held out some"
        found[f"{summary['folds']['count']:,} {what}{known}"] = summary["folds_top1"]
    return found
