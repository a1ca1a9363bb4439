"""Images in zip, tar and Parquet files: the same pool as the folder that they were made of."""

import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import packed
import pytest
import torch

from tapetum.data.images import parquet_rows
from tapetum.data.images.contents import Members
from tapetum.data.sources import held
from tapetum.data.sources.arrays import NoTestPart
from tapetum.data.sources.open_source import open_source, open_test_part
from tapetum.system.remote import Unreachable


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    return packed.save_photos(tmp_path / "photos")


def assert_same(source, folder):
    """The same names, sizes, pixels and labels as those of a folder."""
    expected = open_source(folder)
    assert source.store.names == expected.store.names
    assert source.store.fingerprint == expected.store.fingerprint
    assert source.labels.classes == expected.labels.classes
    assert (source.labels.values == expected.labels.values).all()
    assert (source.store.sizes == expected.store.sizes).all()
    every = np.arange(len(source.store))[::-1]
    for store in (source.store, pickle.loads(pickle.dumps(source.store))):
        assert all(torch.equal(one, other) for one, other in zip(store.read(every), expected.store.read(every)))


PACKERS = {
    "stored.zip": lambda folder, path: packed.as_zip(folder, path),
    "deflated.zip": lambda folder, path: packed.as_zip(folder, path, zipfile.ZIP_DEFLATED),
    "nested.zip": lambda folder, path: packed.as_zip(folder, path, inside="a/b/"),
    "plain.tar": lambda folder, path: packed.as_tar(folder, path),
    "dotted.tar": lambda folder, path: packed.as_tar(folder, path, "./"),
    "long.tar": lambda folder, path: packed.as_tar(folder, path, f"{'x' * 120}/"),
}


@pytest.mark.parametrize("name", PACKERS)
def test_an_archive_is_the_pool_that_its_folder_is(photos, tmp_path, name):
    path = PACKERS[name](photos, tmp_path / name)
    source = open_source(path)
    assert_same(source, photos)
    assert source.description == f"9 images, 3 classes, from {name}"
    kept = source.store.only(np.array([7, 0]))
    assert torch.equal(kept.read(np.array([1]))[0], source.store.read(np.array([0]))[0])


def test_an_index_is_kept_until_the_archive_changes(photos, tmp_path, monkeypatch):
    path = packed.as_tar(photos, tmp_path / "photos.tar")
    open_source(path)
    scanned = []
    real = held._SCANS[".tar"]
    monkeypatch.setitem(held._SCANS, ".tar", lambda blob: scanned.append(blob) or real(blob))
    assert_same(open_source(path), photos)
    assert not scanned
    (index,) = (tmp_path / "cache").glob("archive-*.npz")
    index.write_bytes(index.read_bytes()[:-40])
    assert_same(open_source(path), photos)
    assert len(scanned) == 1, "a damaged index is made anew"
    packed.save_photos(photos, 4)
    packed.as_tar(photos, path)
    assert_same(open_source(path), photos)
    assert len(scanned) == 2


def test_what_changes_while_it_is_used_is_no_damaged_image(photos, tmp_path):
    path = packed.as_tar(photos, tmp_path / "photos.tar")
    store = open_source(path).store
    os.utime(path, ns=(1, 1))
    with pytest.raises(Unreachable, match=r"photos\.tar has changed since its images were listed"):
        store.read(np.array([0]))
    with pytest.raises(Unreachable, match="has changed"):
        list(store.each(np.array([0])))
    path.unlink()
    with pytest.raises(Unreachable, match=r"photos\.tar cannot be opened"):
        store.read(np.array([0]))


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("cls", lambda name: str(packed.CLASSES.index(name)).encode()),
        ("cls", lambda name: f"{name}\n".encode()),
        ("txt", lambda name: name.encode()),
        ("json", lambda name: b'{"label": "%s", "seen": true}' % name.encode()),
    ],
)
def test_shards_of_webdataset_have_labels_beside_their_images(photos, tmp_path, ending, content):
    shards = packed.as_shards(photos, tmp_path / "shards", 4, lambda name: (ending, content(name)))
    expected = open_source(photos)
    for given in (shards, shards / "{00..02}.tar"):
        source = open_source(given)
        assert source.store.names == tuple(f"{i:06}.jpg" for i in range(9))
        assert (source.labels.values == expected.labels.values).all()
        assert torch.equal(source.store.read(np.array([8]))[0], expected.store.read(np.array([8]))[0])
    assert source.labels.classes == (("0", "1", "2") if content("ash") == b"0" else packed.CLASSES)
    assert open_source(shards, "none").labels is None


def test_captions_are_no_labels_unless_they_are_named(photos, tmp_path):
    texts = iter("abcdefghi")
    shards = packed.as_shards(photos, tmp_path / "shards", 9, lambda _: ("txt", f"a photo of {next(texts)}".encode()))
    assert open_source(shards).labels is None
    assert open_source(shards, ":txt").labels.num_classes == 9
    with pytest.raises(ValueError, match="has no labels :cls: choose from :txt"):
        open_source(shards, ":cls")


def test_shards_that_count_from_0_are_told_apart(photos, tmp_path):
    (tmp_path / "shards").mkdir()
    for shard in ("a", "b"):
        packed.as_tar(photos, tmp_path / "shards" / f"{shard}.tar")
    source = open_source(tmp_path / "shards")
    assert source.store.names[:2] == ("a/ash/0.jpg", "a/ash/1.jpg")
    assert (len(source.store), source.labels.classes) == (18, packed.CLASSES)


def test_label_files_name_images_as_if_the_archive_were_unpacked(photos, tmp_path):
    path = packed.as_zip(photos, tmp_path / "photos.zip", inside="photos/")
    lines = "photos/ash/0.jpg,x\nbirch/1.jpg,y\n"
    (tmp_path / "labels.csv").write_text(lines)
    labels = open_source(path, tmp_path / "labels.csv").labels
    assert [labels.names[i] for i in labels.labelled] == ["ash/0.jpg", "birch/1.jpg"]
    (tmp_path / "keep.txt").write_text("cedar/2.jpg\nash/0.jpg\n")
    assert open_source(path, tmp_path / "keep.txt").labels.classes == packed.CLASSES
    assert len(open_source(path, tmp_path / "keep.txt").labels.labelled) == 2


def test_parts_are_folders_inside_or_names_of_files(photos, tmp_path):
    other = packed.save_photos(tmp_path / "other", 2)
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for part, folder in (("train", photos), ("val", other)):
            for name in packed.names_of(folder):
                archive.write(folder / name, f"top/{part}/{name}")
    assert_same(open_source(tmp_path / "both.zip"), photos)
    assert_same(open_test_part(tmp_path / "both.zip"), other)
    for part, folder in (("train", photos), ("test", other)):
        packed.as_parquet(folder, tmp_path / "hub" / "data" / f"{part}-00000-of-00001.parquet")
        packed.as_tar(folder, tmp_path / f"{part}-00.tar")
        (tmp_path / "tars").mkdir(exist_ok=True)
        (tmp_path / f"{part}-00.tar").rename(tmp_path / "tars" / f"{part}-00.tar")
    for name in ("hub", "tars"):
        assert (len(open_source(tmp_path / name).store), len(open_test_part(tmp_path / name).store)) == (9, 6)
    with pytest.raises(NoTestPart):
        open_source(packed.as_tar(photos, tmp_path / "one.tar"), split="test")


@pytest.mark.parametrize("describe", [True, False])
def test_parquet_is_read_row_by_row(photos, tmp_path, describe):
    path = packed.as_parquet(photos, tmp_path / "photos.parquet", describe=describe)
    source, expected = open_source(path), open_source(photos)
    assert source.store.names == expected.store.names
    assert source.labels.classes == (packed.CLASSES if describe else ("0", "1", "2"))
    assert (source.labels.values == expected.labels.values).all()
    every = np.array([8, 1, 5, 5, 0])
    for store in (source.store, pickle.loads(pickle.dumps(source.store))):
        assert all(torch.equal(one, other) for one, other in zip(store.read(every), expected.store.read(every)))
    assert (source.store.sizes == expected.store.sizes).all()


def test_few_row_groups_are_kept_in_memory(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "_KEPT_BYTES", 4000)
    parquet_rows._kept.clear()
    store = open_source(packed.as_parquet(photos, tmp_path / "photos.parquet")).store
    store.read(np.arange(9))
    assert 1 <= len(parquet_rows._kept) < 5


def test_rows_without_paths_are_named_by_their_numbers(photos, tmp_path):
    path = packed.as_parquet(photos, tmp_path / "photos.parquet", paths=False)
    assert open_source(path).store.names == tuple(str(row) for row in range(9))
    packed.as_parquet(photos, tmp_path / "more" / "a.parquet", paths=False)
    packed.as_parquet(photos, tmp_path / "more" / "b.parquet", paths=False)
    names = open_source(tmp_path / "more").store.names
    assert (names[0], names[17]) == ("a/0", "b/8")


def test_a_column_of_labels_is_named_where_there_are_several(photos, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(photos / name).read_bytes() for name in packed.names_of(photos)[:4]]
    columns = {"img": rows, "fine_label": [0, 1, 2, -1], "coarse_label": ["x", "y", None, " "]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="labels in the columns coarse_label, fine_label: name one as labels"):
        open_source(tmp_path / "rows.parquet")
    assert open_source(tmp_path / "rows.parquet", ":coarse_label").labels.values.tolist() == [0, 1, -1, -1]
    assert open_source(tmp_path / "rows.parquet", ":fine_label").labels.values.tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("name", ["photos.tar", "photos.zip", "photos.parquet"])
def test_archives_that_were_cut_off_are_refused(photos, tmp_path, name):
    path = {"tar": packed.as_tar, "zip": packed.as_zip, "parquet": packed.as_parquet}[name.split(".")[1]](
        photos, tmp_path / name
    )
    whole = path.read_bytes()
    for length in (0, 300, 5000, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"{name} is no whole .*: fetch it again"):
            open_source(path)


def test_a_damaged_header_in_the_middle_does_not_end_a_tar(photos, tmp_path):
    path = packed.as_tar(photos, tmp_path / "photos.tar")
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[4].offset
    content = bytearray(path.read_bytes())
    content[offset + 148 : offset + 156] = b"9" * 8  # its check sum
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"what begins at byte {offset:,} is no header"):
        open_source(path)


def test_a_compressed_tar_is_refused(photos, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w:gz") as archive:
        archive.add(photos, "photos")
    with pytest.raises(ValueError, match=r"photos\.tar is compressed.*unpack it"):
        open_source(tmp_path / "photos.tar")


def test_links_devices_and_hidden_files_in_a_tar_are_skipped(photos, tmp_path):
    with tarfile.open(tmp_path / "strange.tar", "w") as archive:
        for name in packed.names_of(photos):
            archive.add(photos / name, name)
        for name, kind in (("s.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE), ("f.jpg", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        packed.add(archive, ".hidden/a.jpg", b"no")
        packed.add(archive, "__MACOSX/a.jpg", b"no")
        packed.add(archive, "ash/../../up.jpg", b"no")
    before = sorted(tmp_path.rglob("*"))
    assert_same(open_source(tmp_path / "strange.tar"), photos)
    assert {p for p in tmp_path.rglob("*") if "cache" not in p.parts} == set(before), "nothing is unpacked"


def test_texts_beside_no_image_are_no_labels(photos, tmp_path):
    path = packed.as_tar(photos, tmp_path / "photos.tar")
    with tarfile.open(path, "a") as archive:
        packed.add(archive, "README.txt", "Für Menschen".encode("latin-1"))
        packed.add(archive, "meta.json", b'{"id": 1}\n{"id": 2}\n')
        packed.add(archive, "ash/._0.txt", b"\0\5\x16\7\0\xff")
        packed.add(archive, "__MACOSX/ash/0.txt", b"\xff")
    assert_same(open_source(path), photos)
    with tarfile.open(path, "a") as archive:
        packed.add(archive, "ash/0.txt", b"\xff")
    with pytest.raises(ValueError, match=r"ash/0\.txt holds no text in UTF-8"):
        open_source(path)


def test_links_and_encrypted_members_of_a_zip(photos, tmp_path):
    path = tmp_path / "photos.zip"
    packed.as_zip(photos, path)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert len(open_source(path).store) == 9
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the first local header says encrypted
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"ash/0\.jpg cannot be read \(it is encrypted in its zip file\)"):
        open_source(path).store.read(np.array([0]))


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(10**7))
        archive.writestr("b.jpg", bytes(10))
    content = path.read_bytes()
    path.write_bytes(content.replace((10**7).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    store = open_source(path).store
    assert isinstance(store.contents, Members)
    with pytest.raises(ValueError, match="its check sum is another"):
        store.contents.read(0)


def test_a_damaged_member_is_one_unreadable_image(photos, tmp_path):
    path = packed.as_zip(photos, tmp_path / "photos.zip", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[1].header_offset
    content = bytearray(path.read_bytes())
    content[start + 200] ^= 255
    path.write_bytes(content)
    found = list(open_source(path).store.each(np.arange(9)))
    assert [i for i, image in enumerate(found) if isinstance(image, ValueError)] == [1]
    assert "photos.zip/ash/1.jpg cannot be read (it is damaged in its zip file" in str(found[1])


def test_of_members_with_one_name_the_last_counts(photos, tmp_path):
    path = packed.as_tar(photos, tmp_path / "photos.tar")
    with tarfile.open(path, "a") as archive:
        packed.add(archive, "ash/0.jpg", (photos / "cedar/2.jpg").read_bytes())
    store = open_source(path).store
    assert len(store) == 9
    assert torch.equal(store.read(np.array([0]))[0], open_source(photos).store.read(np.array([8]))[0])


def test_folders_without_images_or_with_several_kinds(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.md", "nothing")
    with pytest.raises(ValueError, match=r"there are no images in empty\.zip"):
        open_source(tmp_path / "empty.zip")
    (tmp_path / "mixed").mkdir()
    packed.as_zip(photos, tmp_path / "mixed/a.zip")
    packed.as_tar(photos, tmp_path / "mixed/b.tar")
    with pytest.raises(ValueError, match=r"holds \.tar and \.zip files: give those of one kind"):
        open_source(tmp_path / "mixed")
    packed.as_zip(photos, photos / "backup.zip")
    (photos / "meta.parquet").touch()
    assert len(open_source(photos).store) == 9, "images beside an archive are the pool"
    with pytest.raises(ValueError, match=r"\{5\.\.2\}\.tar names no files"):
        open_source(tmp_path / "{5..2}.tar")
    packed.as_tar(photos, tmp_path / "0.tar")
    with pytest.raises(ValueError, match=r"1\.tar cannot be opened"):
        open_source(tmp_path / "{0..1}.tar")


def test_columns_that_hold_no_images_are_named(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"text\.parquet has the columns text, label: give one column of images"):
        open_source(tmp_path / "text.parquet")


def test_header_sizes_of_long_headers(tmp_path, monkeypatch):
    """A profile longer than what is read of a header first."""
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (40, 30)).save(content, "JPEG", icc_profile=bytes(150_000))
    with tarfile.open(tmp_path / "long.tar", "w") as archive:
        packed.add(archive, "a.jpg", content.getvalue())
        packed.add(archive, "b.jpg", content.getvalue())
    assert open_source(tmp_path / "long.tar").store.sizes.tolist() == [[30, 40]] * 2
