from pathlib import Path

import numpy as np
import pytest

from tapetum.data.labels.kept_labels import labels_from_array_file
from tapetum.data.labels.label_files import read_label_file
from tapetum.data.labels.labels import labels_from_folders, labels_from_values

FILES = ["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png", "loose.png"]
ROWS = [str(i) for i in range(12)]


def read_list(folder, text, names, own):
    path = folder / "spc.txt"
    path.write_text(text)
    return read_label_file(path, names, own=lambda: own)


def of_files(folder, text):
    return read_list(folder, text, FILES, labels_from_folders(FILES))


def of_rows(folder, text):
    return read_list(folder, text, ROWS, labels_from_values(ROWS, [i % 3 - 1 for i in range(12)], ["x", "y"]))


def test_whole_numbers_are_indices_where_no_file_is_named_so(tmp_path):
    labels = of_files(tmp_path, "3\n0\n\n2\n")
    assert (labels.classes, labels.values.tolist()) == (("cat", "dog"), [0, -1, 1, 1, -1])


def test_rows_of_an_array_are_named_by_their_indices(tmp_path):
    assert of_rows(tmp_path, "11\n1\n").values.tolist() == [-1, 0, *[-1] * 9, 1]


@pytest.mark.parametrize("names", [["cat/2", "cat/1", "dog/0"], ["cat/2.png", "cat/1.png", "dog/0.png"]])
def test_a_number_that_names_another_image_is_that_name(tmp_path, names):
    """Index 0 would be a cat, too, and index 2 the dog."""
    assert read_list(tmp_path, "2\n0\n", names, labels_from_folders(names)).values.tolist() == [0, -1, 1]


def test_one_number_that_is_a_name_makes_all_numbers_names(tmp_path):
    names = ["cat/7.png", "cat/b.png", "dog/c.png"]
    with pytest.raises(ValueError, match=r"line 1: there is no image '0', and .* line 3 \('7'\) is a name"):
        read_list(tmp_path, "0\n2\n7\n", names, labels_from_folders(names))
    alike = ["cat/1.png", "dog/1.png"]
    with pytest.raises(ValueError, match=r"line 2: '1' could be cat/1\.png or dog/1\.png: write its path"):
        read_list(tmp_path, "dog/1.png\n1\n", alike, labels_from_folders(alike))
    with pytest.raises(ValueError, match=r"line 1: there is no image '0', and .* line 2 \('1'\) is a name"):
        read_list(tmp_path, "0\n1\n", alike, labels_from_folders(alike))


@pytest.mark.parametrize(
    "text,message",
    [
        ("0\n5\n", r"line 2: index 5 is out of range, because the 5 images count from 0 to 4: correct it"),
        ("0\n4\n", "line 2: image '4' has no label of its own: put it into a class folder, or delete the line"),
        ("0\n1\n", "lists images of the class 'cat' only: list images of at least two classes"),
        (
            "0\ncat/a.png\n",
            r"line 1: there is no image '0', and .* line 2 \('cat/a\.png'\) is a name: write names only",
        ),
        (
            "cat/a.png\n2\n",
            r"line 2: there is no image '2', and .* line 1 \('cat/a\.png'\) is a name: write names only",
        ),
        ("0.0\n2.0\n", r"line 1: there is no image '0\.0'"),
        ("00\n02\n", "line 1: there is no image '00'"),
        ("-1\n0\n", "line 1: there is no image '-1'"),
        ("²\n0\n", "line 1: there is no image '²'"),
        ("9" * 5000 + "\n0\n", "line 1: there is no image '9999"),
    ],
)
def test_faults_of_lists_name_file_line_value_and_fix(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        of_files(tmp_path, text)
    assert "spc.txt" in str(caught.value)


@pytest.mark.parametrize(
    "text,message",
    [
        ("1\n12\n", "line 2: index 12 is out of range, because the 12 images count from 0 to 11"),
        ("1\n3\n", "line 2: image '3' has no label of its own"),
        ("1\n4\n", "the class 'x' only"),
    ],
)
def test_faults_of_lists_for_arrays(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        of_rows(tmp_path, text)


def test_a_list_of_indices_needs_labels_to_keep(tmp_path):
    with pytest.raises(ValueError, match="have no labels of their own: put them into one folder per class"):
        read_list(tmp_path, "0\n2\n", FILES, None)


def from_array(array, own=True):
    known = labels_from_folders(FILES) if own else None
    return labels_from_array_file(Path("random_idx.npy"), np.asarray(array), FILES, lambda: known)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, ">i4", np.uint64])
def test_an_array_of_another_length_holds_indices(dtype):
    labels = from_array(np.array([3, 0, 2], dtype))
    assert (labels.classes, labels.values.tolist()) == (("cat", "dog"), [0, -1, 1, 1, -1])


def test_an_array_with_one_value_per_image_holds_labels():
    """Even if the values could be indices."""
    assert from_array([4, 3, 2, 1, 0]).classes == ("0", "1", "2", "3", "4")
    assert from_array(["p", "q", "", "p", "q"], own=False).values.tolist() == [0, 1, -1, 0, 1]
    with pytest.raises(ValueError, match=r"float64 of shape \(5,\): give one integer or string for each of the 5"):
        from_array(np.zeros(5))


@pytest.mark.parametrize(
    "array,fault",
    [
        ([0, 5], "5 is out of range"),
        ([-1, 2], "-1 is out of range"),
        (np.array([0, 2**64 - 1], np.uint64), "18446744073709551615 is out of range"),
        ([0, 2, 0], "0 is there 2 times; numpy.unique keeps one of each"),
        ([0, 2, 1, 1, 1, 0, 2], "1 is there 3 times"),
        ([0, 4], "image 4 has no label of its own"),
        ([0.0, 2.0], "not one row of integers"),
        ([True, False], "not one row of integers"),
        (["0", "2"], "not one row of integers"),
        ([[0], [2]], "not one row of integers"),
        (np.empty(0, np.int64), "not one row of integers"),
        (np.int64(0), "not one row of integers"),
    ],
)
def test_an_array_that_is_neither_is_told_both_possibilities(array, fault):
    with pytest.raises(ValueError) as caught:
        from_array(array)
    said = str(caught.value)
    assert said.startswith(f"random_idx.npy: labels are {np.asarray(array).dtype} of shape {np.shape(array)}: ")
    assert "give one integer or string for each of the 5 images, or distinct indices from 0 to 4" in said
    assert fault in said


def test_indices_in_an_array_need_labels_to_keep_and_two_classes():
    with pytest.raises(ValueError, match=r"for each of the 5 images, or .* \(these images have no labels of their own"):
        from_array([0, 2], own=False)
    with pytest.raises(ValueError, match=r"random_idx\.npy lists images of the class 'dog' only"):
        from_array([2, 3])


def test_labels_too_few_for_the_images_are_not_taken_for_indices():
    """Class labels repeat, which is why indices must not."""
    rows = [str(i) for i in range(100)]
    own = labels_from_values(rows, [i % 10 for i in range(100)])
    with pytest.raises(ValueError, match="is there 8 times"):
        labels_from_array_file(Path("y.npy"), np.arange(72) % 10, rows, lambda: own)
