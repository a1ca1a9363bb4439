import csv
import json
from pathlib import Path

import pytest
from pictures import save_pictures
from PIL import Image

import tapetum
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.data.sources.open_source import open_source
from tapetum.system.checksums import note_checksum
from tapetum.verbs.labels import labels as write_labels

LABELS = {
    "cat/1.png": "cat",
    "cat/=2, é 🐈.png": "cat",
    'dog/"3".png': "dog",
    "dog/<script>.png": "dog",
    "odd.png": NONE_OF_THESE,
}
NAMES = (*LABELS, "loose.png")
FORMATS = {
    "label-studio": "tasks.json",
    "cvat": "annotations.xml",
    "coco": "coco.json",
    "fiftyone": "fiftyone.json",
    "imagefolder": "metadata.csv",
    "csv": "again.csv",
}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("labels.json").write_text(json.dumps(LABELS))
    return save_pictures("photos", NAMES)


def known(source):
    found = source.labels
    given = {found.names[i]: found.classes[found.values[i]] for i in found.labelled}
    return given | {found.names[i]: NONE_OF_THESE for i in found.none}


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read(photos, capsys, format):
    counts = write_labels("labels.json", FORMATS[format], format, images="photos")
    assert counts == {"images": 6, "labels": {"cat": 2, "dog": 2, NONE_OF_THESE: 1}, "predictions": 0}
    assert known(open_source("photos", FORMATS[format])) == LABELS
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"Wrote 5 labels of 6 images as {format}: {FORMATS[format]}"
    assert said[-1] == f"Next: tapetum check photos --labels {FORMATS[format]}"


def test_from_format_to_format(photos):
    given = "labels.json"
    for format, output in FORMATS.items():
        write_labels(given, output, format, images="photos")
        given = output
    assert known(open_source("photos", given)) == LABELS


def test_class_folders_need_no_other_images(photos):
    write_labels("photos", "folders.csv", "csv")
    with Path("folders.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label"]
    assert dict(rows) == {name: name.split("/")[0] for name in NAMES if "/" in name}


def test_the_labels_of_a_run(photos):
    Path("run").mkdir()
    recipe = tapetum.load_recipe("paws_digits", ["data.images=photos", "data.labels=labels.json"])
    Path("run/recipe.yaml").write_text(tapetum.dump_recipe(recipe))
    counts = write_labels("run", "coco.json", "coco")
    assert counts["labels"]["dog"] == 2
    assert known(open_source("photos", "coco.json")) == LABELS


PREDICTIONS = [
    ("cat/1.png", "dog", "0.625"),
    ("./=4.png", "'=x", "1"),
    ("odd.png", NONE_OF_THESE, ""),
    ("loose.png", "", ""),
]


@pytest.fixture
def predictions(photos):
    Image.new("RGB", (8, 6)).save("photos/=4.png")
    with Path("predictions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "confidence", "calibrated", "problem")])
        csv.writer(file).writerows((*row, "no", "") for row in PREDICTIONS)
    return Path("predictions.csv")


def test_predictions_for_review(predictions):
    counts = write_labels("labels.json", "tasks.json", "label-studio", images="photos", predictions=predictions)
    assert counts["predictions"] == 3
    tasks = {task["data"]["tapetum_path"]: task for task in json.loads(Path("tasks.json").read_text())}
    assert tasks["cat/1.png"]["annotations"][0]["result"][0]["value"] == {"choices": ["cat"]}
    first, odd = tasks["cat/1.png"]["predictions"][0], tasks["odd.png"]["predictions"][0]
    assert (first["score"], first["result"][0]["value"]) == (0.625, {"choices": ["dog"]})
    assert tasks["=4.png"]["predictions"][0]["result"][0]["value"] == {"choices": ["=x"]}
    assert "score" not in odd
    assert "predictions" not in tasks["loose.png"]
    assert known(open_source("photos", "tasks.json")) == LABELS  # predictions are no labels
    config = Path("tasks.config.xml").read_text()
    assert config.count("<Choice value=") == 4
    assert '<Choice value="=x" />' in config


def test_predictions_that_have_changed_are_refused(predictions):
    note_checksum(predictions, "0" * 64)
    with pytest.raises(ValueError, match=r"predictions.csv has changed since it was written"):
        write_labels("labels.json", "tasks.json", "label-studio", images="photos", predictions=predictions)


def test_predictions_without_any_label(predictions):
    lines = [
        {"path": "cat/1.png", "label": "dog", "confidence": 0.5},
        {"path": "x.png", "label": None, "confidence": None},
    ]
    Path("predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    counts = write_labels("none", "tasks.json", "label-studio", images="photos", predictions="predictions.jsonl")
    assert counts == {"images": 7, "labels": {}, "predictions": 1}
    assert '<Choice value="dog" />' in Path("tasks.config.xml").read_text()


def test_images_that_cannot_be_read_have_no_size_and_are_told(photos, capsys):
    Path("photos/loose.png").write_text("<html>")
    write_labels("labels.json", "coco.json", "coco", images="photos")
    assert "1 images have no size in the file, because they cannot be read: " in capsys.readouterr().err
    images = {image["file_name"]: image for image in json.loads(Path("coco.json").read_text())["images"]}
    assert "width" not in images["loose.png"]
    assert images["odd.png"]["width"] == 8


def test_metadata_lies_above_the_images(photos):
    write_labels("labels.json", "photos/metadata.jsonl", "imagefolder", images="photos")
    write_labels("labels.json", "metadata.jsonl", "imagefolder", images="photos")
    assert '"file_name": "odd.png"' in Path("photos/metadata.jsonl").read_text()
    assert '"file_name": "photos/odd.png"' in Path("metadata.jsonl").read_text()
    assert known(open_source("photos")) == known(open_source("photos", "metadata.jsonl")) == LABELS
    Path("linked").symlink_to("photos")
    write_labels("labels.json", "linked/metadata.csv", "imagefolder", images="photos")
    Path("elsewhere").mkdir()
    with pytest.raises(ValueError, match=r"does not lie above the image \.\./photos/cat/1\.png"):
        write_labels("labels.json", "elsewhere/metadata.csv", "imagefolder", images="photos")
    assert not any(Path("elsewhere").iterdir())


def test_nothing_is_written_that_would_be_read_differently(photos):
    Image.new("RGB", (8, 6)).save("photos/cat/1.jpg")
    with pytest.raises(ValueError, match=r"fiftyone cannot hold these labels: cat/1\.jpg and cat/1\.png differ"):
        write_labels("labels.json", "fiftyone.json", "fiftyone", images="photos")
    Path("photos/ b").mkdir()
    Image.new("RGB", (8, 6)).save("photos/ b/1.png")
    with pytest.raises(ValueError, match=r"csv cannot hold .* ' b' of ' b/1.png' would be read as 'b': rename"):
        write_labels("photos", "again.csv", "csv", images="photos")
    assert not Path("fiftyone.json").exists()
    assert not Path("again.csv").exists()


def test_names_that_are_no_text(photos):
    try:
        Image.new("RGB", (8, 6)).save(b"photos/\xff.png".decode(errors="surrogateescape"), "PNG")
    except OSError:
        pytest.skip("this file system takes text alone")
    for format, output in FORMATS.items():
        with pytest.raises(ValueError, match=r"\\udcff.png' is not text in UTF-8: rename"):
            write_labels("labels.json", output, format, images="photos")
