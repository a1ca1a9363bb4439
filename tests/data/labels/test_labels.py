from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.data.labels.labels import (
    Labels,
    labels_from_folders,
    labels_from_names,
    labels_from_values,
    sorted_classes,
)
from tapetum.data.labels.subsets import drawn_labels, held_out, labels_per_class, labels_percent


def pool(per_class=10, classes=("ant", "bee", "cat"), unlabelled=5):
    names = [f"{c}/{i:03d}.jpg" for c in classes for i in range(per_class)] + [f"{i}.jpg" for i in range(unlabelled)]
    return labels_from_folders(names)


def labelled_names(labels):
    return {(labels.names[i], labels.classes[labels.values[i]]) for i in labels.labelled}


def shuffled(labels, order):
    """The same pool, its files listed in another order."""
    return Labels(labels.classes, tuple(labels.names[i] for i in order), labels.values[np.array(order)])


def test_folders_are_classes_and_loose_images_unlabelled():
    labels = labels_from_folders(["dog/a.jpg", "cat/old/b.jpg", "c.jpg", "dog/d.jpg"])
    assert labels.classes == ("cat", "dog")
    assert labels.values.tolist() == [1, 0, -1, 1]
    assert labels.labelled.tolist() == [0, 1, 3]
    assert labels.counts.tolist() == [1, 2]
    assert labels.num_classes == 2


def test_class_folders_with_control_characters_are_refused():
    """A terminal would obey them."""
    with pytest.raises(
        ValueError, match=r"^class folder 'e\\x1b\]0;owned' has a control character in its name: rename"
    ):
        labels_from_folders(["e\x1b]0;owned/a.jpg", "dog/b.jpg"])
    assert labels_from_folders(["caf\udce9/a.jpg", "dog/b.jpg"]).num_classes == 2  # a name that is no UTF-8


@pytest.mark.parametrize("names", [["a.jpg"], ["cat/a.jpg", "cat/b.jpg", "c.jpg"]])
def test_one_class_or_none_is_refused(names):
    with pytest.raises(ValueError, match="at least two classes"):
        labels_from_folders(names)


def test_number_classes_are_in_the_order_of_numbers():
    assert sorted_classes(["10", "2", "1", "2"]) == ("1", "2", "10")
    assert sorted_classes(["10", "2", "b"]) == ("10", "2", "b")


def test_values():
    names = ["a", "b", "c"]
    assert labels_from_values(names, np.array([11, -1, 2])).classes == ("2", "11")
    assert labels_from_values(names, np.array([11, -1, 2])).values.tolist() == [1, -1, 0]
    assert labels_from_values(names, np.array([[1], [0], [1]], np.uint8)).values.tolist() == [1, 0, 1]
    assert labels_from_values(names, ["x", "", "w"]).values.tolist() == [1, -1, 0]
    for missing in ("", None, np.nan):  # as a column of text in pandas
        assert labels_from_values(names, np.array(["x", missing, "nan"], object)).values.tolist() == [1, -1, 0]
    named = labels_from_values(names, [0, 2, -1], ["horse", "cow", "ant"])
    assert named.classes == ("ant", "cow", "horse")
    assert named.values.tolist() == [2, 0, -1]


@pytest.mark.parametrize(
    "values,classes,message",
    [
        ([0, 1], None, "shape"),
        ([0.0, 1.0, 2.0], None, "float64"),
        (np.array(["x", "y", 2], object), None, "object"),
        ([0, 1, 2], ["a", "b"], r"0\.\.1"),
        ([0, 1, -2], None, "-2"),
    ],
)
def test_faulty_values(values, classes, message):
    with pytest.raises(ValueError, match=message):
        labels_from_values(["a", "b", "c"], values, classes)


def test_labels_refuse_what_does_not_fit():
    good = np.array([0, 1], dtype=np.int64)
    with pytest.raises(ValueError, match="order"):
        Labels(("b", "a"), ("x", "y"), good)
    with pytest.raises(ValueError, match="int64"):
        Labels(("a", "b"), ("x", "y"), good.astype(np.int32))
    with pytest.raises(ValueError, match=r"-1\.\.1"):
        Labels(("a", "b"), ("x", "y"), good + 1)


def test_in_order_of_another_list_of_classes():
    test_set = labels_from_names(["1", "2", "3"], ["dog", "bee", None])
    moved = test_set.in_order_of(("ant", "bee", "cat", "dog"))
    assert moved.values.tolist() == [3, 1, -1]
    with pytest.raises(ValueError, match="class 'dog' is not among"):
        test_set.in_order_of(("ant", "bee"))


def test_classes_whose_accents_are_stored_otherwise_are_the_same():
    one, other = (normalize(form, "Bär") for form in ("NFC", "NFD"))
    test_set = labels_from_names(["1", "2"], [other, "ant"])
    assert test_set.in_order_of((one, "ant")).values.tolist() == [0, 1]
    assert test_set.in_order_of((other, one, "ant")).values.tolist() == [0, 2], "the same spelling comes first"


def test_fingerprint():
    assert pool().fingerprint == pool().fingerprint
    assert pool().fingerprint != labels_per_class(pool(), 3, 0).fingerprint
    assert pool().fingerprint != pool(classes=("ant", "bee", "cow")).fingerprint


def test_labels_per_class_keeps_that_many_and_only_given_labels():
    labels = pool()
    few = labels_per_class(labels, 4, seed=1)
    assert few.counts.tolist() == [4, 4, 4]
    assert labelled_names(few) < labelled_names(labels)
    assert len(few.values) == len(labels.values)


def test_labels_per_class_is_pinned():
    """A changed draw would give every published result another label set."""
    few = labels_per_class(pool(), 3, seed=7)
    assert sorted(name for name, _ in labelled_names(few)) == [
        "ant/000.jpg",
        "ant/002.jpg",
        "ant/009.jpg",
        "bee/005.jpg",
        "bee/006.jpg",
        "bee/007.jpg",
        "cat/001.jpg",
        "cat/005.jpg",
        "cat/009.jpg",
    ]


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(35)), st.integers(0, 2**40), st.integers(1, 9))
def test_subsets_do_not_depend_on_the_order_of_files(order, seed, count):
    labels = pool()
    moved = shuffled(labels, order)
    few = labels_per_class(labels, count, seed)
    assert labelled_names(few) == labelled_names(labels_per_class(moved, count, seed))
    assert labelled_names(labels_per_class(labels, count + 1, seed)) > labelled_names(few)
    for part, other in zip(
        held_out(labels, per_class=count, seed=seed), held_out(moved, per_class=count, seed=seed), strict=True
    ):
        assert labelled_names(part) == labelled_names(other)


def test_a_class_is_drawn_the_same_beside_other_classes():
    beside = (
        labels_per_class(pool(classes=("ant", "bee")), 4, 3),
        labels_per_class(pool(classes=("ant", "zebra")), 4, 3),
    )
    ants = [{name for name, c in labelled_names(labels) if c == "ant"} for labels in beside]
    assert ants[0] == ants[1]


def test_seeds_draw_different_subsets():
    drawn = {frozenset(labelled_names(labels_per_class(pool(100), 10, seed))) for seed in range(20)}
    assert len(drawn) == 20


def test_too_few_labels_are_said():
    names = [f"a/{i}" for i in range(9)] + ["b/0", "b/1"]
    with pytest.raises(ValueError, match=r"class 'b' has 2 labelled images, fewer than the 3 .* at most 2"):
        labels_per_class(labels_from_folders(names), 3, 0)
    with pytest.raises(ValueError, match="at least 1"):
        labels_per_class(pool(), 0, 0)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(3, 12), min_size=2, max_size=5),
    st.floats(0.01, 0.99),
    st.integers(0, 100),
)
def test_held_out_splits_every_class(sizes, fraction, seed):
    labels = labels_from_folders([f"{c}/{i}" for c, size in enumerate(sizes) for i in range(size)])
    train, out = held_out(labels, fraction=fraction, seed=seed)
    assert labelled_names(train) | labelled_names(out) == labelled_names(labels)
    assert not labelled_names(train) & labelled_names(out)
    assert (train.counts > 0).all()
    assert (out.counts > 0).all()
    assert (np.abs(out.counts - fraction * np.array(sizes)) <= 1).all()


def test_classes_with_fewer_than_three_labels_keep_them():
    sizes = {"a": 1, "b": 2, "c": 3, "d": 5, "e": 8, "f": 100}
    labels = labels_from_folders([f"{name}/{i}" for name, size in sizes.items() for i in range(size)])
    train, out = held_out(labels, fraction=0.2, seed=0)
    assert out.counts.tolist() == [0, 0, 1, 1, 2, 20]
    assert (train.counts + out.counts).tolist() == list(sizes.values())
    assert held_out(labels, fraction=0.9, seed=0)[0].counts.tolist() == [1, 2, 1, 1, 1, 10]
    with pytest.raises(ValueError, match="class 'a' has 1 labelled"):
        held_out(labels, per_class=1, seed=0)
    with pytest.raises(ValueError, match="no class has three"):
        held_out(labels_from_folders(["a/1", "a/2", "b/1"]), fraction=0.5, seed=0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.floats(0.1, 100), st.integers(0, 99))
def test_a_share_of_labels_is_drawn_class_by_class(sizes, percent, seed):
    labels = labels_from_folders([f"{c}/{i}" for c, size in enumerate(sizes) for i in range(size)])
    share = labels_percent(labels, percent, seed)
    assert (share.counts >= 1).all()
    assert (np.abs(share.counts - np.maximum(1, percent / 100 * np.array(sizes))) <= 0.5 + 1e-9).all()
    assert labelled_names(share) <= labelled_names(labels_percent(labels, min(100, 2 * percent), seed))


def test_a_share_is_more_than_none_and_at_most_all():
    assert labels_percent(pool(), 100, 0).counts.tolist() == pool().counts.tolist()
    for percent in (0, -1, 100.5, float("nan")):
        with pytest.raises(ValueError, match="more than 0 and at most 100"):
            labels_percent(pool(), percent, 0)


def test_a_number_or_a_share_of_labels_is_drawn():
    labels = pool()
    assert drawn_labels(labels, None, None, 0) is labels
    assert labelled_names(drawn_labels(labels, 2, None, 5)) == labelled_names(labels_per_class(labels, 2, 5))
    assert labelled_names(drawn_labels(labels, None, 30, 5)) == labelled_names(labels_percent(labels, 30, 5))
    with pytest.raises(ValueError, match="give one"):
        drawn_labels(labels, 2, 30, 5)


def test_held_out_needs_one_size():
    for sizes in ({}, {"per_class": 1, "fraction": 0.1}):
        with pytest.raises(ValueError, match="one of the two"):
            held_out(pool(), seed=0, **sizes)
    for sizes in ({"per_class": 0}, {"fraction": 1.0}):
        with pytest.raises(ValueError, match="between 0 and 1"):
            held_out(pool(), seed=0, **sizes)


def test_none_of_these_is_no_class_and_stays_with_its_images():
    labels = labels_from_folders(["ant/1", "none of these/2", "bee/3", "none of these/4", "5", "ant/6", "bee/7"])
    assert labels.classes == ("ant", "bee")
    assert labels.values.tolist() == [0, -1, 1, -1, -1, 0, 1]
    assert labels.none.tolist() == [1, 3]
    assert labels.in_order_of(("aardvark", "ant", "bee")).none.tolist() == [1, 3]
    assert labels.only(np.array([0, 2])).none.tolist() == [1, 3]
    assert labels_per_class(labels, 1, seed=0).none.tolist() == [1, 3]
    assert [part.none.tolist() for part in held_out(labels, per_class=1, seed=0)] == [[1, 3], [1, 3]]
    assert labels.of_images(np.array([6, 5, 3, 2, 0])).none.tolist() == [2]
    plain = labels_from_folders(["ant/1", "x", "bee/3", "y", "5", "ant/6", "bee/7"])
    assert labels.fingerprint == plain.fingerprint  # what is trained on decides, and the pool has its own


def test_none_of_these_alone_is_no_class():
    with pytest.raises(ValueError, match="at least two classes"):
        labels_from_names(["a", "b"], ["none of these", None])
    with pytest.raises(ValueError, match="only the class 'ant'"):
        labels_from_names(["a", "b"], ["none of these", "ant"])
