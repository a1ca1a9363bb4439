import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.data.labels.labels import labels_from_folders
from tapetum.data.labels.subsets import fold_of


def labelled(counts):
    return labels_from_folders([f"{chr(97 + c)}/{i}" for c, count in enumerate(counts) for i in range(count)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(2, 6), st.integers(0, 3))
def test_each_label_is_held_out_once_and_classes_are_spread_evenly(counts, folds, seed):
    labels = labelled(counts)
    spared = sum(count for count in counts if count > 1)
    if spared < folds:
        with pytest.raises(ValueError, match=f"folds is {folds}, but just {spared} labels"):
            fold_of(labels, folds, 0, seed)
        return
    parts = [fold_of(labels, folds, fold, seed) for fold in range(folds)]
    out = np.concatenate([held.labelled for _, held in parts])
    assert len(out) == len(set(out.tolist())) == spared
    sizes = np.array([held.counts for _, held in parts])
    assert np.ptp(sizes.sum(axis=1)) <= 1
    assert np.ptp(sizes, axis=0).max() <= 1
    for trained, held in parts:
        assert trained.counts.min() >= 1
        assert sorted([*trained.labelled, *held.labelled]) == labels.labelled.tolist()


def test_names_and_seed_alone_decide():
    names = [f"{c}/{i}" for c in "ab" for i in range(9)]
    one, other = labels_from_folders(names), labels_from_folders(names[::-1])
    held = [{labels.names[i] for i in fold_of(labels, 3, 1, seed=4)[1].labelled} for labels in (one, other)]
    assert held[0] == held[1]
    assert held[0] != {one.names[i] for i in fold_of(one, 3, 1, seed=5)[1].labelled}


@pytest.mark.parametrize("folds,fold", [(1, 0), (3, 3), (3, -1)])
def test_a_fold_that_is_none_is_refused(folds, fold):
    with pytest.raises(ValueError, match=f"fold is {fold} of {folds}"):
        fold_of(labelled([5, 5]), folds, fold, seed=0)
