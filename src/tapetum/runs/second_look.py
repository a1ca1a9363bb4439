"""Finds in a trained run what somebody should look at again: labels, copies, and the predictions most in doubt."""

import numpy as np
import torch

from tapetum.data.health.health import Health, Part, find_health
from tapetum.data.health.inspection import inspect
from tapetum.data.images.stores import ArrayStore, FileStore, Store
from tapetum.data.labels.labels import UNLABELLED
from tapetum.data.sources.open_source import Source
from tapetum.evaluation.embedding import Outputs
from tapetum.evaluation.label_errors import find_label_errors
from tapetum.evaluation.prediction import Predictions, predict_from
from tapetum.evaluation.review import Floats, Integers, Predicted
from tapetum.evaluation.second_look import OutOfSample, SecondLook, SuspectLabels
from tapetum.ops.soft_neighbours import SCORES_AT_ONCE
from tapetum.recipe.files import RECIPE
from tapetum.runs.review import added_pictures
from tapetum.runs.run_folder import FOLDS
from tapetum.runs.trained_run import TrainedRun, open_trained_run
from tapetum.system.machine import available_threads
from tapetum.system.notices import notify

_TOLD_EVERY = 10_000  # images
_SHARE_OF_SEEN = 0.05
"""Of the labels that trained the network, so many are listed whatever confident learning says: a network that has
learned mistakes agrees with them, and few look wrong to it, but they still are among the labels it is least sure of."""


def look_again(trained: TrainedRun, neighbours: int) -> SecondLook:
    """Look at every label and every prediction of a run's pool.

    Args:
        trained: the run.
        neighbours: greatest number of labelled images beside each image.

    Raises:
        ValueError: an image cannot be read.
    """
    labels = trained.all_labels
    health = labelled_copies(trained)
    unlabelled, in_domain = doubtful_predictions(trained, neighbours)
    return SecondLook(
        name=trained.folder.resolve().name,
        classes=trained.classes,
        pool=trained.parts.data.store,
        pool_labels=labels.values,
        added=added_pictures(trained),
        added_labels=trained.supports.labels[len(labels.labelled) :].numpy(),
        suspects=suspect_labels(trained, neighbours),
        copies=tuple(tuple(labels.labelled[list(group.members)].tolist()) for group in health.conflicts()),
        finds_near_copies=health.tells_near_ones,
        unlabelled=unlabelled,
        in_domain=in_domain,
    )


def suspect_labels(trained: TrainedRun, neighbours: int) -> SuspectLabels:
    """Find the labels of the pool that somebody should look at, most doubtful first, by confident learning."""
    sample = out_of_sample(trained)
    found = find_label_errors(sample.probabilities, sample.labels)
    ranked, all_labels = found.most_doubtful(round(_SHARE_OF_SEEN * sample.num_seen)), trained.all_labels
    rows = sample.rows[ranked.numpy()]
    nearest = _without_themselves(trained, np.searchsorted(all_labels.labelled, rows), neighbours)
    suggested = found.suggested[ranked]
    predicted = Predicted(
        store=trained.parts.data.store,
        rows=rows,
        labels=suggested.numpy(),
        confidence=sample.probabilities[ranked, suggested].numpy(),
        truth=all_labels.values[rows],
        neighbours=_places(trained)[nearest.neighbours.numpy()],
        weights=nearest.weights.numpy(),
        embeddings=np.empty((len(rows), 0), np.float32),
    )
    doubt, num_errors = found.doubt[ranked].numpy(), int(found.is_error.sum())
    return SuspectLabels(predicted, doubt, num_errors, len(sample.rows), sample.basis)


def out_of_sample(trained: TrainedRun) -> OutOfSample:
    """Predict labelled images of the pool without their own labels.

    If the run was made with folds, each short run predicts the labels that were held out of it. Otherwise each image is
    predicted by its soft nearest neighbours among the other labelled images.
    """
    return _by_folds(trained) or _by_others(trained)


def _by_folds(trained: TrainedRun) -> OutOfSample | None:
    """By the short runs; None if there are none, or if labels have changed since."""
    folds = trained.parts.recipe.data.folds or 0
    folders = [trained.folder / FOLDS / f"{fold + 1}-of-{folds}" for fold in range(folds)]
    if not folders or not all((folder / RECIPE).is_file() for folder in folders):
        return None
    parts = []
    places = {name: getattr(trained.parts.recipe.data, name) for name in ("images", "labels")}
    for fold in (open_trained_run(folder, data=places) for folder in folders):
        if (held_out := fold.held_out) is None:
            return None
        outputs = fold.parts.embedder.outputs(fold.parts.data.store, held_out.labelled)
        scores = predict_from(outputs, fold.training_supports, fold.predicts_by, 0).scores
        # The short runs do not know classes that were added since.
        columns = torch.tensor([trained.classes.index(name) for name in fold.classes])
        shares = torch.zeros(len(scores), len(trained.classes)).index_copy_(1, columns, torch.softmax(scores, dim=1))
        parts.append((held_out.labelled, shares))
    rows = np.concatenate([rows for rows, _ in parts])
    order = np.argsort(rows)
    return OutOfSample(
        rows=rows[order],
        labels=torch.from_numpy(trained.all_labels.values[rows[order]]),
        probabilities=torch.cat([shares for _, shares in parts])[torch.from_numpy(order)],
        basis=f"Each of {len(rows)} labels was predicted by one of {folds} short runs that had not seen it.",
        num_seen=0,
    )


def _by_others(trained: TrainedRun) -> OutOfSample:
    """By the soft nearest neighbours among the other labelled images, those that were added to the run included."""
    rows = trained.all_labels.labelled
    found = _without_themselves(trained, np.arange(len(rows)), 0)
    basis = f"Each of {len(rows)} labels was predicted by the other labelled images"
    seen = len(rows) if trained.held_out is None else len(trained.labels.labelled)
    if not (trained.parts.method.uses_support and trained.checkpoint.step):
        seen = 0
    if seen:
        basis += (
            f", with a network that was trained on {seen} of the labels and may have learned their mistakes. A run of "
            "`tapetum fit --folds 5` would predict each label by a network that has not seen it."
        )
    else:
        basis += ", with a network that has seen no label."
    return OutOfSample(rows, trained.supports.labels[: len(rows)], torch.softmax(found.scores, dim=1), basis, seen)


def _without_themselves(trained: TrainedRun, own: Integers, neighbours: int) -> Predictions:
    """Predict some of the labelled images, given by row of `supports`, by all the others."""
    supports = trained.supports
    found = [
        predict_from(Outputs(supports.embeddings[part], None), supports, "soft_neighbours", neighbours, part)
        for part in torch.from_numpy(own).split(max(1, SCORES_AT_ONCE // len(supports.labels)))
    ]
    return Predictions(*map(torch.cat, zip(*found)))


def labelled_copies(trained: TrainedRun) -> Health:
    """Search for copies among the labelled images of the pool, which are numbered in the order of `labelled`."""
    rows, opened = trained.all_labels.labelled, trained.parts.data.opened
    names = [opened.names[i] for i in rows.tolist()]
    store: Store
    if isinstance(opened, FileStore):
        store = opened.only(rows)
    else:
        images = opened.read(rows)
        assert isinstance(images, torch.Tensor)
        store = ArrayStore(images.numpy(), names)
    labels = trained.all_labels.of_images(rows)
    return find_health(Part(Source(store, labels, ""), inspect(store, threads=available_threads())))


def doubtful_predictions(trained: TrainedRun, neighbours: int) -> tuple[Predicted, Floats]:
    """Predict the unlabelled images of the pool: the least confident first, and how much each resembles labelled ones.

    Images that are labelled as none of the classes are left out.
    """
    store, labels = trained.parts.data.store, trained.all_labels
    answered = np.concatenate([labels.labelled, labels.none])
    rows = np.setdiff1d(np.arange(len(store)), answered)
    nothing = torch.empty(0, min(neighbours, len(trained.supports.labels)))
    parts, done = [(torch.empty(0).long(), torch.empty(0), nothing.long(), nothing, torch.empty(0))], 0
    for indices, outputs in trained.parts.embedder.stream_readable(store, rows):
        found = predict_from(outputs, trained.supports, trained.predicts_by, neighbours)
        confidence, predicted = trained.calibration.probabilities(found.scores).max(dim=1)
        resemblance = trained.domain.shares(outputs.embeddings)
        parts.append((predicted, confidence, found.neighbours, found.weights, resemblance))
        done += len(indices)
        if done // _TOLD_EVERY > (done - len(indices)) // _TOLD_EVERY:
            notify(f"predicted {done} of {len(rows)} images")
    columns = [torch.cat(column).numpy() for column in zip(*parts)]
    order = np.argsort(columns[1], kind="stable")
    labels_of, confidences, nearest, weights, in_domain = (column[order] for column in columns)
    first_in_doubt = Predicted(
        store=store,
        rows=rows[order],
        labels=labels_of,
        confidence=confidences,
        truth=np.full(len(rows), UNLABELLED, dtype=np.int64),
        neighbours=_places(trained)[nearest],
        weights=weights,
        embeddings=np.empty((len(rows), 0), np.float32),
    )
    return first_in_doubt, in_domain


def _places(trained: TrainedRun) -> Integers:
    """Where each support is: in the pool, or from its length on, among the added images."""
    rows, supports = trained.all_labels.labelled, trained.supports.labels
    added = np.arange(len(supports) - len(rows)) + len(trained.parts.data.store)
    return np.concatenate([rows, added])
