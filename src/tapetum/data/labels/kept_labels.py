"""Lists of the images that keep the labels that they come with: names or indices in a text file, indices in an array.

Labelled subsets are published in these forms: SuNCEt's and PAWS' code has a text file of indices for CIFAR-10
(`cifar10_subsets/spc.4000_split.152.txt`) and of file names for ImageNet (`imagenet_subsets/90percent.txt`), PAWS-TF
an array of indices (`random_idx.npy`).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.labels.labels import UNLABELLED, Labels, labels_from_values
from tapetum.data.labels.name_matcher import NameMatcher
from tapetum.system.addresses import Place

_INDEX = re.compile("0|[1-9][0-9]{0,17}")
"""A whole number that fits into 64 bits; with leading zeros, as in `00017`, it can only be a name."""


def keep_listed(path: Place, lines: Sequence[tuple[int, str]], matcher: NameMatcher, own: Labels | None) -> Labels:
    """Keep the labels of the images that a text file lists, one name or one index per line.

    All lines are read in the same way. They are indices, counted from 0 in the order of the images, if each is a whole
    number and none names another image than the one at that index: in a folder that holds `17.jpg`, 17 is that file,
    wherever it lies; the images of an array are named by their indices, so both readings agree.

    Args:
        path: the file, for errors.
        lines: (line number, text) of its lines; at least one.
        matcher: finds images by name.
        own: the labels that the images come with; None if they have none.

    Raises:
        ValueError: the images have no labels, a line is no image or an image without a label, an index is out of range,
            names and indices are mixed, or only one class is left; names file, line, value and the fix.
    """
    if own is None:
        raise ValueError(
            f"{path} lists images without labels, but the images have no labels of their own: put them into one "
            "folder per class, or write path,label lines"
        )
    name = _first_name(lines, matcher)
    kept = []
    for number, text in lines:
        try:
            image = _indexed(text, len(own.names)) if name is None else _named(text, matcher, name)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        if own.values[image] == UNLABELLED:
            raise ValueError(
                f"{path}, line {number}: image {text!r} has no label of its own: put it into a class folder, or delete "
                "the line"
            )
        kept.append(image)
    return _keep(path, kept, own)


def _first_name(lines: Sequence[tuple[int, str]], matcher: NameMatcher) -> tuple[int, str] | None:
    """Return the first line that cannot be an index; None if the lines are indices."""
    for number, text in lines:  # a pass of its own, because names need not be looked up for it
        if not _INDEX.fullmatch(text):
            return number, text
    for number, text in lines:
        if any(image != int(text) for image in matcher.matches(text)):
            return number, text
    return None


def _indexed(text: str, num_images: int) -> int:
    image = int(text)
    if image >= num_images:
        raise ValueError(
            f"index {image} is out of range, because the {num_images} images count from 0 to {num_images - 1}: correct "
            "it, or give the images for which the list was made"
        )
    return image


def _named(text: str, matcher: NameMatcher, name: tuple[int, str]) -> int:
    if _INDEX.fullmatch(text) and not matcher.matches(text):
        raise ValueError(
            f"there is no image {text!r}, and it is no index, because line {name[0]} ({name[1]!r}) is a name: write "
            "names only or indices only"
        )
    return matcher.find(text)


def labels_from_array_file(
    path: Path, array: npt.NDArray[Any], names: Sequence[str], own: Callable[[], Labels | None]
) -> Labels:
    """Take an array from a file as labels, one per image, or else as indices of the images that keep their own labels.

    Args:
        path: the file, for errors.
        array: labels as in `labels_from_values`, if there is one for each image; else (K,) indices from 0, nine tenths
            of which are distinct: PAWS-TF's array was drawn with replacement.
        names: N image names.
        own: returns the labels that the images come with; called only for indices.

    Raises:
        ValueError: the array is neither; names the file, what rules out indices, and both possibilities.

    Example:
        >>> own = labels_from_values(["a", "b", "c", "d"], [7, 8, 7, 8])
        >>> labels_from_array_file(Path("few.npy"), np.array([3, 0]), own.names, lambda: own).values.tolist()
        [0, -1, -1, 1]
    """
    if array.shape[:1] == (len(names),):
        return labels_from_values(names, array)
    is_row = array.ndim == 1 and array.dtype.kind in "iu" and array.size > 0
    known = own() if is_row else None
    fault = _fault_of_indices(array, known) if is_row else "they are not one row of integers"
    if known is None or fault:
        raise ValueError(
            f"{path}: labels are {array.dtype} of shape {array.shape}: give one integer or string for each of the "
            f"{len(names)} images, or distinct indices from 0 to {len(names) - 1} of images that keep their own labels "
            f"({fault})"
        )
    return _keep(path, array.tolist(), known)


def _fault_of_indices(array: npt.NDArray[Any], own: Labels | None) -> str | None:
    """Say what keeps a row of integers from being indices of images that have labels."""
    if own is None:
        return "these images have no labels of their own"
    first, last = int(array.min()), int(array.max())
    if first < 0 or last >= len(own.names):
        return f"{first if first < 0 else last} is out of range"
    distinct, counts = np.unique(array, return_counts=True)
    # The published array was drawn with replacement; an array of class numbers has far fewer distinct values.
    if 10 * len(distinct) < 9 * len(array):
        return f"{distinct[counts.argmax()]} is there {counts.max()} times; numpy.unique keeps one of each"
    unlabelled = distinct[own.values[distinct] == UNLABELLED]
    return f"image {unlabelled[0]} has no label of its own" if unlabelled.size else None


def _keep(path: Place, images: Iterable[int], own: Labels) -> Labels:
    kept = np.unique(np.array(list(images), dtype=np.int64))
    classes = np.unique(own.values[kept])
    if len(classes) < 2:
        only = own.classes[classes[0]]
        raise ValueError(f"{path} lists images of the class {only!r} only: list images of at least two classes")
    return own.only(kept)
