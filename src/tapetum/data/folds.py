"""Labels dealt out into folds, so that each measures once and trains in all other runs."""

from __future__ import annotations

import numpy as np

from tapetum.data.labels import Labels, drawn_order


def fold_of(labels: Labels, folds: int, fold: int, seed: int) -> tuple[Labels, Labels]:
    """Split labels into those that one of several runs trains with and those that it is measured on.

    Class by class, labels are dealt out like cards, in an order that seed and names alone decide: each label is held
    out of exactly one fold, the folds' sizes differ by one at most, and so do the shares of a class in them. The label
    of a class that has only one is never held out.

    Args:
        labels: the labels to split.
        folds: into how many parts, 2 or more.
        fold: which part is held out, from 0.
        seed: decides the split together with class and image names.

    Returns:
        (training labels, held-out labels), both over all N images.

    Raises:
        ValueError: `fold` is none of `folds`, or a fold would have no label to hold out.

    Example:
        >>> from tapetum.data.labels import labels_from_folders
        >>> labels = labels_from_folders(["ash/1", "ash/2", "oak/3", "oak/4", "oak/5"])
        >>> [fold_of(labels, 2, fold, seed=0)[1].counts.tolist() for fold in range(2)]
        [[1, 2], [1, 1]]
    """
    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(f"fold is {fold} of {folds}: give a fold from 0 of 2 folds or more")
    dealt = [drawn_order(labels, c, "folds", seed) for c in range(labels.num_classes) if labels.counts[c] > 1]
    cards = np.concatenate([np.empty(0, np.int64), *dealt])
    if len(cards) < folds:
        fix = f"ask for at most {len(cards)}" if len(cards) else "label two images of a class or more"
        raise ValueError(f"folds is {folds}, but just {len(cards)} labels can be spared in turn: {fix}")
    out = labels.only(cards[fold::folds])
    return labels.only(np.setdiff1d(labels.labelled, out.labelled)), out
