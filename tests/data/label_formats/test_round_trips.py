"""Whatever images and classes are called, what is written in a format is read as the same labels, or refused."""

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tapetum.data.label_formats.entries import Item
from tapetum.data.label_formats.formats import WRITERS
from tapetum.data.label_formats.label_studio import interface
from tapetum.data.label_formats.predictions import read as read_predictions
from tapetum.data.label_formats.rows import FORMULA_SIGNS
from tapetum.data.labels.label_files import labels_in
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.reporting.predictions_table import Columns, Row, csv_header, csv_lines, json_lines

ROOT = Path("photos")
FORMATS = [(name, suffix) for name, suffixes in WRITERS.items() for suffix in suffixes]
QUICK = settings(deadline=None, max_examples=60)
ODD = (
    "'",
    '"',
    ",",
    ";",
    "\t",
    "<script>",
    "=1+1",
    "&amp;",
    "%41",
    "?d=",
    "#",
    "\\",
    "🐈",
    "👩‍🚀",
    "é",
    "ß",
    " ",
    "\n",
    ":",
)

text = st.one_of(
    st.lists(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=("Cs", "Cc"))), min_size=1, max_size=5),
).map("".join)
part = text.map(lambda name: name.replace("/", "-")).filter(lambda name: name not in (".", ".."))
names = st.builds(
    lambda folders, name, suffix: "/".join((*folders, name + suffix)),
    st.lists(part, max_size=2),
    part,
    st.sampled_from((".jpg", ".PNG", ".jpg.png")),
)
classes = st.one_of(
    st.sampled_from(("cat", "7", "null", "true", NONE_OF_THESE)),
    text.map(lambda name: "".join(name.split("\n")).replace("\t", "").strip()).filter(bool),
)
pools = st.dictionaries(names, st.one_of(classes, st.none()), min_size=2, max_size=6)

EXAMPLES = (
    {"=1+1.jpg": "=SUM(A1)", "a,b.jpg": "x", " blank.jpg": "a;b", "=a\\b.jpg": None},
    {'"q".jpg': "<script>alert(1)</script>", "'.jpg": "it's", "photos/1.jpg": "👩‍🚀", "1.jpg": "7", "🐈/é.jpg": None},
    {"line\nbreak.jpg": "a", "tab\t.jpg": "b", "a&amp;b.jpg": "a", "50%41.jpg": "b", "?d=x.jpg": "a"},
    {"1.jpg": "a", "2.jpg": "b", "3.jpg": NONE_OF_THESE},
)


def known(labels):
    found = {labels.names[i]: labels.classes[labels.values[i]] for i in labels.labelled}
    return found | {labels.names[i]: NONE_OF_THESE for i in labels.none}


def written(format, suffix, pool):
    items = [Item(name, label, (8, 6)) for name, label in pool.items()]
    return WRITERS[format][suffix](items, sorted({label for label in pool.values() if label}), "photos")


def round_trip(format, suffix, pool):
    content = written(format, suffix, pool).encode()
    stem = "metadata" if format == "imagefolder" else "labels"
    return known(labels_in(content, ROOT / f"{stem}{suffix}", tuple(pool), ROOT))


@pytest.mark.parametrize("pool", EXAMPLES)
@pytest.mark.parametrize("format,suffix", FORMATS)
def test_names_that_programs_trip_over(format, suffix, pool):
    assert round_trip(format, suffix, pool) == {name: label for name, label in pool.items() if label}


@pytest.mark.parametrize("format,suffix", FORMATS)
@QUICK
@given(pool=pools)
@example(pool={"0.jpg": "cat", "0.PNG": "7"})
@example(pool={"0.jpg": "cat", "a\x85.jpg": "7"})
def test_equal_labels(format, suffix, pool):
    assume(len({label for label in pool.values() if label and label != NONE_OF_THESE}) >= 2)
    stems = {os.path.splitext(name)[0] for name in pool}
    if format == "fiftyone" and len(stems) < len(pool):
        with pytest.raises(ValueError, match="differ by their endings alone"):
            written(format, suffix, pool)
    elif format == "cvat" and any(set("\ufffe\uffff") & set(f"{name}{label}") for name, label in pool.items()):
        with pytest.raises(ValueError, match="XML cannot hold the name"):
            written(format, suffix, pool)
    else:
        assert round_trip(format, suffix, pool) == {name: label for name, label in pool.items() if label}


@QUICK
@given(st.lists(classes, min_size=1, unique=True))
def test_the_labelling_interface_is_xml_with_all_classes(wanted):
    assume(not any(set("\ufffe\uffff") & set(name) for name in wanted))
    root = ElementTree.fromstring(interface(wanted))
    assert [choice.get("value") for choice in root.iter("Choice")] == wanted
    assert root.find("Image").get("value") == "$image"


@QUICK
@given(pools)
def test_predictions_are_read_as_they_were_written(pool):
    # An apostrophe before a sign is what the table itself writes against spreadsheets.
    assume(not any(label and label[0] == "'" and label[1:2] in FORMULA_SIGNS for label in pool.values()))
    rows = [Row(name, label, None if label == NONE_OF_THESE else 0.75, ()) for name, label in pool.items()]
    columns = Columns(0, True)
    expected = [(label, None if label == NONE_OF_THESE else 0.75) for label in pool.values() if label]
    for table in (csv_header(columns) + csv_lines(rows, columns), json_lines(rows, columns)):
        found = list(read_predictions(table.decode()))
        assert [(row.label, row.confidence) for row in found] == expected
        assert [row.path.removeprefix("./") for row in found] == [name for name, label in pool.items() if label]


def test_what_label_studio_is_given():
    items = [Item("cat/1 ü.jpg", "cat"), Item("2.jpg", None, prediction=("dog", 0.75))]
    first, second = json.loads(WRITERS["label-studio"][".json"](items, ["cat", "dog"], "photos"))
    choice = {"from_name": "choice", "to_name": "image", "type": "choices"}
    assert first == {
        "data": {"image": "/data/local-files/?d=photos/cat/1%20%C3%BC.jpg", "tapetum_path": "cat/1 ü.jpg"},
        "annotations": [{"result": [{**choice, "value": {"choices": ["cat"]}}]}],
    }
    assert second == {
        "data": {"image": "/data/local-files/?d=photos/2.jpg", "tapetum_path": "2.jpg"},
        "predictions": [
            {"model_version": "tapetum", "score": 0.75, "result": [{**choice, "value": {"choices": ["dog"]}}]}
        ],
    }


def test_what_coco_is_given():
    content = json.loads(written("coco", ".json", {"1.jpg": "b", "2.jpg": None, "3.jpg": "a"}))
    assert content["images"][1] == {"id": 2, "file_name": "2.jpg", "width": 8, "height": 6}
    assert content["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2},
        {"id": 2, "image_id": 3, "category_id": 1},
    ]
    assert content["categories"] == [
        {"id": 1, "name": "a", "supercategory": ""},
        {"id": 2, "name": "b", "supercategory": ""},
    ]


def test_what_fiftyone_is_given():
    content = json.loads(written("fiftyone", ".json", {"d/1.jpg": "b", "2.jpg": None, "3.x.jpg": "a"}))
    assert content == {"classes": ["a", "b"], "labels": {"d/1": 1, "2": None, "3.x": 0}}


def test_what_cvat_is_given():
    root = ElementTree.fromstring(written("cvat", ".xml", {"1.jpg": "b", "2.jpg": None, "3.jpg": "a"}))
    assert root.tag == "annotations"
    assert root.findtext("version") == "1.1"
    assert [name.text for name in root.iterfind("meta/task/labels/label/name")] == ["a", "b"]
    images = root.findall("image")
    assert images[0].attrib == {"id": "0", "name": "1.jpg", "width": "8", "height": "6"}
    assert [[tag.get("label") for tag in image] for image in images] == [["b"], [], ["a"]]
