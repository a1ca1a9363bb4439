"""Every mistake in label files of other tools: one sentence on stderr that names the file, exit code 2, no new file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tapetum.cli.main import main

COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
    "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
}


def coco(**changed: Any) -> str:
    return json.dumps(COCO | changed)


def task(*choices: Any, image: Any = "1.png", **about: Any) -> dict[str, Any]:
    part = {"type": "choices", "from_name": "choice", "to_name": "image", "value": {"choices": list(choices)}}
    return {"data": {"image": image}, "annotations": [{"result": [part]}], **about}


def tasks(*given: Any) -> str:
    return json.dumps(list(given))


def cvat(*inner: str, start: str = "") -> str:
    return f"<?xml version='1.0'?>{start}\n<annotations>\n" + "\n".join(inner) + "\n</annotations>\n"


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x SYSTEM "file:///etc/passwd">'
DEEP = "[" * 500 + "]" * 500

# The file, what it holds, and words of the sentence.
FILES: list[tuple[str, str, tuple[str, ...]]] = [
    # Label Studio
    ("a.json", tasks(task("a"))[:-9], ("labels file a.json is not JSON", "line 1")),
    ("a.json", tasks(7, task("a")), ("a.json, entry 1: 7 is not a path and a label",)),
    ("a.json", tasks(task("a"), 7), ("a.json, task 2: it is 7", "make it an object")),
    ("a.json", tasks(task("a", annotations=None)), ("task 1: 'annotations' is None", "a list")),
    ("a.json", tasks(task("a", data=[])), ("task 1: 'data' is []", "an object")),
    ("a.json", tasks(task("a", annotations=[{"result": {}}])), ("task 1: 'result' is {}", "a list")),
    ("a.json", tasks(task("a", annotations=[{"result": ["x"]}])), ("task 1: a result is 'x'", "an object")),
    ("a.json", tasks(task("a", "b")), ("task 1: its choices are ['a', 'b']", "keep one")),
    ("a.json", tasks(task(["a"])), ("task 1: ['a'] is no label",)),
    ("a.json", tasks(task(True)), ("task 1: True is no label",)),
    ("a.json", tasks(task("\ud800")), ("task 1: label '\\ud800' cannot be printed",)),
    ("a.json", tasks(task("\x1b[31m")), ("task 1: label", "cannot be printed")),
    ("a.json", tasks(task("a", image=7)), ("task 1: 7 is no name of an image",)),
    ("a.json", tasks(task("a", data={"x": "1.png", "y": "2.png"})), ("task 1: its data have no 'image'",)),
    ("a.json", tasks(task("a", image="s3://b/9.png")), ("a.json, task 1: there is no image '9.png' in", "correct")),
    ("a.json", tasks(task("a", image="s3://b/3.png")), ("task 1: '3.png' could be x/3.png or y/3.png",)),
    ("a.json", tasks(task("a", image="data:image/png;base64," + "A" * 9000)), ("task 1: there is no image",)),
    ("a.json", tasks(task("a"), task("b")), ("task 2: '1.png' is labelled 'b', but 'a' at task 1",)),
    ("a.json", tasks(task("a"), task("a", image="2.png")), ("a.json: labels name only the class 'a'",)),
    ("a.json", tasks({"data": {"image": "1.png"}, "predictions": []}), ("no task has a choice",)),
    ("a.json", tasks({"image": "1.png", "annotation_id": 1}), ("a.json, there are no labels", "'choice'")),
    ("a.json", '[{"data": {"image": "1.png"}, "data": {}}]', ("a.json has the key 'data' twice",)),
    ("a.json", f'[{{"data": {DEEP}}}]', ("task 1: 'data' is [[",)),
    ("a.json", f'[{{"data": {DEEP * 400}}}]', ("a.json is not JSON",)),
    ("a.json", "[" * 200_000, ("a.json is not JSON",)),
    # CVAT
    ("a.xml", cvat()[:-9], ("a.xml, line 4: it is no XML",)),
    ("a.xml", "", ("a.xml, line 1: it is no XML (no element found",)),
    ("a.xml", cvat("<image name='1.png'/>", start=LAUGHS), ("a.xml, line 1: it has a DOCTYPE", "delete it")),
    ("a.xml", cvat("<image name='1.png'/>", start=OUTSIDE), ("a.xml, line 1: it has a DOCTYPE",)),
    ("a.xml", cvat("<image name='&x;'/>"), ("line 3: it is no XML (undefined entity",)),
    ("a.xml", "<?xml version='1.0' encoding='klingon'?><annotations/>", ("line 1: it is no XML (unknown encoding",)),
    ("a.xml", "<annotation><object/></annotation>", ("it begins with <annotation>", "CVAT for images 1.1")),
    ("a.xml", cvat("<image id='0'/>"), ("line 3: None is no name of an image",)),
    ("a.xml", cvat("<image name='1.png'>", "<tag/></image>"), ("line 4: None is no label",)),
    ("a.xml", cvat("<image name='9.png'><tag label='a'/></image>"), ("line 3: there is no image '9.png'",)),
    ("a.xml", cvat("<image name='1.png'><box label='a'/></image>"), ("shapes but no tags",)),
    (
        "a.xml",
        cvat("<image name='1.png'>", "<tag label='a'/>", "<tag label='b'/></image>"),
        ("'b', but 'a' at line 4",),
    ),
    ("a.xml", cvat("<x>" * 100_000), ("a.xml, line 4: it is no XML (mismatched tag",)),
    # COCO
    ("a.json", coco(images=7), ("'images' is 7", "a list")),
    ("a.json", coco(categories=None), ("'categories' is None", "a list")),
    ("a.json", coco(annotations=["x"]), ("annotation 1: it is 'x'", "an object")),
    ("a.json", coco(images=[{"id": None, "file_name": "1.png"}]), ("image 1: its id is None",)),
    ("a.json", coco(images=COCO["images"] + COCO["images"][:1]), ("image 3: its id 1 is that of another image",)),
    ("a.json", coco(categories=[{"id": [1], "name": "a"}]), ("category 1: its id is [1]",)),
    ("a.json", coco(annotations=[{"image_id": 1, "category_id": 9}]), ("annotation 1: category_id 9 is not the id",)),
    ("a.json", coco(annotations=[{"image_id": {}, "category_id": 1}]), ("annotation 1: image_id {} is not the id",)),
    ("a.json", coco(annotations=[{"image_id": 1}]), ("annotation 1: category_id None is not the id",)),
    ("a.json", coco(categories=[{"id": 1, "name": 1.5}, {"id": 2}]), ("annotation 1: 1.5 is no label",)),
    ("a.json", coco(images=[{"id": 1}, {"id": 2}]), ("annotation 1: None is no name of an image",)),
    ("a.json", coco(images=[{"id": 1, "file_name": "9.png"}, {"id": 2}]), ("there is no image '9.png'",)),
    (
        "a.json",
        coco(annotations=[{"image_id": 1, "category_id": 1}, {"image_id": 1, "category_id": 2}]),
        ("annotation 2: '1.png' is labelled 'b', but 'a' at annotation 1",),
    ),
    # FiftyOne
    ("a.json", '{"classes": 7, "labels": {"1": 0}}', ("'classes' is 7", "a list")),
    ("a.json", '{"classes": ["a"], "labels": {"1": 1}}', ("label of '1': 1 is no class", "0 to 0")),
    ("a.json", '{"classes": ["a"], "labels": {"1": -1}}', ("label of '1': -1 is no class",)),
    ("a.json", '{"classes": ["a"], "labels": {"1": true}}', ("label of '1': True is no label",)),
    ("a.json", '{"classes": [[]], "labels": {"1": 0}}', ("label of '1': [] is no label",)),
    ("a.json", '{"labels": {"1": ["a", "b"]}}', ("label of '1': ['a', 'b'] is no label",)),
    ("a.json", '{"labels": {"9": "a"}}', ("a.json, label of '9': there is no image '9'",)),
    ("a.json", '{"labels": {"1": "a", "1": "b"}}', ("has the key '1' twice",)),
    # imagefolder
    ("a.csv", "file_name,label\n1.png\n", ("a.csv, line 2: it has 1 fields, but the header 2",)),
    ("a.csv", "file_name,label\n,a\n", ("a.csv, line 2: '' is no name of an image",)),
    ("a.csv", "file_name,label\n9.png,a\n", ("a.csv, line 2: there is no image '9.png'",)),
    ("a.csv", "file_name,label,label\n1.png,a,b\n", ("line 1: a column is there twice",)),
    ("a.csv", "file_name,age,size\n1.png,a,b\n", ("a.csv, the labels may be 'age', 'size'", "FILE:age")),
    ("a.csv", "file_name\n1.png\n", ("a.csv, there are no labels", "'label'")),
    ("a.csv", "file_name,label\n1.png,\n", ("labels name no class",)),
    ("a.jsonl", '{"file_name": "1.png", "label": "a"}\n{"file_', ("a.jsonl, line 2: it is no JSON object",)),
    ("a.jsonl", '{"file_name": "1.png", "label": ["a"]}', ("a.jsonl, line 1: ['a'] is no label",)),
    ("a.jsonl", '{"file_name": 7, "label": "a"}', ("a.jsonl, line 1: 7 is no name of an image",)),
    ("a.jsonl", '{"file_name": "1.png", "file_name": "2.png"}', ("line 1: the key 'file_name' is there twice",)),
    ("a.jsonl", '{"image": "1.png"}', ("labels file a.jsonl has lines of an unknown kind", "file_name")),
    ("a.jsonl", "\n" + "[" * 100_000, ("labels file a.jsonl holds no labels",)),
    # The log of answers
    ("a.jsonl", '{"path": "1.png", "old": null, "new": 1.5}', ("a.jsonl, line 1: 1.5 is no label",)),
    ("a.jsonl", '{"path": null, "old": null, "new": "a"}', ("a.jsonl, line 1: None is no name",)),
    ("a.jsonl", '{"path": "9.png", "old": null, "new": "a"}', ("a.jsonl, line 1: there is no image '9.png'",)),
]

WRITE = "labels good.csv --images photos"
# A command, and words of the sentence.
COMMANDS: list[tuple[str, tuple[str, ...]]] = [
    (f"{WRITE} --format coko --output x.json", ("'coko'", "did you mean coco", "label-studio")),
    (f"{WRITE} --format coco --output x.txt", ("x.txt would not be recognised as coco", ".json")),
    (f"{WRITE} --format imagefolder --output x.csv", ("x.csv would not be found", "metadata.jsonl")),
    (f"{WRITE} --format csv --output good.csv", ("good.csv exists already",)),
    (f"{WRITE} --format coco --output folder.json", ("folder.json is not empty",)),
    (f"{WRITE} --format coco --output good.csv/x.json", ("x.json cannot be written",)),
    (f"{WRITE} --format coco --output x.json --predictions p.csv", ("coco would take predictions for labels",)),
    (f"{WRITE} --format label-studio --output x.json --predictions none.csv", ("none.csv cannot be read",)),
    (f"{WRITE} --format label-studio --output x.json --predictions good.csv", ("good.csv, line 2", "'confidence'")),
    (f"{WRITE} --format label-studio --output x.json --predictions p.csv", ("p.csv, line 2: confidence is '2'",)),
    (f"{WRITE} --format label-studio --output x.json --predictions q.csv", ("q.csv, line 2: there is no image",)),
    ("labels good.csv --format coco --output x.json", ("good.csv does not come with images", "--images")),
    ("labels none --format coco --output x.json", ("none does not come with images",)),
    ("labels nowhere.csv --images photos --format coco --output x.json", ("no labels file nowhere.csv",)),
    ("labels good.csv:age --images photos --format coco --output x.json", ("good.csv has no field 'age'",)),
    ("labels none --images few.npz --format coco --output x.json", ("few.npz are not image files",)),
]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAPETUM_TRACEBACK", raising=False)
    for name in ("1.png", "2.png", "x/3.png", "y/3.png"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(Path("photos", name))
    Path("good.csv").write_text("path,label\n1.png,a\n2.png,b\n")
    Path("p.csv").write_text("path,label,confidence\n1.png,a,2\n")
    Path("q.csv").write_text("path,label,confidence\n9.png,a,0.5\n")
    np.savez("few.npz", images=np.zeros((4, 6, 8, 3), np.uint8))
    Path("folder.json/x").mkdir(parents=True)


def refused(line: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(line))
    assert stop.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("tapetum: error: ")
    assert all(word in error for word in words), error
    assert len(error) < 500
    assert sorted(Path().rglob("*")) == before


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("name,content,words", FILES, ids=range(len(FILES)))
def test_a_faulty_file_is_one_sentence(name, content, words, capsys):
    Path(name).write_bytes(content.encode())
    refused(f"labels {name} --images photos --format csv --output out.csv", words, capsys)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("line,words", COMMANDS, ids=[line for line, _ in COMMANDS])
def test_a_faulty_command_is_one_sentence(line, words, capsys):
    refused(line, words, capsys)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.xml", "a.csv"])
def test_bytes_that_are_no_text(name, capsys):
    Path(name).write_bytes(b"file_name,label\n\xff\xfe,\x00")
    refused(f"labels {name} --images photos --format csv --output out.csv", (f"{name}",), capsys)
