"""IDX files."""

import gzip
import struct

import numpy as np
import pytest

from tapetum.data.sources.idx import find_idx, read_idx


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
        ("a.gz", gzip.compress(idx(np.zeros((2, 3), np.uint8)), mtime=0)[:-9], "cannot be read"),
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
