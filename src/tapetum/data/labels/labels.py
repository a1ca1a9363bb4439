"""Which images are labelled, and with which class.

Subsets of labels are drawn by *name*: whether an image belongs to one depends only on the seed, the name of its class
and its own name. Listing files in another order, or on another machine, changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tapetum.data.label_formats.entries import composed, is_printable, shown

UNLABELLED = -1
NONE_OF_THESE = "none of these"
"""Reserved class name of images that somebody looked at and that belong to none of the classes. They count as
unlabelled, are no part of the pool that is trained on, and show what images of no class look like."""


def sorted_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Sort distinct class names: as numbers if all of them are whole numbers, else by code point."""
    distinct = set(names)
    if all(name.isascii() and name.isdigit() for name in distinct):
        # By the number without making it one: Python refuses those of thousands of digits.
        return tuple(sorted(distinct, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name)))
    return tuple(sorted(distinct))


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a pool of N images.

    Raises:
        ValueError: there is only one class, classes are repeated or out of order, or `values` do not index them.
    """

    classes: tuple[str, ...]
    """C class names, in the order of `sorted_classes`; empty if nothing is labelled."""
    names: tuple[str, ...]
    """N distinct image names, as in the store."""
    values: npt.NDArray[np.int64]
    """(N,) int64 indices into `classes`; -1 for unlabelled images."""
    none: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Ascending indices of the unlabelled images that are labelled `NONE_OF_THESE`."""

    def __post_init__(self) -> None:
        if len(self.classes) == 1:
            raise ValueError(
                f"labels name only the class {shown(self.classes[0])}: "
                "a classifier needs images of at least two classes"
            )
        if self.classes != sorted_classes(self.classes):
            raise ValueError(f"classes {self.classes} must be distinct and in the order of sorted_classes()")
        if self.values.shape != (len(self.names),) or self.values.dtype != np.int64:
            raise ValueError(f"values must be int64 of shape ({len(self.names)},), one per image name")
        if self.values.size and not -1 <= self.values.min() <= self.values.max() < len(self.classes):
            raise ValueError(f"values must lie in -1..{len(self.classes) - 1}")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def labelled(self) -> npt.NDArray[np.int64]:
        """Indices of the labelled images, ascending."""
        return np.flatnonzero(self.values != UNLABELLED).astype(np.int64)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(C,) labelled images per class."""
        return np.bincount(self.values[self.labelled], minlength=self.num_classes).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of classes and values; equal on another machine that has the same images and labels."""
        digest = hashlib.blake2b("\0".join(self.classes).encode(errors="surrogateescape"), digest_size=16)
        digest.update(self.values.astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def name_fingerprint(self) -> str:
        """Hash of the labelled images' names with their classes, whatever unlabelled images there are besides."""
        named = sorted((self.names[i], self.classes[self.values[i]]) for i in self.labelled)
        text = "\0".join("\0".join(pair) for pair in named)
        return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()

    def in_order_of(self, classes: tuple[str, ...]) -> Labels:
        """Return the same labels as indices into other classes, e.g. test labels as indices into the training classes.

        If no class is written in the same way, one counts that differs only in how its accents are stored.

        Raises:
            ValueError: a labelled image has a class that is not among `classes`.
        """
        position = {composed(name): i for i, name in enumerate(classes)} | {name: i for i, name in enumerate(classes)}
        moved = [position.get(name, position.get(composed(name), UNLABELLED)) for name in self.classes]
        counted = zip(self.classes, moved, self.counts, strict=True)
        missing = [name for name, new, count in counted if count and new == UNLABELLED]
        if missing:
            raise ValueError(
                f"class {missing[0]!r} is not among the {len(classes)} classes trained on "
                f"({', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}): rename it or leave it out"
            )
        return replace(self, classes=classes, values=np.array([*moved, UNLABELLED], np.int64)[self.values])

    def of_images(self, kept: npt.NDArray[np.int64]) -> Labels:
        """Keep only the images at the indices `kept`, with their labels.

        Raises:
            ValueError: a class that had labels loses all of them.
        """
        none = np.flatnonzero(np.isin(kept, self.none)).astype(np.int64)
        left = Labels(self.classes, tuple(self.names[int(i)] for i in kept), self.values[kept], none)
        lost = np.flatnonzero((self.counts > 0) & (left.counts == 0))
        if lost.size:
            raise ValueError(
                f"none of the {self.counts[lost[0]]} labelled images of class {self.classes[lost[0]]!r} can be read: "
                "label others of that class, or take it out of the labels"
            )
        return left

    def only(self, kept: npt.NDArray[np.int64]) -> Labels:
        """Keep all images, but only the labels of those at the indices `kept`."""
        values = np.full_like(self.values, UNLABELLED)
        values[kept] = self.values[kept]
        return replace(self, values=values)


def no_labels(names: Sequence[str]) -> Labels:
    """Return the labels of images none of which is labelled."""
    return Labels((), tuple(names), np.full(len(names), UNLABELLED, dtype=np.int64))


def labels_from_names(names: Sequence[str], class_of: Sequence[str | None]) -> Labels:
    """Make labels from one class name (None: unlabelled; or `NONE_OF_THESE`) per image name.

    Raises:
        ValueError: fewer than two classes.
    """
    classes = sorted_classes(name for name in class_of if name is not None and name != NONE_OF_THESE)
    if not classes:
        raise ValueError("labels name no class: a classifier needs images of at least two classes")
    position: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    position[None] = position[NONE_OF_THESE] = UNLABELLED
    none = np.array([i for i, name in enumerate(class_of) if name == NONE_OF_THESE], dtype=np.int64)
    return Labels(classes, tuple(names), np.array([position[name] for name in class_of], dtype=np.int64), none)


def labels_from_folders(names: Sequence[str]) -> Labels:
    """Take labels from the first folder of each relative name, `cat/0001.jpg`; images in no folder are unlabelled.

    Raises:
        ValueError: fewer than two class folders, or a name with control characters, which a terminal would obey.
    """
    class_of = [name.split("/", 1)[0] if "/" in name else None for name in names]
    for name in dict.fromkeys(class_of):
        if name is not None and not is_printable(name.encode(errors="replace").decode()):  # it need not be UTF-8
            raise ValueError(f"class folder {name!r} has a control character in its name: rename it")
    return labels_from_names(names, class_of)


def is_missing(value: object) -> bool:
    """Return whether a value is what tables hold where there is none."""
    return value is None or (not isinstance(value, str) and str(value) in ("nan", "<NA>", "NaT"))


def labels_from_values(names: Sequence[str], values: npt.ArrayLike, classes: Sequence[str] | None = None) -> Labels:
    """Make labels from an array.

    Args:
        names: N image names.
        values: (N,) class indices (-1: unlabelled) if `classes` is given; else integers or strings that are
            themselves the class names (-1, the empty string or a missing one: unlabelled).
        classes: C names in the order of the indices.

    Raises:
        ValueError: wrong shape or type, or an index outside the classes.
    """
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    kind = array.dtype.kind
    is_text = kind == "U" or (kind == "O" and all(isinstance(value, str) or is_missing(value) for value in array.flat))
    if array.shape != (len(names),) or not (is_text or kind in "iu"):
        raise ValueError(
            f"labels are {array.dtype} of shape {array.shape}: give one integer or string for each of "
            f"the {len(names)} images"
        )
    if is_text:
        return labels_from_names(names, [None if is_missing(value) else str(value) or None for value in array])
    if array.size and (array.min() < -1 or (classes is not None and array.max() >= len(classes))):
        last = "" if classes is None else f"..{len(classes) - 1}"
        raise ValueError(f"labels span {array.min()}..{array.max()}: expected -1 (unlabelled) or 0{last}")
    if classes is None:
        return labels_from_names(names, [str(value) if value >= 0 else None for value in array.tolist()])
    ordered = sorted_classes(classes)
    table = np.array([ordered.index(name) for name in classes] + [UNLABELLED], dtype=np.int64)
    return Labels(ordered, tuple(names), table[array.astype(np.int64)])
