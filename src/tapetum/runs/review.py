"""Reviews a trained run: its curves, and its predictions for images whose labels it never saw and for its pool."""

import numpy as np
import torch
from torch.nn.functional import normalize

from tapetum.data.health.unreadable import skip_unreadable
from tapetum.data.images.stores import ArrayStore, Store, shrunk
from tapetum.data.labels.labels import Labels
from tapetum.engine.loggers import METRICS, read_curves
from tapetum.evaluation.calibration import Calibration, reliability
from tapetum.evaluation.prediction import Supports, predict_from
from tapetum.evaluation.review import Judged, Predicted, Review
from tapetum.ops.randomness import make_keys, permutation
from tapetum.recipe.files import RECIPE
from tapetum.runs.added_classes import refuse_added
from tapetum.runs.places import own_copy
from tapetum.runs.run_folder import read_summary
from tapetum.runs.test_set import check_unseen, find_test
from tapetum.runs.trained_run import TrainedRun
from tapetum.system.notices import notify

SAMPLE = 2500
"""Number of pool images in a review."""
_LABELLED = 500  # greatest number of labelled images among them
_NEIGHBOURS = 5


def review(trained: TrainedRun) -> Review:
    """Review a run on a few thousand images of its pool and on the images that can evaluate it.

    The latter are the test images that the run names or was last evaluated on, else its held-out labels, else none.
    """
    summary = read_summary(trained.folder)
    test = summary.get("test_images") or trained.parts.recipe.data.test
    judged = _judged(trained, None if test is None else own_copy(trained.folder, test))
    labels = trained.all_labels
    rows = _sample(trained)
    calibration = trained.calibration
    return Review(
        name=trained.folder.resolve().name,
        command=summary.get("command", "not recorded: the run is not finished"),
        recipe=(trained.folder / RECIPE).read_text(encoding="utf-8"),
        settings=_settings(trained, summary),
        classes=trained.classes,
        curves=read_curves(trained.folder / METRICS),
        pool=trained.parts.data.store,
        pool_labels=labels.values,
        added=added_pictures(trained),
        added_labels=trained.supports.labels[len(labels.labelled) :].numpy(),
        judged=judged,
        sample=_predicted(trained, trained.parts.data.store, labels, rows, trained.supports, labels, calibration),
        calibration=calibration,
        predicts_by=trained.predicts_by,
    )


def added_pictures(trained: TrainedRun) -> Store:
    """Return the images that were added after training, as small pictures."""
    channels, names = trained.parts.data.store.channels, [name for images in trained.added for name in images.names]
    pictures = [images.pictures.numpy() for images in trained.added]
    return ArrayStore(np.concatenate(pictures) if pictures else np.zeros((0, channels, 1, 1), np.uint8), names)


def _judged(trained: TrainedRun, test: str | None) -> Judged | None:
    found: tuple[Store, Labels, str] | None = None
    if test is not None:
        try:
            data = trained.parts.recipe.data
            source, _ = skip_unreadable(find_test(test, trained.classes), data.strict)
            assert source.labels is not None
            pool = trained.parts.data
            check_unseen(pool.opened, pool.labels, source, test, as_trained=trained.has_own_labels)
            store, labels = shrunk(source.store, data.shrink_to), source.labels
            refuse_added(trained.added, trained.embedder_for(store), store, labels.labelled, test)
            found = store, labels, "test images"
        except ValueError as error:
            notify(f"the test images are left out ({error})")
    if found is None and trained.held_out is not None:
        known = read_summary(trained.folder).get("known_to_start")
        note = f", {known} of which trained {trained.parts.recipe.init}, where the run started" if known else ""
        found = trained.parts.data.store, trained.held_out, f"held-out labels{note}"
    if found is None:
        return None
    store, labels, what = found
    rows, calibration, known = labels.labelled, trained.calibration, trained.labels
    predicted = _predicted(trained, store, labels, rows, trained.training_supports, known, calibration)
    right = torch.from_numpy(predicted.labels == predicted.truth)
    measured = reliability(torch.from_numpy(predicted.confidence), right)
    return Judged(predicted, f"{len(rows):,} {what}", measured)


def _predicted(
    trained: TrainedRun,
    store: Store,
    labels: Labels,
    rows: np.ndarray,
    supports: Supports,
    known: Labels,
    calibration: Calibration,
) -> Predicted:
    """Predict some images of a store; `supports` are the images labelled in `known`, and those that were added."""
    outputs = trained.embedder_for(store).outputs(store, rows)
    predictions = predict_from(outputs, supports, trained.predicts_by, _NEIGHBOURS)
    confidence, predicted = calibration.probabilities(predictions.scores).max(dim=1)
    added = np.arange(len(supports.labels) - len(known.labelled)) + len(trained.parts.data.store)
    return Predicted(
        store=store,
        rows=rows,
        labels=predicted.numpy(),
        confidence=confidence.numpy(),
        truth=labels.values[rows],
        neighbours=np.concatenate([known.labelled, added])[predictions.neighbours.numpy()],
        weights=predictions.weights.numpy(),
        embeddings=normalize(outputs.embeddings, dim=1).numpy(),
    )


def _sample(trained: TrainedRun) -> np.ndarray:
    """Choose some labelled images of the pool and some others, the same ones at each call."""
    seed, labelled = trained.parts.recipe.seed, trained.all_labels.labelled
    some = labelled[permutation(make_keys(seed, "review"), len(labelled))[:_LABELLED]]
    others = np.setdiff1d(np.arange(len(trained.parts.data.store)), labelled)
    drawn = (
        others[permutation(make_keys(seed, "review", 1), len(others))[: SAMPLE - len(some)]] if len(others) else others
    )
    return np.sort(np.concatenate([some, drawn])).astype(np.int64)


def _settings(trained: TrainedRun, summary: dict) -> dict[str, str]:
    recipe, data = trained.parts.recipe, trained.parts.data
    settings = {
        "Method": recipe.method.kind,
        "Network": recipe.backbone.kind,
        "Images": f"{len(data.store):,} in the pool",
        "Labels": f"{len(data.labels.labelled):,} to train with"
        + (f", {len(data.held_out.labelled):,} held out" if data.held_out is not None else ""),
        "Classes": f"{len(trained.classes):,}",
        "Steps": f"{trained.checkpoint.step:,} of {recipe.trainer.steps:,} with {recipe.data.batch_size} images each",
        "Precision": trained.parts.runtime.precision,
    }
    if trained.added:
        settings["Added after training"] = ", ".join(f"{images.label} ({len(images):,})" for images in trained.added)
    if "train_seconds" in summary:
        settings["Training time"] = f"{summary['train_seconds'] / 60:.1f} minutes"
    if "folds_top1" in summary:
        low, high = summary["folds_interval"]
        settings["Accuracy by folds"] = (
            f"{summary['folds_top1']:.1f}% of {summary['folds']['count']} labels, 95% interval {low:.1f} to {high:.1f}%"
        )
    if "machine" in summary:
        machine = summary["machine"]
        settings["Machine"] = f"{machine['accelerator'] or machine['architecture']}, {machine['threads']} threads"
    if "versions" in summary:
        settings["Versions"] = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
    return settings
