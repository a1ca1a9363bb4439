"""Subsets of labels: a number or a share of each class, labels held out of training, and folds.

Subsets are drawn by *name*: whether an image belongs to one depends only on the seed, the name of its class and its own
name. Listing files in another order, or on another machine, changes nothing.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from tapetum.data.labels.labels import Labels
from tapetum.ops.randomness import make_keys


def _name_key(name: str) -> int:
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def drawn_order(labels: Labels, of_class: int, purpose: str, seed: int) -> npt.NDArray[np.int64]:
    """Return the indices of a class's labelled images, in an order that depends only on names, purpose and seed."""
    members = np.flatnonzero(labels.values == of_class)
    members = members[np.argsort(np.array([labels.names[i] for i in members], dtype=object), kind="stable")]
    name_keys = np.array([_name_key(labels.names[i]) for i in members], dtype=np.uint64)
    keys = make_keys(seed, purpose, _name_key(labels.classes[of_class]), name_keys)
    return members[np.argsort(keys, kind="stable")].astype(np.int64)


def labels_per_class(labels: Labels, count: int, seed: int) -> Labels:
    """Keep the labels of `count` images per class and drop the others.

    The choice depends only on seed, class names and image names. With one seed, a smaller count draws a subset of
    what a larger one draws.

    Raises:
        ValueError: `count` is not positive, or a class has fewer labelled images.
    """
    if count < 1:
        raise ValueError(f"labels per class is {count}: give at least 1")
    short = int(labels.counts.argmin())
    if labels.counts[short] < count:
        raise ValueError(
            f"class {labels.classes[short]!r} has {labels.counts[short]} labelled images, fewer than the {count} "
            f"requested labels per class: request at most {labels.counts[short]} or label more images"
        )
    drawn = [drawn_order(labels, c, "labels per class", seed)[:count] for c in range(labels.num_classes)]
    return labels.only(np.concatenate(drawn))


def labels_percent(labels: Labels, percent: float, seed: int) -> Labels:
    """Keep a share of each class's labels and drop the others.

    A class keeps its share rounded to the nearest number, but at least one label. As in `labels_per_class`, the choice
    depends on seed and names, and with the same seed smaller shares are subsets of larger ones.

    Raises:
        ValueError: `percent` is not above 0 or is more than 100.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"labels percent is {percent:g}: give more than 0 and at most 100")
    counts = [max(1, int(percent / 100 * available + 0.5)) for available in labels.counts.tolist()]
    drawn = [drawn_order(labels, c, "labels per class", seed)[:count] for c, count in enumerate(counts)]
    return labels.only(np.concatenate(drawn))


def drawn_labels(labels: Labels, per_class: int | None, percent: float | None, seed: int) -> Labels:
    """Apply `labels_per_class` or `labels_percent`, whichever is given; keep all labels if neither is.

    Raises:
        ValueError: both are given, or the one that is given is out of range or more than a class has.
    """
    if per_class is not None and percent is not None:
        raise ValueError(f"both labels per class ({per_class}) and labels percent ({percent:g}) are given: give one")
    if per_class is not None:
        return labels_per_class(labels, per_class, seed)
    return labels if percent is None else labels_percent(labels, percent, seed)


LEAST_TO_SPARE = 3
"""Least number of labels a class needs before a share of them can be held out."""


def _share(fraction: float, available: int) -> int:
    """Round a fraction of the labels, but hold out at least one and leave at least one; 0 if there are too few."""
    return min(max(1, int(fraction * available + 0.5)), available - 1) if available >= LEAST_TO_SPARE else 0


def held_out(
    labels: Labels, *, per_class: int | None = None, fraction: float | None = None, seed: int
) -> tuple[Labels, Labels]:
    """Split labels, class by class, into those to train with and those to measure with.

    Args:
        labels: the labels to split.
        per_class: labels held out of each class; or
        fraction: share of each class held out, rounded to the nearest number but at least one image; a class with
            fewer than three labels keeps all of them for training.
        seed: decides the split, together with class and image names.

    Returns:
        (training labels, held-out labels), both over all N images.

    Raises:
        ValueError: not exactly one of `per_class` and `fraction` is given, it is out of range, a class would have no
            training label left, or no class has enough labels for `fraction`.
    """
    if (per_class is None) == (fraction is None):
        raise ValueError("hold out either a number of labels per class or a fraction of them: give one of the two")
    if (per_class is not None and per_class < 1) or (fraction is not None and not 0 < fraction < 1):
        raise ValueError(
            f"per_class={per_class}, fraction={fraction}: hold out at least 1 per class or a share between 0 and 1"
        )
    kept, out = [], []
    for c, available in enumerate(labels.counts.tolist()):
        count = per_class if fraction is None else _share(fraction, available)
        if available <= count and available > 0:
            raise ValueError(
                f"class {labels.classes[c]!r} has {available} labelled images, so holding out {count} leaves "
                f"none to train with: hold out fewer or label more images"
            )
        order = drawn_order(labels, c, "held out", seed)
        out.append(order[:count])
        kept.append(order[count:])
    if not any(part.size for part in out):
        raise ValueError("no class has three labelled images, so none can be held out: label more images")
    return labels.only(np.concatenate(kept)), labels.only(np.concatenate(out))


def fold_of(labels: Labels, folds: int, fold: int, seed: int) -> tuple[Labels, Labels]:
    """Split labels into those that one of several runs trains with and those that it is measured on.

    Class by class, labels are dealt out to the folds like cards, in an order that depends only on seed and names. Each
    label is held out in exactly one fold; the sizes of the folds differ by at most one, and so do the numbers of each
    class in them. The only label of a class is never held out.

    Args:
        labels: the labels to split.
        folds: number of parts, 2 or more.
        fold: which part is held out, counted from 0.
        seed: decides the split, together with class and image names.

    Returns:
        (training labels, held-out labels), both over all N images.

    Raises:
        ValueError: `folds` is below 2, `fold` is not in 0..folds-1, or a fold would have no label to hold out.

    Example:
        >>> from tapetum.data.labels.labels import labels_from_folders
        >>> labels = labels_from_folders(["ash/1", "ash/2", "oak/3", "oak/4", "oak/5"])
        >>> [fold_of(labels, 2, fold, seed=0)[1].counts.tolist() for fold in range(2)]
        [[1, 2], [1, 1]]
    """
    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(f"fold is {fold} of {folds}: give 2 folds or more, and a fold counted from 0")
    dealt = [drawn_order(labels, c, "folds", seed) for c in range(labels.num_classes) if labels.counts[c] > 1]
    cards = np.concatenate([np.empty(0, np.int64), *dealt])
    if len(cards) < folds:
        fix = f"use at most {len(cards)}" if len(cards) else "label at least two images of a class"
        raise ValueError(f"folds is {folds}, but just {len(cards)} labels can be held out: {fix}")
    out = labels.only(cards[fold::folds])
    return labels.only(np.setdiff1d(labels.labelled, out.labelled)), out
