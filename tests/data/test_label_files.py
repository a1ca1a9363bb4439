import pytest

from tapetum.data.label_files import read_csv

NAMES = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/3.jpg", "Grüße.jpg"]


def write(folder, text, encoding="utf-8"):
    path = folder / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("header", ["", "path,label\n", "Path, Label\n", "\npath,label\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_header_may_be_there_or_not(tmp_path, header, encoding):
    labels = read_csv(write(tmp_path, f"{header}a/1.jpg,cat\nb/3.jpg, dog \n\nGrüße.jpg,cat\n", encoding), NAMES)
    assert labels.classes == ("cat", "dog")
    assert labels.values.tolist() == [0, -1, -1, 1, 0]
    assert labels.names == tuple(NAMES)


def test_absolute_relative_and_bare_names(tmp_path):
    root = tmp_path / "pool"
    (root / "a").mkdir(parents=True)
    lines = [f"{root}/a/1.jpg,x", "pool/a/2.jpg,y", ".\\b\\1.jpg,x", "3.jpg,y", "./Grüße.jpg,x"]
    labels = read_csv(write(tmp_path, "\n".join(lines)), NAMES, root)
    assert labels.values.tolist() == [0, 1, 0, 1, 0]


def test_links_may_be_spelled_either_way(tmp_path):
    (tmp_path / "real" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    file = write(tmp_path, f"{tmp_path}/real/a/1.jpg,x\n{tmp_path}/link/a/2.jpg,y\n")
    for root in (tmp_path / "link", tmp_path / "real"):
        assert read_csv(file, NAMES, root).labelled.tolist() == [0, 1]


def test_paths_with_commas_are_quoted(tmp_path):
    labels = read_csv(write(tmp_path, '"x,1.jpg",cat\ny.jpg,dog\n'), ["x,1.jpg", "y.jpg"])
    assert labels.values.tolist() == [0, 1]


def test_the_same_label_twice_is_no_error(tmp_path):
    assert read_csv(write(tmp_path, "3.jpg,x\nb/3.jpg,x\na/1.jpg,y\n"), NAMES).counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    "text,message",
    [
        ("a/1.jpg,x\na/9.jpg,y\n", r"line 2: there is no image 'a/9\.jpg'.*correct the path"),
        ("filename,class\na/1.jpg,y\n", r"line 1: there is no image 'filename'.*must be path,label"),
        ("path,class\na/1.jpg,y\n", "line 1: unknown column 'class'"),
        ("path,label,split\na/1.jpg,y,train\n", "line 1: unknown column 'split'"),
        ("label,path\ny,a/1.jpg\n", "line 1: unknown column"),
        ("a/1.jpg,x\n\nb/1.jpg,y\na/1.jpg,z\n", r"line 4: 'a/1\.jpg' is labelled 'z', but 'x' on line 1: delete"),
        ("1.jpg,x\n", r"could be a/1\.jpg or b/1\.jpg"),
        ("a/1.jpg;x\n", "line 1: 'a/1.jpg;x' is not path,label"),
        ("a/1.jpg,x\na/2.jpg,\n", "line 2: 'a/2.jpg,' is not path,label"),
        ("a/1.jpg,x\na/2.jpg,x\n", r"labels\.csv: labels name only the class 'x'"),
        ("", "is empty"),
        ("path,label\n", "is empty"),
    ],
)
def test_faults_name_file_line_value_and_fix(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_csv(write(tmp_path, text), NAMES)
    assert "labels.csv" in str(caught.value)


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_csv(tmp_path / "none.csv", NAMES)
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not CSV in UTF-8"):
        read_csv(tmp_path / "labels.csv", NAMES)
