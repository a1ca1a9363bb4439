"""Exports as the tools document them, written by hand: the labels of the images that they name."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tapetum.data.label_formats.entries import chosen_field
from tapetum.data.labels.label_files import read_label_file
from tapetum.data.sources.open_source import open_source

EXPORTS = Path(__file__).parents[2] / "fixtures" / "label_formats"
NAMES = ("Grüße & <b>.jpg", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/3.jpg")
LABELS = {"Grüße & <b>.jpg": "dog", "cat/2.jpg": "cat", "dog/1.jpg": "dog"}
FILES = [path.name for path in sorted(EXPORTS.iterdir())]


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number, 0, 0)).save(path)
    return tmp_path / "photos"


def known(labels):
    return {labels.names[i]: labels.classes[labels.values[i]] for i in labels.labelled}


def read(folder, content, name="labels.json", **keywords):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return known(read_label_file(folder / name, NAMES, folder / "photos", **keywords))


def test_there_is_an_export_of_each_format():
    assert len(FILES) == 8


@pytest.mark.parametrize("name", FILES)
def test_each_export_means_the_same_labels(photos, name):
    shutil.copy(EXPORTS / name, photos if name.startswith("metadata") else photos.parent)
    source = open_source(photos, (photos if name.startswith("metadata") else photos.parent) / name)
    assert source.store.names == NAMES
    assert known(source.labels) == LABELS


@pytest.mark.parametrize(
    "images,labels,name",
    [
        ("data", "labels.json", "fiftyone.json"),
        ("data", "labels.json", "coco.json"),
        ("images", "annotations.xml", "cvat.xml"),
        ("images", "annotations/instances_default.json", "coco.json"),
        (".", "metadata.csv", "metadata.csv"),
        (".", "metadata.jsonl", "metadata.jsonl"),
    ],
)
def test_folders_that_hold_images_and_labels(photos, tmp_path, images, labels, name):
    whole = tmp_path / "whole"
    shutil.copytree(photos, whole / images)
    (whole / labels).parent.mkdir(exist_ok=True)
    shutil.copy(EXPORTS / name, whole / labels)
    for given in (None, whole, whole / labels):
        source = open_source(whole, given)
        assert source.store.names == NAMES
        assert known(source.labels) == LABELS
    assert known(open_source(photos, whole).labels) == LABELS


def test_captions_beside_images_are_no_labels(photos):
    (photos / "metadata.csv").write_text("file_name,text\ncat/1.jpg,A cat\ndog/1.jpg,A dog\n")
    assert known(open_source(photos).labels)["cat/2.jpg"] == "cat"  # from its folder
    assert known(open_source(photos, photos / "metadata.csv").labels) == {"cat/1.jpg": "A cat", "dog/1.jpg": "A dog"}


def test_blanks_around_a_label_make_no_class_of_their_own(photos):
    (photos / "metadata.csv").write_text("file_name,label\ncat/1.jpg,cat\ncat/2.jpg, cat\ndog/1.jpg,dog\t\n")
    assert known(open_source(photos).labels) == {"cat/1.jpg": "cat", "cat/2.jpg": "cat", "dog/1.jpg": "dog"}


def test_a_field_is_chosen_where_several_may_hold_the_labels(photos):
    path = photos / "metadata.csv"
    path.write_text("file_name,breed,colour\ncat/1.jpg,manx,red\ndog/1.jpg,pug,black\n")
    with pytest.raises(ValueError, match=r"may be 'breed', 'colour': write which one .* FILE:breed"):
        open_source(photos, path)
    assert known(open_source(photos, f"{path}:colour").labels) == {"cat/1.jpg": "red", "dog/1.jpg": "black"}
    with pytest.raises(ValueError, match="no field 'age': choose one of 'breed', 'colour'"):
        open_source(photos, f"{path}:age")
    (photos / "plain.csv").write_text("cat/1.jpg,a\ndog/1.jpg,b\n")
    with pytest.raises(ValueError, match="no field 'age'"):
        open_source(photos, photos / "plain.csv:age")
    with pytest.raises(ValueError, match=r"no labels file .*none\.csv"):
        open_source(photos, photos / "none.csv:age")


def test_the_usual_names_come_first():
    assert chosen_field(["text", "labels"], ["label", "labels"], None) == "labels"
    assert chosen_field(["text"], ["label"], None) == "text"


def task(image, *results, **about):
    return {"data": {"image": image}, "annotations": [{"result": list(results), **about}]}


def choice(label, name="choice", **where):
    return {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [label], **where}}


def test_several_groups_of_choices(photos, tmp_path):
    tasks = [
        task("cat/1.jpg", choice("cat", "animal"), choice("sharp", "quality")),
        task("dog/1.jpg", choice("dog", "animal"), choice("blurred", "quality")),
    ]
    with pytest.raises(ValueError, match="may be 'animal', 'quality'"):
        read(tmp_path, tasks)
    assert read(tmp_path, tasks, field="animal") == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}
    assert read(tmp_path, tasks, field="quality") == {"cat/1.jpg": "sharp", "dog/1.jpg": "blurred"}
    flat = [
        {"image": "cat/1.jpg", "animal": "cat", "quality": "sharp", "annotation_id": 1},
        {"image": "dog/1.jpg", "animal": "dog", "quality": "blurred", "annotation_id": 2},
    ]
    with pytest.raises(ValueError, match="may be 'animal', 'quality'"):
        read(tmp_path, flat)
    assert read(tmp_path, flat, field="quality") == {"cat/1.jpg": "sharp", "dog/1.jpg": "blurred"}


def test_choices_of_a_region_are_not_the_images(photos, tmp_path):
    tasks = [
        task("cat/1.jpg", choice("cat"), choice("dog", x=3, y=4, width=5, height=6)),
        task("dog/1.jpg", choice("dog")),
    ]
    assert read(tmp_path, tasks) == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}


def test_annotators_who_disagree_are_refused(photos, tmp_path):
    first = task("dog/1.jpg", choice("cat"))
    both = {**first, "annotations": [*first["annotations"], {"result": [choice("dog")]}]}
    with pytest.raises(ValueError, match=r"task 2, annotation 2: .* labelled 'dog', but 'cat' at task 2, annotation 1"):
        read(tmp_path, [task("cat/1.jpg", choice("cat")), both])


def test_a_column_of_another_name_may_hold_the_image(photos, tmp_path):
    tasks = [
        {"data": {"url": "cat/1.jpg", "width": 8}, "annotations": [{"result": [choice("cat")]}]},
        {"data": {"url": "dog/1.jpg", "width": 8}, "annotations": [{"result": [choice("dog")]}]},
    ]
    assert read(tmp_path, tasks) == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}


def test_none_of_these_in_the_log(photos, tmp_path):
    lines = [
        {"path": "cat/1.jpg", "old": None, "new": "cat"},
        {"path": "dog/1.jpg", "old": None, "new": "dog"},
        {"path": "dog/3.jpg", "old": "dog", "new": ""},
    ]
    path = tmp_path / "labels.log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    labels = read_label_file(path, NAMES, photos)
    assert known(labels) == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}
    assert [NAMES[i] for i in labels.none] == ["dog/3.jpg"]


def test_fiftyone_without_classes_and_with_lists(photos, tmp_path):
    content = {"labels": {"cat/1": "cat", "dog/1": ["dog"], "dog/3": None}}
    assert read(tmp_path, content) == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}
