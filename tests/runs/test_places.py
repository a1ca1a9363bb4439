"""Where a run's data is now: what is found without being told, and what is asked for."""

from dataclasses import replace
from pathlib import Path

import pytest

from tapetum.recipe.recipe import load_recipe
from tapetum.runs.places import located, moved_to, own_copy

RUN = Path("run")


def recipe(**places):
    loaded = load_recipe("paws_digits")
    return replace(loaded, data=replace(loaded.data, **{"images": None, "labels": None, "test": None, **places}))


def places(found):
    return found.data.images, found.data.labels, found.data.test


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    """A folder of photos with everything in it."""
    monkeypatch.chdir(tmp_path)
    Path("photos/train").mkdir(parents=True)
    Path("photos/labels.csv").write_text("")


def test_what_is_there_is_taken_as_it_is():
    kept = recipe(images="photos", labels="photos/labels.csv", test="photos/train")
    assert located(RUN, kept, {}) == kept
    for words in ({"images": "digits", "labels": "none"}, {"images": "s3://bucket/photos"}):
        assert located(RUN, recipe(**words), {}) == recipe(**words)


def test_what_lay_in_the_folder_of_images_has_moved_with_it():
    before = recipe(images="photos", labels="photos/labels.csv", test="photos/train")
    Path("photos").rename("elsewhere")
    found = located(RUN, before, moved_to(images=Path("elsewhere")), needs_test=True)
    assert places(found) == ("elsewhere", "elsewhere/labels.csv", "elsewhere/train")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"images": "gone"}, r"the images of run are not at gone \(current folder: .*\): .* with --images DIR"),
        ({"images": "photos", "labels": "gone.csv"}, r"the labels of run are not at gone.csv .* with --labels FILE"),
        ({"images": "photos", "test": "gone"}, r"the test images of run are not at gone .* with --test DIR"),
    ],
)
def test_what_is_gone_is_asked_for_by_its_option(data, message):
    with pytest.raises(ValueError, match=message):
        located(RUN, recipe(**data), {}, needs_test=True)


def test_test_images_are_asked_for_only_where_they_are_needed():
    assert places(located(RUN, recipe(images="photos", test="gone"), {})) == ("photos", None, "gone")


def test_copies_of_what_was_passed_in_memory_are_the_runs_own():
    for name in ("run", "copy"):
        Path(name, "given", "pool").mkdir(parents=True)
        Path(name, "given", "pool", "images.npz").write_text("")
    assert own_copy(Path("copy"), "run/given/pool/images.npz") == "copy/given/pool/images.npz"
    assert own_copy(Path("copy/folds/1-of-2"), "run/given/pool/images.npz") == "copy/given/pool/images.npz"
    assert own_copy(Path("copy"), "run/given/test/images.npz") == "run/given/test/images.npz"
    assert own_copy(Path("copy"), "given/images.npz") == "given/images.npz"
