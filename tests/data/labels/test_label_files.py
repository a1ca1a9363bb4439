import json
import os

import pytest

from tapetum.data.labels.label_files import read_label_file
from tapetum.data.labels.labels import labels_from_folders
from tapetum.data.sources.archive_index import label_text
from tapetum.data.sources.image_lists import read_listing

NAMES = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/3.jpg", "Grüße.jpg"]


def write(folder, text, encoding="utf-8"):
    path = folder / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("header", ["", "path,label\n", "Path, Label\n", "\npath,label\n\n", "id,species\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_header_may_be_there_or_not(tmp_path, header, encoding):
    labels = read_label_file(write(tmp_path, f"{header}a/1.jpg,cat\nb/3.jpg, dog \n\nGrüße.jpg,cat\n", encoding), NAMES)
    assert labels.classes == ("cat", "dog")
    assert labels.values.tolist() == [0, -1, -1, 1, 0]
    assert labels.names == tuple(NAMES)


def test_absolute_relative_and_bare_names(tmp_path):
    root = tmp_path / "pool"
    (root / "a").mkdir(parents=True)
    lines = [f"{root}/a/1.jpg,x", "pool/a/2.jpg,y", ".\\b\\1.jpg,x", "3.jpg,y", "./Grüße.jpg,x"]
    labels = read_label_file(write(tmp_path, "\n".join(lines)), NAMES, root)
    assert labels.values.tolist() == [0, 1, 0, 1, 0]


def test_links_may_be_spelled_either_way(tmp_path):
    (tmp_path / "real" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    file = write(tmp_path, f"{tmp_path}/real/a/1.jpg,x\n{tmp_path}/link/a/2.jpg,y\n")
    for root in (tmp_path / "link", tmp_path / "real"):
        assert read_label_file(file, NAMES, root).labelled.tolist() == [0, 1]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_other_separators(tmp_path, sign):
    """Spreadsheets of half the world write semicolons."""
    text = f"filename{sign}class\na/1.jpg{sign}cat, asleep\nb/3.jpg{sign}dog\n"
    labels = read_label_file(write(tmp_path, text), NAMES)
    assert labels.classes == ("cat, asleep", "dog")
    assert labels.values.tolist() == [0, -1, -1, 1, -1]


def test_endings_may_be_missing_where_that_is_clear(tmp_path):
    assert read_label_file(write(tmp_path, "2,x\n3,y\n"), NAMES).values.tolist() == [-1, 0, -1, 1, -1]
    with pytest.raises(ValueError, match=r"line 1: '1' could be a/1.jpg or b/1.jpg"):
        read_label_file(write(tmp_path, "1,x\n3,y\n"), NAMES)


def test_paths_with_commas_are_quoted(tmp_path):
    labels = read_label_file(write(tmp_path, '"x,1.jpg",cat\ny.jpg,dog\n'), ["x,1.jpg", "y.jpg"])
    assert labels.values.tolist() == [0, 1]


def test_the_same_label_twice_is_no_error(tmp_path):
    assert read_label_file(write(tmp_path, "3.jpg,x\nb/3.jpg,x\na/1.jpg,y\n"), NAMES).counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    "text,message",
    [
        ("a/1.jpg,x\na/9.jpg,y\n", r"line 2: there is no image 'a/9\.jpg'.*correct the path"),
        ("picture,class\na/1.jpg,y\n", r"line 1: there is no image 'picture'.*must be path,label"),
        ("path,width\na/1.jpg,y\n", "line 1: unknown column 'width'"),
        ("path,label,split\na/1.jpg,y,train\n", "line 1: unknown column 'split'"),
        ("label,path\ny,a/1.jpg\n", "line 1: unknown column"),
        ("a/1.jpg,x\n\nb/1.jpg,y\na/1.jpg,z\n", r"line 4: 'a/1\.jpg' is labelled 'z', but 'x' at line 1: delete"),
        ("1.jpg,x\n", r"could be a/1\.jpg or b/1\.jpg"),
        ("a/1.jpg|x\n", r"line 1: 'a/1.jpg\|x' is not path,label"),
        ("a/1.jpg,x\na/2.jpg,\n", "line 2: 'a/2.jpg,' is not path,label"),
        ("a/1.jpg,x\na/2.jpg,x\n", r"labels\.csv: labels name only the class 'x'"),
        ("", "is empty"),
        ("path,label\n", "is empty"),
        ("path\na/1.jpg\n", "line 2: 'a/1.jpg' is not path,label"),
    ],
)
def test_faults_name_file_line_value_and_fix(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_label_file(write(tmp_path, text), NAMES)
    assert "labels.csv" in str(caught.value)


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_label_file(tmp_path / "none.csv", NAMES)
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not CSV in UTF-8"):
        read_label_file(tmp_path / "labels.csv", NAMES)


OBJECTS = [{"path": "a/1.jpg", "label": "cat"}, {"path": "3.jpg", "label": 7}, {"path": "a/2.jpg", "label": None}]


@pytest.mark.parametrize(
    "content",
    [
        {"a/1.jpg": "cat", "./b/3.jpg": 7, "a/2.jpg": None},
        [["a/1.jpg", " cat "], ["3.jpg", "7"]],
        OBJECTS,
    ],
)
def test_json_in_three_forms(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    labels = read_label_file(path, NAMES)
    assert labels.classes == ("7", "cat")
    assert labels.values.tolist() == [1, -1, -1, 0, -1]


@pytest.mark.parametrize(
    "text,message",
    [
        ('{"a/1.jpg": "x", "a/9.jpg": "y"}', r"entry 2: there is no image 'a/9\.jpg'"),
        ('{"a/1.jpg": "x", "a/1.jpg": "y"}', r"entry 2: 'a/1\.jpg' is labelled 'y', but 'x' at entry 1"),
        ('{"a/1.jpg": "x", "a/2.jpg": "x"}', "only the class 'x'"),
        ('{"a/1.jpg": true}', "entry 1: 'a/1.jpg' and True are not a path and a label"),
        ('{"a/1.jpg": 1.5}', "are not a path and a label"),
        ('{"a/1.jpg": ""}', "are not a path and a label"),
        ('{"a/1.jpg": "\\ud800"}', "cannot be printed"),
        ('[{"path": "a/1.jpg", "class": "x"}]', "entry 1: unknown key 'class'"),
        ('["a/1.jpg"]', "entry 1: 'a/1.jpg' is not a path and a label"),
        ('"a/1.jpg"', "holds no labels"),
        ("[]", "holds no labels"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_faults_in_json(tmp_path, text, message):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_label_file(path, NAMES)


def test_a_list_of_names_keeps_the_labels_that_images_come_with(tmp_path):
    names = [*NAMES[:4], "loose.jpg"]
    path = tmp_path / "2imgs_class.txt"
    path.write_text("a/2.jpg\n\n3.jpg\na/2.jpg\n")
    labels = read_label_file(path, names, own=lambda: labels_from_folders(names))
    assert (labels.classes, labels.values.tolist()) == (("a", "b"), [-1, 0, -1, 1, -1])
    for text, message in (
        ("a/1.jpg\na/7.jpg\n", r"line 2: there is no image 'a/7\.jpg'"),
        ("a/1.jpg\nloose.jpg\n", r"line 2: image 'loose\.jpg' has no label of its own"),
        ("a/1.jpg\na/2.jpg\n", "class 'a' only"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_label_file(path, names, own=lambda: labels_from_folders(names))
    with pytest.raises(ValueError, match="have no labels of their own"):
        read_label_file(path, names)


def test_a_text_file_with_commas_holds_labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("a/1.jpg,x\nb/1.jpg,y\n")
    assert read_label_file(path, NAMES).counts.tolist() == [1, 1]


def test_a_listing_names_images_with_and_without_labels(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b,c/3.jpg"):
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pool" / name).touch()
    path = tmp_path / "list.csv"
    path.write_text(f'path,label\npool/a/2.jpg,x\n{tmp_path}/pool/a/1.jpg,\n"pool/b,c/3.jpg",y\n')
    store, labels = read_listing(path)
    assert (store.root, store.names) == (tmp_path / "pool", ("a/2.jpg", "a/1.jpg", "b,c/3.jpg"))
    assert (labels.classes, labels.values.tolist()) == (("x", "y"), [0, -1, 1])
    for header in ("", "path\n", "Filename\n"):
        path.write_text(f"{header}pool/a/2.jpg\npool/a/1.jpg\n")
        store, labels = read_listing(path)
        assert (store.root, store.names, labels) == (tmp_path / "pool" / "a", ("2.jpg", "1.jpg"), None)


def test_classes_may_hold_joiners_and_hard_blanks_wherever_they_are_written(tmp_path):
    written = ("می\u200cخواهم", "👩\u200d🚀", "10\u00a0km")
    for number in range(3):
        (tmp_path / f"{number}.png").touch()
    path = write(tmp_path, "".join(f"{number}.png,{name}\n" for number, name in enumerate(written)))
    assert set(read_listing(path)[1].classes) == set(read_label_file(path, ["0.png", "1.png", "2.png"]).classes)
    assert [label_text("cls", name.encode(), "shard") for name in written] == list(written)


def test_a_listing_may_name_files_in_another_encoding_but_not_classes(tmp_path):
    path = tmp_path / "list.csv"
    for raw in (b"\xe9.png", b"2.png"):
        (tmp_path / os.fsdecode(raw)).touch()
    path.write_bytes(b"\xe9.png,x\n2.png,y\n")
    store, _ = read_listing(path)
    assert store.names == (os.fsdecode(b"\xe9.png"), "2.png")
    path.write_bytes(b"2.png,\xe9\n")
    with pytest.raises(ValueError, match=r"line 1: label .* cannot be printed: write it in UTF-8"):
        read_listing(path)
