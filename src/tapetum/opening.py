"""Opening the images that a run trains on and those that it is judged by, with what is said about them on stderr."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.cache import decoded
from tapetum.data.folds import fold_of
from tapetum.data.labels import Labels, drawn_labels, held_out, no_labels
from tapetum.data.pipeline import DataConfig
from tapetum.data.readable import Unreadable, in_words, readable
from tapetum.data.sources import Source, open_source
from tapetum.data.stores import FileStore, ReportProgress, Store, shrunk
from tapetum.data.views import ViewsConfig
from tapetum.engine.callbacks import notify

_CHOICES_OF_LABELS = ("labels_per_class", "labels_percent", "held_out_per_class", "held_out_share", "folds", "test")
"""Fields of a recipe's data that make no sense without labels."""
_SECONDS_OF_SILENCE = 5.0


@dataclass(frozen=True)
class PoolData:
    """The images and labels of a run."""

    store: Store
    labels: Labels
    """Labels that training uses; -1 for all other images."""
    held_out: Labels | None
    """Labels kept out of everything but the accuracy while training."""
    pool: npt.NDArray[np.int64]
    """Images that may be drawn unlabelled."""
    description: str
    opened: Store
    """The store as it was opened: where images come from files, these are known by it."""
    unreadable: tuple[Unreadable, ...] = ()
    """Image files that were skipped."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """How many there are of each part and a hash of them: a refusal to resume names the parts that differ."""
        pool = hashlib.blake2b(np.ascontiguousarray(self.pool).tobytes()).hexdigest()
        parts = {
            "data": (len(self.store), self.store.fingerprint),
            "pool": (len(self.pool), pool),
            "labels": (len(self.labels.labelled), self.labels.fingerprint),
        }
        if self.held_out is not None:
            parts["held_out"] = (len(self.held_out.labelled), self.held_out.fingerprint)
        return {name: f"{count} images ({digest[:12]})" for name, (count, digest) in parts.items()}


def open_pool(config: DataConfig, decode: bool = True, needs_labels: bool = True) -> PoolData:
    """Open, decode and check the pool of a recipe (unless few of its images will be read), and choose its labels.

    Raises:
        ValueError: no images, no labels where they are needed, an unreadable image, too few labels; names the file or
            field.
    """
    if config.images is None:
        raise ValueError("data.images is not set: name the folder of images, for example data.images=photos.")
    source = open_source(config.images, config.labels)
    asks = next((name for name in _CHOICES_OF_LABELS if getattr(config, name) is not None), None)
    if source.labels is None and (needs_labels or asks):
        raise ValueError(
            f"{config.images} has no labels{f', which data.{asks} asks for' if asks else ''}: give a CSV of "
            "path,label lines as data.labels, or one folder a class."
        )
    source, unreadable = skip_unreadable(source, config.strict)
    store = shrunk(source.store, config.shrink_to)
    store = decoded(store, report=telling("decoded")) if decode else store
    labels, kept_out = source.labels or no_labels(store.names), None
    if config.held_out_per_class is not None:
        with _blamed_on("data.held_out_per_class"):
            labels, kept_out = held_out(labels, per_class=config.held_out_per_class, seed=config.label_seed)
    with _blamed_on("data.labels_per_class" if config.labels_percent is None else "data.labels_percent"):
        labels = drawn_labels(labels, config.labels_per_class, config.labels_percent, config.label_seed)
    if config.held_out_share is not None:
        with _blamed_on("data.held_out_share"):
            labels, kept_out = held_out(labels, fraction=config.held_out_share, seed=config.label_seed)
    if config.folds is not None and config.fold is not None:
        with _blamed_on("data.folds"):
            labels, kept_out = fold_of(labels, config.folds, config.fold, config.label_seed)
    pool = np.arange(len(store)) if config.pool else labels.labelled
    if kept_out is not None:
        pool = np.setdiff1d(pool, kept_out.labelled)
    return PoolData(store, labels, kept_out, pool, source.description, source.store, tuple(unreadable))


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
    return decoded(shrunk(source.store, shrink_to), report=telling("decoded")), source.labels


def find_test(path: str | Path, classes: tuple[str, ...]) -> Source:
    """Labelled test images, their labels in the class order of training; nothing is decoded yet."""
    source = open_test_part(path)
    if source.labels is None:
        raise ValueError(f"{path} has no labels to judge by: give one folder a class.")
    return replace(source, labels=source.labels.in_order_of(classes))


def open_test_part(path: Any) -> Source:
    """The test part of a source, or all of a source that has no parts.

    Raises:
        ValueError: nothing there, or a damaged test part.
    """
    try:
        return open_source(path, split="test")
    except ValueError as error:
        # Only a source without parts: where a test part is damaged, the whole would be what was trained on.
        if "has no test part" not in str(error):
            raise
        return open_source(path)


def skip_unreadable(source: Source, strict: bool) -> tuple[Source, list[Unreadable]]:
    """The source without image files that cannot be decoded, said on stderr, and these files.

    Raises:
        ValueError: there are some and `strict` refuses them, or nothing is left to work with.
    """
    kept, unreadable = readable(source, strict, telling("read"))
    if unreadable:
        notify(f"{in_words(unreadable, len(source.store))}: skipped")
    return kept, unreadable


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


def telling(what: str) -> ReportProgress:
    """Says on stderr how far a job is ("decoded 500 of 2,000 images"), now and then, and nothing of a short one."""
    begun = said = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - (begun if done == total else said) >= _SECONDS_OF_SILENCE:
            said = now
            notify(f"{what} {done:,} of {total:,} images, once for this and later runs")

    return report


@contextmanager
def _blamed_on(field: str) -> Iterator[None]:
    """Puts the field of a recipe before what a function says that knows of no recipe."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
