import errno

import numpy as np
import pytest
from PIL import Image

from tapetum.data.health import unreadable as module
from tapetum.data.health.unreadable import find_unreadable, readable, write_unreadable
from tapetum.data.images.cache_folder import cache_folder, write_note
from tapetum.data.images.decoding import UnreadableImage
from tapetum.data.sources.open_source import open_source


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Six images of two classes; cat/1.png and dog/2.png are damaged, one in its header and one in its pixels."""
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    for number in range(6):
        path = root / ("cat", "dog")[number // 3] / f"{number % 3}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.arange(30 * 40 * 3).reshape(30, 40, 3) * (number + 5) % 251
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    (root / "cat/1.png").write_text("<html>")
    whole = (root / "dog/2.png").read_bytes()
    (root / "dog/2.png").write_bytes(whole[: len(whole) // 2])
    return root


def test_damaged_files_are_skipped_with_their_labels_and_listed(photos, tmp_path):
    source, unreadable = readable(open_source(photos))
    assert list(source.store.names) == ["cat/0.png", "cat/2.png", "dog/0.png", "dog/1.png"]
    assert source.description == "6 images, 2 classes, from photos, 2 of them unreadable"
    assert source.labels.names == tuple(source.store.names)
    assert source.labels.values.tolist() == [0, 0, 1, 1]
    write_unreadable(tmp_path / "list.csv", unreadable)
    header, first, second = (tmp_path / "list.csv").read_text().splitlines()
    assert header == "path,reason"
    assert "photos/cat/1.png," in first
    assert "cannot identify" in first
    assert "photos/dog/2.png," in second


def test_what_was_found_is_remembered_until_a_file_changes(photos, monkeypatch):
    store = open_source(photos).store
    seen = []
    first = find_unreadable(store, report=lambda done, total: seen.append((done, total)))
    assert (list(first), seen) == ([1, 5], [(6, 6)])
    decoded = []
    real = module.read_upright
    monkeypatch.setattr(module, "read_upright", lambda path: decoded.append(path) or real(path))
    assert find_unreadable(open_source(photos).store) == first
    assert not decoded
    (photos / "cat/1.png").write_bytes((photos / "cat/0.png").read_bytes())
    assert list(find_unreadable(open_source(photos).store)) == [5]
    assert decoded


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_what_the_system_fails_to_read_is_left_out_once(photos, monkeypatch, fault):
    store, real, tried = open_source(photos).store, module.read_upright, []

    def fails(file):
        tried.append(file.name)
        if file == photos / "cat/0.png":
            raise UnreadableImage(str(file), fault) from fault
        return real(file)

    monkeypatch.setattr(module, "read_upright", fails)
    assert list(find_unreadable(store)) == [0, 1, 5]
    tried.clear()
    assert list(find_unreadable(store)) == [0, 1, 5]
    assert set(tried) == {"0.png"}, "what is known of the others stays"
    monkeypatch.setattr(module, "read_upright", real)
    assert list(find_unreadable(store)) == [1, 5]


def test_what_a_note_of_an_older_version_calls_unreadable_is_tried_once_more(photos, monkeypatch):
    store, tried = open_source(photos).store, []
    reasons = {"4": "Input/output error"} | {str(i): reason for i, reason in find_unreadable(store).items()}
    (note,) = cache_folder().glob("unreadable-*.json")
    write_note(note, store.root, {"unreadable": reasons})
    real = module.read_upright
    monkeypatch.setattr(module, "read_upright", lambda file: tried.append(file.name) or real(file))
    assert list(find_unreadable(store)) == [1, 5]
    assert set(tried) == {"1.png", "2.png"}
    tried.clear()
    assert list(find_unreadable(store)) == [1, 5]
    assert tried == []


def test_strict_refuses(photos):
    with pytest.raises(ValueError, match=r"2 of 6 images cannot be read, such as .*cat/1\.png \(cannot identify"):
        readable(open_source(photos), strict=True)


def test_a_class_that_loses_all_labels_is_named(photos):
    for name in ("0", "2"):
        (photos / f"cat/{name}.png").write_text("")
    with pytest.raises(ValueError, match="none of the 3 labelled images of class 'cat' can be read"):
        readable(open_source(photos))


def test_nothing_readable_is_refused(photos):
    for path in photos.rglob("*.png"):
        path.write_text("")
    with pytest.raises(ValueError, match="6 of 6 images cannot be read"):
        readable(open_source(photos, "none"))


def test_whole_files_and_arrays_are_left_as_they_are(photos):
    for name in ("cat/1.png", "dog/2.png"):
        (photos / name).unlink()
    for source in (open_source(photos), open_source(np.zeros((4, 8, 8), np.uint8))):
        assert readable(source, strict=True) == (source, [])


def test_a_damaged_note_of_what_was_found_is_made_anew_and_said(photos, capsys):
    store = open_source(photos).store
    first = find_unreadable(store)
    (note,) = cache_folder().glob("unreadable-*.json")
    capsys.readouterr()
    for place in range(0, note.stat().st_size - 1, 9):
        content = bytearray(note.read_bytes())
        content[place] ^= 1
        note.write_bytes(content)
        assert find_unreadable(store) == first
        assert "has changed since it was written: the images are looked through again" in capsys.readouterr().err
    assert find_unreadable(store) == first
    assert capsys.readouterr().err == ""
