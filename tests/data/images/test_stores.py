import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from tapetum.data.images.stores import ArrayStore, FileStore, Store, shrunk


def images(n=7, size=(5, 6), channels=3):
    return (np.arange(n * channels * size[0] * size[1]) % 251).astype(np.uint8).reshape(n, channels, *size)


def write_files(root, arrays, names=None):
    names = names or [f"{'ab'[i % 2]}/{i}.png" for i in range(len(arrays))]
    for name, array in zip(names, arrays, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array.transpose(1, 2, 0)).save(root / name)
    return names


def test_array_store_reads_rows_in_any_order():
    pool = images()
    store = ArrayStore(pool)
    assert isinstance(store, Store)
    batch = store.read(np.array([3, 0, 3]))
    assert batch.dtype == torch.uint8
    assert np.array_equal(batch.numpy(), pool[[3, 0, 3]])
    batch.zero_()
    assert pool.any(), "a batch is a copy"
    assert store.read(np.array([], dtype=np.int64)).shape == (0, 3, 5, 6)
    assert (len(store), store.channels, store.image_size) == (7, 3, (5, 6))
    assert store.sizes.tolist() == [[5, 6]] * 7
    assert store.names[:2] == ("0", "1")


@pytest.mark.parametrize("index", [-1, 7])
def test_array_store_refuses_indices_outside(index):
    with pytest.raises(IndexError, match=r"0\.\.6"):
        ArrayStore(images()).read(np.array([index]))


def test_array_store_refuses_other_arrays():
    with pytest.raises(ValueError, match="float32 of shape"):
        ArrayStore(np.zeros((2, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 3\)"):
        ArrayStore(np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="1 names for 7 images"):
        ArrayStore(images(), ["a"])


def test_array_fingerprint_is_of_shape_and_content():
    one = ArrayStore(images()).fingerprint
    assert one == ArrayStore(np.asfortranarray(images())).fingerprint
    assert one != ArrayStore(images().reshape(7, 3, 6, 5)).fingerprint
    changed = images()
    changed[6, 2, 4, 5] ^= 1
    assert one != ArrayStore(changed).fingerprint
    assert ArrayStore(changed, fingerprint="given").fingerprint == "given"


def test_memory_mapped_store_is_mapped_again_where_it_is_unpickled(tmp_path):
    pool = images(200, (32, 32))
    np.save(tmp_path / "pool.npy", pool)
    store = ArrayStore.open(tmp_path / "pool.npy")
    sent = pickle.dumps(store)
    assert len(sent) < pool.nbytes / 50
    assert np.array_equal(pickle.loads(sent).read(np.array([5, 199])).numpy(), pool[[5, 199]])
    assert store.fingerprint == ArrayStore(pool).fingerprint


def test_file_store_reads_each_image_in_its_size(tmp_path):
    arrays = [images(1, (4, 6))[0], images(1, (3, 2))[0]]
    store = FileStore(tmp_path, write_files(tmp_path, arrays))
    assert isinstance(store, Store)
    read = store.read(np.array([1, 0]))
    assert np.array_equal(read[0].numpy(), arrays[1])
    assert np.array_equal(read[1].numpy(), arrays[0])
    assert store.sizes.tolist() == [[4, 6], [3, 2]]
    assert (store.channels, store.image_size, len(store)) == (3, None, 2)
    assert FileStore(tmp_path, ["a/0.png"]).image_size == (4, 6)


def test_file_fingerprint_is_the_same_elsewhere_and_changes_with_the_files(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    names = write_files(here, images(4))
    write_files(there, images(4))
    one = FileStore(here, names).fingerprint
    assert one == FileStore(there, names).fingerprint
    assert one != FileStore(here, names[:3]).fingerprint
    small = shrunk(FileStore(here, names), 3)
    assert one != small.fingerprint != shrunk(FileStore(here, names), 2).fingerprint
    assert small.only(np.array([0])).shrink_to == 3
    assert one != FileStore(here, names[::-1]).fingerprint, "another order numbers the images otherwise"
    (there / names[0]).write_bytes((there / names[0]).read_bytes() + b"\0")
    assert one != FileStore(there, names).fingerprint


def test_file_store_refuses_doubles_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"a\.png is listed twice"):
        FileStore(tmp_path, ["a.png", "b.png", "a.png"])
    with pytest.raises(ValueError, match=r"^image 99999 is listed twice"):
        FileStore(tmp_path, [*map(str, range(100_000)), "99999"])  # to compare each with all before took minutes
    with pytest.raises(ValueError, match=r"a\.png cannot be opened"):
        _ = FileStore(tmp_path, ["a.png"]).fingerprint


def test_no_path_is_kept_for_each_of_many_files(tmp_path, monkeypatch):
    """A million Path objects take half a gigabyte."""
    store = FileStore(tmp_path, write_files(tmp_path, images(4)))
    monkeypatch.setattr(FileStore, "paths", property(lambda self: pytest.fail("all paths were made")))
    assert (store.file_stats[:, 0] > 0).all()
    assert store.sizes.shape == (4, 2)
    assert store.fingerprint
