"""Which image a path on another machine means."""

from pathlib import Path
from unicodedata import normalize

import pytest

from tapetum.data.labels.name_matcher import NameMatcher

NAMES = (
    "1.jpg",
    "cats/1.jpg",
    "cats/2.jpg",
    "cats/old/2.jpg",
    "dogs/3.jpg",
    "dogs/my dog (1).jpg",
    "a.jpg.png",
    "a.jpg",
)


def matcher(root="pool", names=NAMES):
    return NameMatcher(names, Path(root), Path())


@pytest.mark.parametrize(
    "naming,text,name",
    [
        ("tail", "bucket/x/cats/old/2.jpg", "cats/old/2.jpg"),  # the longest end
        ("tail", "x/cats/2.jpg", "cats/2.jpg"),
        ("tail", "3.jpg", "dogs/3.jpg"),  # the only image of that name
        ("name", "./3.jpg", "dogs/3.jpg"),
        ("tail", "other/folder/a.jpg.png", "a.jpg.png"),
        ("tail", "C:\\photos\\cats\\1.jpg", "cats/1.jpg"),
        ("tail", "a/" * 5000 + "cats/1.jpg", "cats/1.jpg"),
        ("name", "1.jpg", "1.jpg"),  # as it is
        ("name", "x/cats/1.jpg", "cats/1.jpg"),
        ("stem", "cats/1", "cats/1.jpg"),
        ("stem", "a", "a.jpg"),
        ("stem", "a.jpg", "a.jpg.png"),
        ("stem", "3", "dogs/3.jpg"),
        ("upload", "3.jpg", "dogs/3.jpg"),
        ("upload", "my_dog_1.jpg", "dogs/my dog (1).jpg"),  # as Django stores it
    ],
)
def test_found(naming, text, name):
    assert NAMES[matcher().find(text, naming)] == name


@pytest.mark.parametrize(
    "naming,text,message",
    [
        ("tail", "bucket/1.jpg", "could be 1.jpg or cats/1.jpg"),
        ("tail", "cats/3.jpg", "'cats/3.jpg' in .*pool, but dogs/3.jpg lies in another folder"),  # no picture of a dog
        ("name", "cats\\3.jpg", "but dogs/3.jpg lies in another folder: correct the path or delete the line"),
        ("tail", "x/9.jpg", "there is no image 'x/9.jpg'"),
        ("upload", "2.jpg", "could be cats/2.jpg or cats/old/2.jpg"),
        ("upload", "my dog (1).jpg", "there is no image"),
        ("tail", "", "there is no image ''"),
        ("path", "\0.jpg", "there is no image"),
        ("path", "\ud800.jpg", "there is no image"),
        ("tail", "x" * 5000, "there is no image"),
    ],
)
def test_refused(naming, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        matcher().find(text, naming)
    assert len(str(caught.value)) < 500


def test_a_folder_that_may_be_the_images_own():
    """Of a folder `cats`, `cats/1.jpg` may be 1.jpg, or cats/1.jpg in it."""
    with pytest.raises(ValueError, match=r"could be cats/1\.jpg or 1\.jpg"):
        matcher("cats").find("/data/cats/1.jpg", "tail")
    assert NAMES[matcher("cats").find("/data/cats/2.jpg", "tail")] == "cats/2.jpg"


def test_two_names_that_are_one_upload():
    with pytest.raises(ValueError, match=r"could be a b\.jpg or a_b\.jpg"):
        matcher(names=("a b.jpg", "a_b.jpg")).find("a_b.jpg", "upload")


@pytest.mark.parametrize("stored,written", [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize(
    "naming,text", [("path", "Bär/1.jpg"), ("stem", "Bär/1"), ("tail", "x/Bär/1.jpg"), ("beside", "é.jpg")]
)
def test_accents_may_be_stored_otherwise_than_written(stored, written, naming, text):
    names = [normalize(stored, name) for name in ("1.jpg", "Bär/1.jpg", "é.jpg")]
    assert matcher(names=names).find(normalize(written, text), naming) == (2 if naming == "beside" else 1)


def test_names_that_differ_in_how_accents_are_stored_are_two():
    names = [normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    assert [matcher(names=names).matches(name) for name in names] == [[0], [1]]


def test_beside_the_file_before_the_images(tmp_path):
    found = NameMatcher(NAMES, tmp_path, tmp_path / "cats")
    assert NAMES[found.find("1.jpg", "beside")] == "cats/1.jpg"
    assert NAMES[found.find("1.jpg")] == "1.jpg"
    assert NAMES[found.find("dogs/3.jpg", "beside")] == "dogs/3.jpg"
