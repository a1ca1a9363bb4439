"""Labelled images that judge a run: opening them, and refusing those that would flatter it."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path

from tapetum.data.health.unreadable import skip_unreadable
from tapetum.data.images.cache import decoded
from tapetum.data.images.stores import FileStore, Store, shrunk
from tapetum.data.labels.labels import Labels
from tapetum.data.sources.open_source import Source, open_test_part
from tapetum.data.views.draw import ViewsConfig
from tapetum.system.notices import notify, progress_notices


def open_test(
    path: str | Path, classes: tuple[str, ...], strict: bool = False, shrink_to: int | None = None
) -> tuple[Store, Labels]:
    """Labelled test images, their labels in the class order of training.

    A source with a test part of its own gives that part; any other is taken whole. Images that cannot be read are
    skipped, with a notice, or refused where `strict`. `shrink_to` is that of the pool, `data.shrink_to`.

    Raises:
        ValueError: nothing there, a damaged test part, no labels, or a class that training did not know.
    """
    source, _ = skip_unreadable(find_test(path, classes), strict)
    assert source.labels is not None
    return decoded(shrunk(source.store, shrink_to), report=progress_notices("decoded")), source.labels


def find_test(path: str | Path, classes: tuple[str, ...]) -> Source:
    """Labelled test images, their labels in the class order of training; nothing is decoded yet."""
    source = open_test_part(path)
    if source.labels is None:
        raise ValueError(f"{path} has no labels to judge by: give one folder a class.")
    return replace(source, labels=source.labels.in_order_of(classes))


def check_evaluation(store: Store, views: ViewsConfig, trained_on: Store | None = None) -> None:
    """Whether images can be judged, asked before training and not after it.

    Raises:
        ValueError: images smaller than the evaluation's crop, of other channels, or the very images trained on.
    """
    if trained_on is not None and store.fingerprint == trained_on.fingerprint:
        raise ValueError(
            "the test images are the images trained on, whose accuracy says nothing about new ones: name others, or "
            "keep some out of training with data.held_out_per_class."
        )
    if store.channels != len(views.mean):
        raise ValueError(
            f"the images to judge have {store.channels} channels but views.mean has {len(views.mean)} numbers: "
            "train and judge with images of one kind."
        )
    crop, smallest = views.evaluation.crop, int(store.sizes.min())
    if views.evaluation.resize is None and smallest < crop:
        raise ValueError(
            f"views.evaluation.crop is {crop} but an image is {smallest} pixels wide or high: "
            f"set views.evaluation.resize to {crop} or more."
        )


def check_unseen(opened: Store, used: Labels, tests: Source, test: str | Path) -> None:
    """No accuracy on labels that train the model; a notice where the model sees test images without labels.

    Args:
        opened: the pool's images, not decoded.
        used: their labels that train.
        tests: labelled test images, not decoded.
        test: what they are called.

    Raises:
        ValueError: test images are among the labelled ones.
    """
    assert tests.labels is not None
    if isinstance(opened, FileStore) and isinstance(tests.store, FileStore):
        names = tests.store.paths
        judged = {_real_path(str(names[i])) for i in tests.labels.labelled.tolist()}
        shared = [i for i, path in enumerate(opened.paths) if _real_path(str(path)) in judged]
    else:
        shared = list(range(len(opened))) if opened.fingerprint == tests.store.fingerprint else []
    labelled = [i for i in shared if used.values[i] >= 0]
    if labelled:
        raise ValueError(
            f"test is {test}, but {len(labelled)} of its images, such as {opened.names[labelled[0]]}, have labels that "
            f"train the model: give images of which no label is used."
        )
    if shared:
        notify(f"{len(shared)} test images are in the pool too: the model sees them, though not their labels")


def _real_path(path: str) -> str:
    folder, name = os.path.split(path)
    whole = os.path.join(_real_folder(folder), name)
    return os.path.realpath(whole) if os.path.islink(whole) else whole


@functools.lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
