"""CIFAR's pickles: plain arrays are read, and nothing in them is run."""

import os
import pickle

import numpy as np
import pytest

from tapetum.data.sources.cifar import read_pickle


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
