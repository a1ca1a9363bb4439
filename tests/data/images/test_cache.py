import errno
import fcntl
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tapetum.data.health.unreadable import find_unreadable
from tapetum.data.images import cache
from tapetum.data.images.cache import cache_folder, decoded, fits
from tapetum.data.images.stores import ArrayStore, FileStore, RaggedStore, shrunk
from tapetum.system.machine import memory_bytes


def write_pool(root, sizes, suffix=".jpg"):
    root.mkdir(parents=True, exist_ok=True)
    names = []
    for i, (height, width) in enumerate(sizes):
        pixels = (np.arange(height * width * 3) * (i + 3) % 256).astype(np.uint8).reshape(height, width, 3)
        names.append(f"{i}{suffix}")
        Image.fromarray(pixels).save(root / names[-1])
    return FileStore(root, names)


def rows(store):
    return store.read(np.arange(len(store)))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 2 * 3 * 8 * 8)  # two images of 8x8


def test_equal_sizes_are_cached_bit_for_bit(tmp_path, small_chunks):
    files = write_pool(tmp_path / "pool", [(8, 8)] * 5)
    seen = []
    pool = decoded(files, folder=tmp_path / "cache", report=lambda done, total: seen.append((done, total)))
    assert isinstance(pool, ArrayStore)
    assert torch.equal(rows(pool), torch.stack(rows(files)))
    assert pool.fingerprint == files.fingerprint
    assert pool.names == files.names
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_a_finished_cache_is_reused_without_reading_images(tmp_path, monkeypatch):
    files = write_pool(tmp_path / "pool", [(8, 8)] * 3)
    first = decoded(files, folder=tmp_path / "cache")

    def refuse(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache, "decode", refuse)
    monkeypatch.setattr(cache, "header_sizes", refuse)
    again = decoded(FileStore(files.root, files.names), folder=tmp_path / "cache")
    assert torch.equal(rows(again), rows(first))
    assert again.fingerprint == first.fingerprint


def test_changed_files_are_decoded_again_though_size_and_name_stay(tmp_path):
    files = write_pool(tmp_path / "pool", [(8, 8)] * 2, ".bmp")
    decoded(files, folder=tmp_path / "cache")
    path = files.paths[0]
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    changed = FileStore(files.root, files.names)
    assert changed.fingerprint == files.fingerprint
    assert (rows(decoded(changed, folder=tmp_path / "cache"))[0] == 9).all()


def test_interrupted_decoding_goes_on(tmp_path, small_chunks, monkeypatch):
    files = write_pool(tmp_path / "pool", [(8, 8)] * 7)
    expected = torch.stack(rows(files))
    calls = []
    real = cache.decode

    def dies_at_sixth(path, shrink_to):
        calls.append(path.name)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(path, shrink_to)

    monkeypatch.setattr(cache, "decode", dies_at_sixth)
    with pytest.raises(KeyboardInterrupt):
        decoded(files, folder=tmp_path / "cache")
    (partial,) = (tmp_path / "cache").glob("*.partial")
    with (partial / "done").open("a") as log:
        log.write("3")  # cut off in the middle of "3\n"
    calls.clear()
    calls.extend([""] * 6)
    seen = []
    pool = decoded(files, folder=tmp_path / "cache", report=lambda done, total: seen.append((done, total)))
    assert calls[6:] == ["4.jpg", "5.jpg", "6.jpg"], "the first two chunks were done"
    assert seen == [(6, 7), (7, 7)]
    assert torch.equal(rows(pool), expected)
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_an_array_that_was_cut_off_while_created_is_begun_anew(tmp_path, small_chunks):
    files = write_pool(tmp_path / "pool", [(8, 8)] * 3)
    partial = tmp_path / "cache" / f"images-{cache.cache_key(files)}.partial"
    partial.mkdir(parents=True)
    (partial / "images.npy").write_bytes(b"\x93NUM")
    (partial / "done").write_text("0\n")
    assert torch.equal(rows(decoded(files, folder=tmp_path / "cache")), torch.stack(rows(files)))


def test_a_damaged_image_is_named(tmp_path):
    files = write_pool(tmp_path / "pool", [(64, 64)] * 3)
    files.paths[1].write_bytes(files.paths[1].read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"1\.jpg cannot be read"):
        decoded(files, folder=tmp_path / "cache")


def test_large_pools_stay_files(tmp_path):
    equal = write_pool(tmp_path / "equal", [(8, 8)] * 2)
    tiny = 2 * 3 * 8 * 8 / memory_bytes()
    assert not fits(equal, tiny * 0.9)
    assert decoded(equal, folder=tmp_path / "cache", memory_fraction=tiny * 0.9) is equal
    assert decoded(equal, folder=tmp_path / "cache", memory_fraction=tiny * 1.1) is not equal
    mixed = write_pool(tmp_path / "mixed", [(8, 8)] + [(80, 80)] * 3)
    assert decoded(mixed, folder=tmp_path / "cache", memory_fraction=tiny * 10) is mixed
    arrays = ArrayStore(np.zeros((1, 3, 8, 8), np.uint8))
    assert decoded(arrays, folder=tmp_path / "cache") is arrays


@pytest.mark.parametrize("shrink_to", [None, 12])
def test_images_of_differing_sizes_are_cached_bit_for_bit(tmp_path, small_chunks, shrink_to):
    files = shrunk(write_pool(tmp_path / "pool", [(8, 9), (30, 20), (16, 12), (13, 40), (7, 7)]), shrink_to)
    seen = []
    pool = decoded(files, folder=tmp_path / "cache", report=lambda done, total: seen.append((done, total)))
    assert isinstance(pool, RaggedStore)
    assert len(seen) > 1
    again = pickle.loads(pickle.dumps(pool))
    order = np.array([3, 0, 4, 1, 2, 3])
    for store in (pool, again, decoded(files, folder=tmp_path / "cache")):
        assert all(torch.equal(a, b) for a, b in zip(store.read(order), files.read(order), strict=True))
        assert (store.sizes == files.sizes).all()
        assert (store.names, store.fingerprint, store.channels) == (files.names, files.fingerprint, 3)
        assert store.image_size is None
    assert len(pickle.dumps(pool)) < 2000
    image = pool.read(np.array([0]))[0]
    image += 1  # a copy, not the file
    assert not torch.equal(image, pool.read(np.array([0]))[0])


def test_photographs_are_shrunk_to_one_array_where_their_proportions_are_one(tmp_path):
    files = write_pool(tmp_path / "pool", [(40, 60), (80, 120)], ".png")
    small = shrunk(files, 20)
    pool = decoded(small, folder=tmp_path / "cache")
    assert isinstance(pool, ArrayStore)
    assert pool.image_size == small.image_size == (20, 30)
    assert pool.fingerprint == small.fingerprint != files.fingerprint
    with Image.open(files.paths[1]) as image:
        expected = np.asarray(image.resize((30, 20), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(rows(pool)[1].numpy(), expected)


def test_a_header_that_lies_is_said(tmp_path, monkeypatch):
    files = write_pool(tmp_path / "pool", [(8, 8)] * 2)
    monkeypatch.setattr(cache, "decode", lambda path, _: torch.zeros(3, 8, 9, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"0\.jpg differs in size from its header"):
        decoded(files, folder=tmp_path / "cache")


def test_photographs_are_decoded_by_threads_in_order(tmp_path):
    files = write_pool(tmp_path / "pool", [(160, 128)] * 5)
    assert torch.equal(rows(decoded(files, folder=tmp_path / "cache", threads=3)), torch.stack(rows(files)))


def test_a_full_disk_is_said_and_training_goes_on(tmp_path, monkeypatch):
    files = write_pool(tmp_path / "pool", [(8, 8)] * 2)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.warns(UserWarning, match="TAPETUM_CACHE"):
        assert decoded(files, folder=tmp_path / "cache") is files


def _decode_in_process(root, names, folder):
    pool = decoded(FileStore(root, names), folder=folder)
    assert isinstance(pool, ArrayStore)


def test_processes_that_start_together_share_one_cache(tmp_path):
    files = write_pool(tmp_path / "pool", [(8, 8)] * 40)
    context = multiprocessing.get_context("fork")
    arguments = (files.root, files.names, tmp_path / "cache")
    processes = [context.Process(target=_decode_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir()]) == 1
    assert torch.equal(rows(decoded(files, folder=tmp_path / "cache")), torch.stack(rows(files)))


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("TAPETUM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/caches")
    assert cache_folder() == Path("/var/caches/tapetum")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "tapetum"


def test_the_default_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "chosen"))
    decoded(write_pool(tmp_path / "pool", [(8, 8)]))
    assert len(list((tmp_path / "chosen").glob("images-*/cache.json"))) == 1


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("sizes", [[(8, 8)] * 7, [(8, 8), (9, 7), (8, 8), (8, 6), (9, 9)]])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda made: flip(made / "images.npy", -3), "bits of it have changed since it was written"),
        (lambda made: flip(made / "images.npy", 60), "bits of it have changed since it was written"),  # its header
        (lambda made: os.truncate(made / "images.npy", 300), "it is cut short"),
        (lambda made: flip(made / "sizes.npy", -8), "bits of it have changed since it was written"),
        (lambda made: flip(made / "done", 3), "bits of it have changed since it was written"),
        (lambda made: flip(made / "cache.json", 30), "bits of it have changed since it was written"),
    ],
    ids=["pixels", "header", "cut", "sizes", "checksums", "note"],
)
def test_a_damaged_cache_is_mended_and_said(tmp_path, small_chunks, capsys, sizes, damage, message):
    files = write_pool(tmp_path / "pool", sizes, ".png")
    decoded(files, folder=tmp_path / "cache")
    (made,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert capsys.readouterr().err == ""
    damage(made)
    for expected in (message, ""):
        pool = decoded(files, folder=tmp_path / "cache")
        assert all(torch.equal(a, b) for a, b in zip(rows(pool), rows(files), strict=True))
        error = capsys.readouterr().err
        assert expected in error
        assert bool(error) == bool(expected)
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [made]


def test_only_what_has_changed_is_decoded_again(tmp_path, small_chunks, monkeypatch):
    files = write_pool(tmp_path / "pool", [(8, 8)] * 7)
    decoded(files, folder=tmp_path / "cache")
    (made,) = (tmp_path / "cache").glob("images-*[0-9a-f]")
    flip(made / "images.npy", -3)
    calls, real = [], cache.decode
    monkeypatch.setattr(cache, "decode", lambda file, shrink_to: calls.append(file) or real(file, shrink_to))
    decoded(files, folder=tmp_path / "cache")
    assert len(calls) == 1


def test_processes_on_a_disk_without_locks_do_not_mix(tmp_path, small_chunks, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    files = write_pool(tmp_path / "pool", [(8, 8)] * 7)
    real, others = cache._build, []

    def slow(store, partial, report, threads):
        if not others:  # another process makes the same cache meanwhile
            others.append(partial)
            monkeypatch.setattr(os, "getpid", lambda: 12345)
            others.append(decoded(files, folder=tmp_path / "cache"))
        real(store, partial, report, threads)

    monkeypatch.setattr(cache, "_build", slow)
    pool = decoded(files, folder=tmp_path / "cache")
    for made in (pool, others[1]):
        assert torch.equal(rows(made), torch.stack(rows(files)))
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_caches_that_nobody_can_use_are_removed_and_said(tmp_path, capsys):
    folder, week = tmp_path / "cache", 7 * 86400
    gone, kept = write_pool(tmp_path / "gone", [(8, 8)] * 2), write_pool(tmp_path / "kept", [(8, 8)] * 2)
    for files in (gone, kept):
        decoded(files, folder=folder)
        find_unreadable(files, folder=folder)
    made = {files: folder / f"images-{cache.cache_key(files)}" for files in (gone, kept)}
    for name in ("images-0a", "images-0b", "unreadable-0a"):
        old = folder / name / "cache.json" if name.startswith("images") else folder / f"{name}.json"
        old.parent.mkdir(exist_ok=True)
        old.write_text('{"format": 2}' if name == "images-0a" else '{"format": 99}' if name == "images-0b" else "{}")
    (folder / "images-0c.partial").mkdir()
    (folder / "images-0c.partial" / "done").write_text("")
    (folder / "mine.json").write_text("{}")
    (tmp_path / "gone").rename(tmp_path / "elsewhere")

    def names():
        return {path.name for path in folder.iterdir() if path.suffix != ".lock"}

    before = names()
    decoded(write_pool(tmp_path / "more", [(8, 8)] * 2), folder=folder)
    assert before - names() == {"images-0a", "unreadable-0a.json"}, "the images may be on a disk that comes back"
    assert "removed 2 old caches (0 MiB)" in capsys.readouterr().err
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - week - 99,) * 2)
    decoded(write_pool(tmp_path / "most", [(8, 8)] * 2), folder=folder)
    assert names() >= {made[kept].name, "images-0b", "mine.json"}
    assert not names() & {made[gone].name, "images-0c.partial", f"unreadable-{cache.cache_key(gone)}.json"}


def test_copies_of_changed_images_are_removed_after_a_week_and_of_others_in_the_folder_after_90_days(tmp_path):
    folder = tmp_path / "cache"
    first = write_pool(tmp_path / "pool", [(8, 8)] * 3)
    stores = [first, shrunk(first, 4), first.only([0, 2])]
    before, smaller, some = (f"images-{cache.cache_key(store)}" for store in stores)
    for store in stores:
        decoded(store, folder=folder)
    (folder / "archive-0a.npz").touch()

    def left_after(days):
        for path in folder.rglob("*"):
            os.utime(path, (time.time() - days * 86400 - 99,) * 2)
        os.utime(first.paths[1], ns=(days, days))
        decoded(FileStore(first.root, first.names), folder=folder)
        return {path.name for path in folder.iterdir()} & {before, smaller, some, "archive-0a.npz"}

    assert left_after(6) == {before, smaller, some, "archive-0a.npz"}
    assert left_after(7) == {smaller, some, "archive-0a.npz"}
    assert left_after(90) == {smaller}
