"""The tools themselves read what is written for them. A test is skipped where its tool is not installed."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from pictures import save_pictures

import tapetum

NAMES = {"cat/1.png": "cat", "cat/=2, é 🐈.png": "cat", 'dog/"3".png': "dog", "loose.png": None, "dog/<b>.png": "a&b"}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("labels.json").write_text(json.dumps(NAMES))
    return save_pictures("photos", NAMES)


def write(format, output, **keywords):
    with contextlib.redirect_stdout(io.StringIO()):
        tapetum.labels("labels.json", output, format, images="photos", **keywords)


def test_pycocotools(photos):
    coco = pytest.importorskip("pycocotools.coco")
    write("coco", "coco.json")
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.COCO("coco.json")
    found = {image["file_name"]: None for image in data.loadImgs(data.getImgIds())}
    for annotation in data.loadAnns(data.getAnnIds()):
        (image,) = data.loadImgs(annotation["image_id"])
        (category,) = data.loadCats(annotation["category_id"])
        found[image["file_name"]] = category["name"]
        assert (image["width"], image["height"]) == (8, 6)
    assert found == NAMES


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_hugging_face_datasets(photos, name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    write("imagefolder", photos / name)
    data = datasets.load_dataset("imagefolder", data_dir=str(photos), split="train", cache_dir=str(tmp_path / "cache"))
    found = {Path(row["image"].filename).relative_to(photos.resolve()).as_posix(): row["label"] for row in data}
    assert found == NAMES


def test_label_studio_converter(photos):
    converter = pytest.importorskip("label_studio_sdk.converter")
    write("label-studio", "tasks.json")
    # As an export has them: imported tasks with ids.
    tasks = [task | {"id": number} for number, task in enumerate(json.loads(Path("tasks.json").read_text()))]
    Path("export.json").write_text(json.dumps([task for task in tasks if "annotations" in task]))
    convert = converter.Converter(Path("tasks.config.xml").read_text(), ".")
    convert.convert_to_json_min("export.json", "min", is_dir=False)
    found = {row["tapetum_path"]: row["choice"] for row in json.loads(Path("min/result.json").read_text())}
    assert found == {name: label for name, label in NAMES.items() if label}


def test_fiftyone(photos):
    """By its importer and its exporter: a `fiftyone.Dataset` would need a MongoDB."""
    of_data = pytest.importorskip("fiftyone.utils.data")
    write("fiftyone", "fiftyone.json")
    reader = of_data.FiftyOneImageClassificationDatasetImporter(data_path=str(photos), labels_path="fiftyone.json")
    writer = of_data.FiftyOneImageClassificationDatasetExporter(
        "again", include_confidence=True, classes=["cat", "a&b", "dog"]
    )
    found = {}
    with reader, writer:
        for path, metadata, label in reader:
            name = Path(path).relative_to(photos.resolve()).as_posix()
            found[name] = None if label is None else label.label
            if label is not None:
                label.confidence = 0.5
                writer.export_sample(path, label, metadata=metadata)
    assert found == NAMES
    with contextlib.redirect_stdout(io.StringIO()):
        tapetum.labels("again/labels.json", "again.csv", "csv", images="again/data")
    lines = Path("again.csv").read_text().splitlines()[1:]
    assert sorted(line.rpartition(",")[2] for line in lines) == sorted(label for label in NAMES.values() if label)
