"""`tapetum finetune`: make an ordinary classifier of what a run, or a file of weights, has learned."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tapetum.data.images.stores import Store
from tapetum.data.labels.labels import Labels
from tapetum.evaluation.accuracy import embed_supports
from tapetum.evaluation.comparison import Comparison, compare
from tapetum.evaluation.prediction import predict_from
from tapetum.methods.registry import load_plugins
from tapetum.recipe.recipe import Recipe
from tapetum.runs.pool import PoolData
from tapetum.runs.run import Run
from tapetum.runs.run_folder import new_run_folder, update_summary
from tapetum.runs.test_set import open_test
from tapetum.runs.trained_run import NONE_HELD_OUT, TrainedRun, open_trained_run
from tapetum.runs.tuning import tuning_recipe
from tapetum.runs.weights import changed_data, is_run, open_weights, recipe_for_weights
from tapetum.system.launcher import process_rank
from tapetum.system.notices import notify
from tapetum.verbs.train import train

_GIVEN = ("images", "labels", "test", "labels_per_class", "labels_percent")
"""Fields of a recipe's data that `finetune` may be given."""


def finetune(
    weights: str | Path,
    output: str | Path,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    test: str | Path | None = None,
    labels_per_class: int | None = None,
    labels_percent: float | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a linear classifier on a pretrained network, and the network with it; write a run that needs no supports.

    The result predicts by its classifier alone, so it can leave Tapetum (`export`). Whether it is better than the
    nearest neighbours of the weights as they were is measured on labels that neither has seen, and said.

    Args:
        weights: what to start from: the folder of a run, a file of tensors, or `timm:NAME`.
        output: the run folder, new or empty.
        images, labels, test: as for `fit`; None for those of the run. A file needs images and labels.
        labels_per_class, labels_percent: use this many labels of each class, or this share of them; None for those
            of the run.
        overrides: `key.path=value` each, for example `trainer.steps=500` or `optimizer.lr.peak=0.05`.
        plugins: modules to import first; they register methods.

    Returns:
        The new run's summary; its `beside_neighbours` holds the comparison, if it could be made.

    Raises:
        ValueError: weights, images or labels are missing or do not fit each other; or a folder that is not empty.

    Example:
        >>> import tapetum
        >>> summary = tapetum.finetune("runs/first", "runs/classifier")  # doctest: +SKIP
    """
    load_plugins(plugins)
    given = {"images": images, "labels": labels, "test": test}
    data: dict[str, Any] = {name: None if path is None else str(path) for name, path in given.items()}
    data |= {"labels_per_class": labels_per_class, "labels_percent": labels_percent}
    with new_run_folder(output) as folder:
        base = recipe_for_weights(weights, changed_data(data))
        recipe = tuning_recipe(base, "finetune", weights, overrides)
        if process_rank() == 0:
            notify(f"fine-tuning {weights} for {recipe.trainer.steps or 'some'} steps")
        summary = train(recipe, folder)
    if process_rank() != 0:
        return summary
    summary |= compare_with_start(folder, weights, base, plugins)
    print(f"Next: tapetum export {folder} --format onnx --output model.onnx")
    return summary


def compare_with_start(
    folder: Path, weights: str | Path, base: Recipe | None = None, plugins: Sequence[str] = ()
) -> dict[str, Any]:
    """Compare a fine-tuned run with the weights that it started from, and add that to its summary.

    Args:
        folder: the run's.
        weights: what it started from.
        base: the recipe by which these are judged; None for that of the run's own images.
        plugins: as for `finetune`.

    Returns:
        The summary's `beside_neighbours`; nothing, after a notice, if what is needed is gone, or if there are no images
        to judge by.
    """
    try:
        comparison = _beside_neighbours(open_trained_run(folder, plugins), weights, base)
    except ValueError as error:  # the run itself is whole, so only this is missing
        notify(f"not compared with the weights that it started from: {error}")
        return {}
    if comparison is None:
        return {}
    _tell(comparison, weights)
    found = {"beside_neighbours": comparison.__dict__}
    update_summary(folder, found)
    return found


def _beside_neighbours(tuned: TrainedRun, weights: str | Path, base: Recipe | None) -> Comparison | None:
    """Compare the neighbours of the weights as they were with the classifier; None without images to judge by."""
    recipe, data = tuned.parts.recipe, tuned.parts.data
    if tuned.held_out is not None:
        judged: tuple[Store, Labels] = data.store, tuned.held_out
    elif recipe.data.test is not None:
        judged = open_test(recipe.data.test, tuned.classes, shrink_to=recipe.data.shrink_to)
    else:
        return None
    before = _before(weights, recipe, base)
    return compare(_right(before, data, judged, "soft_neighbours"), _right(tuned.parts, data, judged))


def _before(weights: str | Path, tuned: Recipe, base: Recipe | None) -> Run:
    """Open the weights as they were; a run whose images are gone is opened with those that it was tuned on."""
    data = changed_data({name: getattr(tuned.data, name) for name in _GIVEN})
    if not is_run(weights):
        return open_weights(base or recipe_for_weights(weights, data)).parts
    try:
        return open_trained_run(weights, needs_labels=False).parts
    except ValueError:
        with suppress(ValueError):  # of other images, for example with other classes; then the first one says more
            return open_trained_run(weights, needs_labels=False, data=NONE_HELD_OUT | data).parts
        raise


def _right(run: Run, data: PoolData, judged: tuple[Store, Labels], predicts_by: str = "classifier") -> Tensor:
    """(N,) whether each judged image is classified rightly, with the labelled images of the pool as supports."""
    store, truth = judged
    supports = embed_supports(run.embedder_for(data.store), data.store, data.labels)
    parts = []
    for rows, outputs in run.embedder_for(store).stream_readable(store, truth.labelled):
        predicted = predict_from(outputs, supports, predicts_by, 0).labels
        parts.append(predicted == torch.from_numpy(truth.values[rows]))
    return torch.cat(parts)


def _tell(comparison: Comparison, weights: str | Path) -> None:
    chance = f"chance makes such a difference with probability {comparison.p_value:.2g}"
    advice = {
        "better": "use the classifier",
        "worse": f"go on using {weights} itself",
        "as good": "no difference can be told; the classifier is simpler to take elsewhere",
    }
    print(
        f"Beside the nearest neighbours before fine-tuning ({comparison.first:.2f}%), the classifier "
        f"({comparison.second:.2f}%) is {comparison.verdict} on the same {comparison.count} images ({chance}): "
        f"{advice[comparison.verdict]}."
    )
