import gzip
import os
import pickle
import struct

import numpy as np
import pytest

from tapetum.data.sources.arrays import read_numpy
from tapetum.data.sources.cifar import read_pickle
from tapetum.data.sources.idx import find_idx, read_idx


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays_lists_and_bytes_are_read(tmp_path, protocol):
    path = tmp_path / "batch"
    content = {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [0, 1, 2], b"batch_label": b"1 of 5"}
    path.write_bytes(pickle.dumps(content, protocol))
    read = read_pickle(path)
    assert np.array_equal(read["data"], content[b"data"])
    assert read["labels"] == [0, 1, 2]


def test_python_2_pickle(tmp_path):
    """As CIFAR-10 was written: protocol 2, Python 2 strings."""
    path = tmp_path / "batch"
    text = b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04U\x02\xff\x00q\x05u."
    path.write_bytes(text)
    assert read_pickle(path) == {"labels": [6, 9], "data": b"\xff\x00"}
    array = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x05\x06tbs."
    )
    path.write_bytes(array)
    assert read_pickle(path)["data"].tolist() == [[5, 6]]
    path.write_bytes(array.replace(b"U\x02u1", b"U\x02O8"))
    with pytest.raises(ValueError, match="array of 'O8'"):
        read_pickle(path)


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(4, dtype=">i4"), np.zeros((0, 3), bool)])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_other_plain_arrays(tmp_path, array, protocol):
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": array}, protocol))
    if protocol == 2 and not array.size:
        return  # Python spells empty bytes of protocol 2 as a call of bytes()
    assert np.array_equal(read_pickle(tmp_path / "batch")["data"], array)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_cannot_run_code(tmp_path, protocol):
    path, marker = tmp_path / "batch", tmp_path / "marker"
    path.write_bytes(pickle.dumps({"data": Attack(marker)}, protocol))
    with pytest.raises(ValueError, match=r"asks for (posix|nt)\.system"):
        read_pickle(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins\neval", "builtins\ngetattr", "numpy\nload", "numpy.core.multiarray\nscalar", "os\nsystem"]
)
def test_no_other_name_is_found(tmp_path, name):
    path = tmp_path / "batch"
    path.write_bytes(f"c{name}\n(S'1'\ntR.".encode())
    with pytest.raises(ValueError, match="asks for"):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2]), pickle.dumps({"a": 1})[:-3]])
def test_damaged_pickles_are_named(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(ValueError, match=r"batch .*fetch it again"):
        read_pickle(tmp_path / "batch")


def idx(array, kind=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def test_idx(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "raw").write_bytes(idx(images))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(images)))
    for name in ("raw", "packed.gz"):
        assert np.array_equal(read_idx(tmp_path / name), images)


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("a", b"", "not an IDX file"),
        ("a", b"\0\0\x08\x03\0\0", "not an IDX file"),
        ("a", idx(np.zeros((2, 3), np.uint8), kind=0x0D), "not an IDX file"),
        ("a", idx(np.zeros((2, 3), np.uint8))[:-1], r"5 bytes of data where its header says \(2, 3\)"),
        ("a.gz", b"garbage", "cannot be read"),
        ("a.gz", gzip.compress(idx(np.zeros((2, 3), np.uint8)))[:-9], "cannot be read"),
    ],
)
def test_damaged_idx(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / name)


def test_find_idx(tmp_path):
    assert find_idx(tmp_path, "train") is None
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(ValueError, match="one IDX file of train images and one of labels"):
        find_idx(tmp_path, "train")
    (tmp_path / "train-labels.idx1-ubyte").touch()
    assert [p.name for p in find_idx(tmp_path, "train")] == ["train-images-idx3-ubyte.gz", "train-labels.idx1-ubyte"]
    assert find_idx(tmp_path, "test") is None


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
