"""Pools and labels at addresses: the same as the folder that is served there."""

import pickle

import numpy as np
import packed
import pytest
import torch
import web

from tapetum.data.health.unreadable import find_unreadable, readable
from tapetum.data.images.cache import decoded
from tapetum.data.images.stores import ArrayStore, FileStore, RaggedStore
from tapetum.data.sources.open_source import open_source, open_test_part
from tapetum.runs.new_images import open_new_images
from tapetum.system import remote
from tapetum.system.remote import Unreachable

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TAPETUM_PATIENCE", "0.05")
    monkeypatch.setattr(remote, "_FIRST_WAIT", 0.001)
    return packed.save_photos(tmp_path / "photos")


@pytest.fixture
def bucket(tmp_path):
    """Put what lies in a folder into a store in memory, and return its address."""
    memory = fsspec.filesystem("memory")

    def put(folder):
        memory.put(str(folder), f"/bucket/{folder.name}", recursive=folder.is_dir())
        return f"memory://bucket/{folder.name}"

    yield put
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "parquet"])
def test_an_address_is_the_pool_that_its_folder_is(photos, tmp_path, bucket, kind):
    expected = open_source(photos)
    packs = {"zip": packed.as_zip, "tar": packed.as_tar, "parquet": packed.as_parquet}
    place = photos if kind == "folder" else packs[kind](photos, tmp_path / f"pack.{kind}")
    source = open_source(bucket(place))
    assert source.store.names == expected.store.names
    assert (source.labels.values == expected.labels.values).all()
    assert kind == "parquet" or source.store.fingerprint == expected.store.fingerprint
    every = np.arange(9)[::-1]
    for store in (source.store, pickle.loads(pickle.dumps(source.store))):
        assert all(torch.equal(one, other) for one, other in zip(store.read(every), expected.store.read(every)))
    assert (source.store.sizes == expected.store.sizes).all()
    assert source.store.at_once > 1


def test_a_remote_pool_is_looked_through_and_decoded_once(photos, bucket):
    (photos / "ash/1.jpg").write_bytes(b"<html>")
    store = open_source(bucket(photos)).store
    assert list(find_unreadable(store)) == [1]
    source, unreadable = readable(open_source("memory://bucket/photos"))
    assert unreadable[0].path == "memory://bucket/photos/ash/1.jpg"
    pool = decoded(source.store)
    assert isinstance(pool, RaggedStore | ArrayStore)
    here = readable(open_source(photos))[0].store
    assert all(torch.equal(one, other) for one, other in zip(pool.read(np.arange(8)), here.read(np.arange(8))))
    assert pool.fingerprint == here.fingerprint


def test_small_archives_of_several_kinds_beside_images_are_passed_over(photos, bucket):
    for name in ("backup.zip", "meta.parquet"):
        (photos / name).touch()
    assert len(open_source(bucket(photos)).store) == 9


def test_labels_lie_at_addresses(photos, tmp_path, bucket):
    address = bucket(photos)
    (tmp_path / "labels.csv").write_text(
        "path,label\nash/0.jpg,x\nphotos/birch/1.jpg,y\nmemory://bucket/photos/cedar/2.jpg,y\n"
    )
    labels = bucket(tmp_path / "labels.csv")
    found = open_source(address, labels).labels
    assert [found.names[i] for i in found.labelled] == ["ash/0.jpg", "birch/1.jpg", "cedar/2.jpg"]
    with pytest.raises(ValueError, match=r"there is no labels file memory://bucket/none\.csv: check the address"):
        open_source(address, "memory://bucket/none.csv")
    (tmp_path / "labels.csv").write_text("ash/0.jpg,x\nbirch/1.jpg,y\n")
    assert len(open_source(photos, bucket(tmp_path / "labels.csv")).labels.labelled) == 2
    assert open_source(address, address).labels.classes == packed.CLASSES


def test_parts_of_a_remote_folder(photos, tmp_path, bucket):
    photos.rename(tmp_path / "train")
    (tmp_path / "whole").mkdir()
    (tmp_path / "train").rename(tmp_path / "whole/train")
    packed.save_photos(tmp_path / "whole/test", 1)
    address = bucket(tmp_path / "whole")
    assert (len(open_source(address).store), len(open_test_part(address).store)) == (9, 3)
    assert len(open_new_images(address, None)) == 12
    one = open_new_images(f"{address}/test/ash/0.jpg", 16)
    assert (one.names, one.shrink_to) == (("0.jpg",), 16)


def test_nothing_at_an_address(bucket, photos):
    with pytest.raises(ValueError, match="there is nothing at memory://bucket/none"):
        open_source("memory://bucket/none")
    (photos / "readme.md").write_text("nothing")
    for name in packed.names_of(photos):
        (photos / name).unlink()
    with pytest.raises(ValueError, match="there are no images below memory://bucket/photos"):
        open_source(bucket(photos))


def test_faults_of_a_server_are_no_damaged_images(photos):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: fsspec cannot reach web servers")
    with web.serving(photos) as server:
        store = open_source(server.address).store
        assert isinstance(store, FileStore)
        server.fail(5, "cut")
        assert len(store.read(np.arange(9))) == 9
        server.fail(10**6, "503")
        for read in (store.read, lambda indices: list(store.each(indices)), lambda _: find_unreadable(store)):
            with pytest.raises(Unreachable, match=r"\.jpg cannot be read"):
                read(np.arange(9))
        server.fail(0, "")
        assert find_unreadable(store) == {}, "nothing was remembered of the faults"
        (photos / "ash/0.jpg").unlink()
        with pytest.raises(ValueError, match=r"ash/0\.jpg does not exist"):
            store.read(np.array([0]))
