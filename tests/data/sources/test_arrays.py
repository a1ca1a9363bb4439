"""Images and labels in .npy and .npz files."""

import os

import numpy as np
import pytest

from tapetum.data.sources.arrays import read_numpy


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    "names", [("train_images", "train_labels"), ("x_train", "y_train"), ("images", "labels"), ("x", "y")]
)
def test_npz_names(tmp_path, names):
    images, labels = np.zeros((2, 4, 4), np.uint8), np.array([1, 2])
    np.savez(tmp_path / "a.npz", **dict(zip(names, (images, labels), strict=True)), other=np.ones(1))
    read = read_numpy(tmp_path / "a.npz", "train")
    assert np.array_equal(read[0], images)
    assert np.array_equal(read[1], labels)
    with pytest.raises(ValueError, match=r"a\.npz (has no test part|holds)"):
        read_numpy(tmp_path / "a.npz", "test")


def test_npz_test_split(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros(3), x_test=np.ones(2), y_test=np.ones(2))
    assert len(read_numpy(tmp_path / "a.npz", "test")[0]) == 2
    assert read_numpy(tmp_path / "a.npz", "train")[1] is None


def test_pickled_objects_in_numpy_files_are_refused(tmp_path):
    marker = tmp_path / "marker"
    np.save(tmp_path / "a.npy", np.array([Attack(marker)]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=np.array([Attack(marker)]))
    (tmp_path / "b.npz").write_bytes(b"garbage")
    for name in ("a.npy", "a.npz", "b.npz"):
        with pytest.raises(ValueError, match="plain numeric arrays"):
            read_numpy(tmp_path / name, "train")
    assert not marker.exists()


def test_npz_with_unknown_names(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=np.zeros(1))
    with pytest.raises(ValueError, match="holds pictures: name the arrays images and labels"):
        read_numpy(tmp_path / "a.npz", "train")
