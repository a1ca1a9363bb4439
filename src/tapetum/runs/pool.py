"""Opens the images and labels that a run trains on, and its held-out labels; reports progress on stderr."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.batches.data_config import DataConfig
from tapetum.data.health.unreadable import Unreadable, skip_unreadable
from tapetum.data.images.cache import decoded
from tapetum.data.images.stores import Store, shrunk
from tapetum.data.labels.labels import Labels, no_labels
from tapetum.data.labels.subsets import drawn_labels, fold_of, held_out
from tapetum.data.sources.open_source import open_source
from tapetum.system.notices import progress_notices

_CHOICES_OF_LABELS = ("labels_per_class", "labels_percent", "held_out_per_class", "held_out_share", "folds", "test")
"""Fields of a recipe's data that make no sense without labels."""


@dataclass(frozen=True)
class PoolData:
    """The images and labels of a run."""

    store: Store
    labels: Labels
    """Labels that training uses; -1 for all other images."""
    held_out: Labels | None
    """Labels used only to measure accuracy during training; None if there are none."""
    pool: npt.NDArray[np.int64]
    """Indices of the images that may be drawn as unlabelled images."""
    description: str
    opened: Store
    """The store as opened, before decoding: if the images are files, it knows their paths."""
    unreadable: tuple[Unreadable, ...] = ()
    """Image files that were skipped."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """Number of images, or classes, and hash of each part, so that a refusal can name the parts that differ."""
        pool = hashlib.blake2b(np.ascontiguousarray(self.pool).tobytes()).hexdigest()
        parts = {
            "data": (len(self.store), self.store.fingerprint),
            "pool": (len(self.pool), pool),
            "labels": (len(self.labels.labelled), self.labels.fingerprint),
        }
        if self.held_out is not None:
            parts["held_out"] = (len(self.held_out.labelled), self.held_out.fingerprint)
        found = {name: f"{count} images ({digest[:12]})" for name, (count, digest) in parts.items()}
        named = {"labelled": self.labels, "judged": self.held_out}
        found |= {name: labels.name_fingerprint for name, labels in named.items() if labels is not None}
        return found | {"classes": self.told_classes}

    @property
    def told_classes(self) -> str:
        """The classes in one line, which differs from that of others, however many there are."""
        classes = self.labels.classes
        digest = hashlib.blake2b("\0".join(classes).encode(errors="surrogateescape")).hexdigest()[:12]
        return ", ".join(classes) if len(classes) <= 10 else f"{len(classes)} classes ({classes[0]}, ..., {digest})"


def has_labels_of(saved: Mapping[str, Any], now: Mapping[str, str]) -> bool:
    """Return whether two fingerprints have the same labels, also held-out ones, whatever unlabelled images there are.

    Args:
        saved: that of a checkpoint; older ones do not tell labels by the names of their images.
        now: `PoolData.fingerprint`.
    """

    def same(*parts: str) -> bool:
        return all(saved.get(part) == now.get(part) for part in parts)

    return same("labels", "held_out") or ("labelled" in saved and same("labelled", "judged"))


def open_pool(config: DataConfig, decode: bool = True, needs_labels: bool = True) -> PoolData:
    """Open and check the pool of a recipe, and choose its labels; with `decode`, decode image files in advance.

    Raises:
        ValueError: there are no images, no labels although they are needed, too few labels, or an unreadable image;
            names the file or field.
    """
    if config.images is None:
        raise ValueError("data.images is not set: name the folder of images, for example data.images=photos.")
    source = open_source(config.images, config.labels)
    asks = next((name for name in _CHOICES_OF_LABELS if getattr(config, name) is not None), None)
    if source.labels is None and (needs_labels or asks):
        raise ValueError(
            f"{config.images} has no labels{f', which data.{asks} needs' if asks else ''}: give a CSV of "
            "path,label lines as data.labels, or one folder per class."
        )
    source, unreadable = skip_unreadable(source, config.strict)
    store = shrunk(source.store, config.shrink_to)
    store = decoded(store, report=progress_notices("decoded")) if decode else store
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
    pool = np.setdiff1d(np.arange(len(store)), labels.none) if config.pool else labels.labelled
    if kept_out is not None:
        pool = np.setdiff1d(pool, kept_out.labelled)
    return PoolData(store, labels, kept_out, pool, source.description, source.store, tuple(unreadable))


@contextmanager
def _blamed_on(field: str) -> Iterator[None]:
    """Prefix errors of functions that do not know recipes with the recipe's field."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
