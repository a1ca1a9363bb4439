"""Embeds the images of a pool by a run, by weights as they are, or as small pictures, with the labels given so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.data.health.health import Part, find_health
from tapetum.data.health.inspection import inspect
from tapetum.data.health.unreadable import skip_unreadable
from tapetum.data.images.stores import FileStore, Store, shrunk
from tapetum.data.labels.label_files import read_answers
from tapetum.data.labels.labels import NONE_OF_THESE, Labels, sorted_classes
from tapetum.data.labels.name_matcher import NameMatcher
from tapetum.data.sources.open_source import NO_LABELS, Source, open_source
from tapetum.evaluation.suggestion import Labelled, distinct
from tapetum.interchange.weights.networks import network_of
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.methods.registry import load_plugins, method_class
from tapetum.recipe.from_weights import says_its_network
from tapetum.recipe.without_labels import recipe_without_labels
from tapetum.runs.added_classes import AddedClass
from tapetum.runs.places import located, moved_to
from tapetum.runs.run_folder import open_run_folder
from tapetum.runs.trained_run import TrainedRun, open_trained_run
from tapetum.runs.weights import is_run, open_weights
from tapetum.system.machine import available_threads
from tapetum.system.notices import notify
from tapetum.system.strangers import short_reason

Indices = npt.NDArray[np.int64]
PICTURES = "pictures of 12x12 pixels, without any network"
_ALL_LABELS = dict.fromkeys(("labels_per_class", "labels_percent", "folds", "fold", "test"))
"""Fields of `data` for labels that only stand in for a run's own: few, or none, are enough."""


@dataclass(frozen=True)
class EmbeddedPool:
    """The images of a pool, embedded, of which no two are near copies."""

    store: Store
    images: Labelled
    """The images, and after them those that were added to the run, which are labelled."""
    indices: Indices
    """Where each of `images` is in the store; -1 for those that were added to the run."""
    how: str
    """What embedded them, in words."""
    num_copies: int
    """Number of images left out because they are near copies of others."""


def embed_run_pool(
    run: str | Path,
    labels: str | Path | None,
    seed: int,
    plugins: Sequence[str] = (),
    moved: str | Path | None = None,
) -> EmbeddedPool:
    """Embed the pool of a run by the run.

    Args:
        run: the run's folder.
        labels: labels that replace those of the run, as for `labels_so_far`; None for those of the run.
        seed: decides what suggestions draw.
        plugins: modules to import first; they register methods.
        moved: where the run's images are now, if they have been moved.

    Raises:
        ValueError: there is no run folder, its images are gone, or the labels are faulty.
    """
    trained = _opened(run, labels, plugins, moved_to(moved))
    store, images = trained.parts.data.store, trained.parts.recipe.data.images
    class_of = _class_of(trained.all_labels)
    if labels is not None:
        class_of, _ = labels_so_far(images, labels)
    rows = trained.parts.embedder.outputs(store, np.arange(len(store))).embeddings
    return _pool(store, rows, class_of, f"the embedding of {run}", seed, trained.added)


def _opened(run: str | Path, labels: str | Path | None, plugins: Sequence[str], moved: Mapping[str, str]) -> TrainedRun:
    """Open a run for its embedding. Where its own labels are gone, those given take their place.

    Raises:
        ValueError: as for `open_trained_run`, or its method needs labels and those given do not suffice.
    """
    load_plugins(plugins)
    folder, recipe = open_run_folder(run)
    others: dict[str, Any] = {}
    if labels is not None:
        try:
            located(folder, recipe, moved)
        except ValueError:
            located(folder, recipe, {**moved, "labels": NO_LABELS})  # raises if it is the images that are gone
            needed = method_class(recipe.method.kind).uses_support
            others = _ALL_LABELS | {"labels": str(labels) if needed else NO_LABELS}
    try:
        return open_trained_run(run, decode=True, needs_labels=False, data=others, moved=moved)
    except ValueError as error:
        if not others:
            raise
        raise ValueError(
            f"the labels that {run} was trained on are gone, and --labels {labels} cannot take their place "
            f"({short_reason(error).rstrip('.')}): give labels of the same classes, or put the former ones back."
        ) from error


def embed_images(images: str | Path, labels: str | Path | None, weights: str | None, seed: int) -> EmbeddedPool:
    """Embed images by the weights of a run, of a file or of timm, or, without weights, as small pictures.

    Args:
        images: a folder, or any other source.
        labels: as for `labels_so_far`.
        weights: the folder of a run, a file of tensors, or `timm:NAME`.
        seed: decides what suggestions draw.

    Raises:
        ValueError: there are no images, or weights or labels are faulty.
    """
    class_of, source = labels_so_far(images, labels)
    source, _ = skip_unreadable(source, strict=False)
    store = source.store
    if weights is None:
        return _pool(store, None, class_of, PICTURES, seed)
    if is_run(weights):
        trained = open_trained_run(weights, needs_labels=False)
        store = shrunk(store, trained.parts.recipe.data.shrink_to)
    else:
        tensors = {} if says_its_network(weights) else read_weights(weights)
        network = network_of(tensors) if tensors else None
        trained = open_weights(recipe_without_labels(str(images), store, weights=weights, network=network))
    rows = trained.embedder_for(store).outputs(store, np.arange(len(store))).embeddings
    return _pool(store, rows, class_of, f"the embedding of {weights}", seed)


def labels_so_far(images: Any, labels: str | Path | None) -> tuple[dict[str, str], Source]:
    """Read the labels that images have so far.

    Args:
        images: any source.
        labels: in any form that `open_source` takes; None for those that come with the images. A CSV may be empty yet,
            or name a single class, as it does when somebody begins to label.

    Returns:
        Name of each labelled image -> its class; and the images.

    Raises:
        ValueError: the images or the labels are faulty.
    """
    path = None if labels is None else Path(labels).expanduser()
    if path is None or path.suffix.lower() != ".csv" or not path.is_file():
        source = open_source(images, labels)
        return ({} if source.labels is None else _class_of(source.labels)), source
    source = open_source(images, NO_LABELS)
    store = source.store
    matcher = NameMatcher(store.names, store.root if isinstance(store, FileStore) else None, path.parent)
    return {store.names[image]: label for image, label in read_answers(path, matcher).items()}, source


def _class_of(labels: Labels) -> dict[str, str]:
    """Name of each labelled image -> its class; those of none of the classes count as a class of their own."""
    found = {labels.names[i]: labels.classes[labels.values[i]] for i in labels.labelled.tolist()}
    return found | {labels.names[i]: NONE_OF_THESE for i in labels.none.tolist()}


def _pool(
    store: Store,
    rows: Tensor | None,
    class_of: Mapping[str, str],
    how: str,
    seed: int,
    added: Sequence[AddedClass] = (),
) -> EmbeddedPool:
    """Leave near copies out, and put labels and rows together; without rows, small pictures take their place."""

    def report(done: int, total: int) -> None:
        if total > 10_000:
            notify(f"compared {done} of {total} images")

    seen = inspect(store, report, threads=available_threads())
    labelled = np.array([i for i, name in enumerate(store.names) if name in class_of], dtype=np.int64)
    copies = find_health(Part(Source(store, None, how), seen)).groups
    kept = np.setdiff1d(distinct(len(store), [group.members for group in copies], labelled), list(seen.unreadable))
    if rows is None:
        pixels = torch.from_numpy(seen.thumbnails).float()
        rows = pixels - pixels.mean(dim=0)
    parts = [rows[torch.from_numpy(kept)], *(images.embeddings for images in added)]
    names = [class_of.get(store.names[i]) for i in kept.tolist()]
    names += [images.label for images in added for _ in images.names]
    classes = sorted_classes(name for name in names if name is not None)
    known = np.array([i for i, name in enumerate(names) if name is not None], dtype=np.int64)
    values = np.array([classes.index(name) for name in names if name is not None], dtype=np.int64)
    images = Labelled(normalize(torch.cat(parts), dim=1), known, values, classes, seed)
    indices = np.concatenate([kept, np.full(len(names) - len(kept), -1)]).astype(np.int64)
    return EmbeddedPool(store, images, indices, how, len(store) - len(seen.unreadable) - len(kept))
