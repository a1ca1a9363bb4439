"""Label Studio: its exports JSON and JSON-MIN, tasks to import with labels and predictions, and a labelling interface.

Format: https://labelstud.io/guide/task_format and https://labelstud.io/guide/predictions. Tasks name images as Label
Studio serves them (`/data/local-files/?d=photos/1.jpg`, `/data/upload/3/0a1b2c3d-1.jpg`, `s3://bucket/photos/1.jpg`),
so only the end of a path is known here. What `write` writes has the exact name beside it, which exports keep.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from tapetum.data.label_formats.entries import (
    Entry,
    Item,
    Naming,
    as_kind,
    as_label,
    as_name,
    chosen_field,
    shown,
)

_CHOICE, _IMAGE, _NAME = "choice", "image", "tapetum_path"
_LOCAL, _UPLOAD = "/data/local-files/?d=", "/data/upload/"
_PREFIX = re.compile("[0-9a-f]{8}-")
_ABOUT = {
    *("id", "image", _NAME, "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"),
}
"""Keys of JSON-MIN that hold no label."""


def recognises(content: Any) -> bool:
    """Return whether parsed JSON is an export of Label Studio."""
    first = content[0] if isinstance(content, list) else None
    return isinstance(first, dict) and bool({"data", "image", "annotation_id"} & set(first))


def read(content: list[Any], field: str | None) -> Iterator[Entry]:
    """Yield the label of each annotated task: the only choice of its annotations that were not cancelled.

    Where a task has an annotation marked as ground truth, only that counts. Predictions are not labels.

    Args:
        content: the parsed export.
        field: `from_name` of the choices to read, if there are several.

    Raises:
        ValueError: a task is not as documented, has several choices, or several fields hold choices; names the task.
    """
    tasks = [as_kind(task, dict, f"task {number}", "it") for number, task in enumerate(content, start=1)]
    if "data" not in tasks[0]:
        yield from _read_flat(tasks, field)
        return
    found = [part for number, task in enumerate(tasks, start=1) for part in _choices(task, f"task {number}")]
    if not found:
        raise ValueError("no task has a choice: label images by choices, and export again")
    control = chosen_field(list(dict.fromkeys(part[1] for part in found)), [], field)
    for place, name, data, choices in found:
        if name == control:
            yield Entry(place, *_only(choices, data, place))


def _choices(task: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, Mapping[str, Any], Any]]:
    """Yield (place, control, the task's data, choices) of each result that classifies the whole image."""
    data = as_kind(task.get("data"), dict, where, "'data'")
    annotations = as_kind(task.get("annotations", []), list, where, "'annotations'")
    annotations = [as_kind(one, dict, where, "an annotation") for one in annotations]
    annotations = [one for one in annotations if not one.get("was_cancelled")]
    annotations = [one for one in annotations if one.get("ground_truth")] or annotations
    for number, annotation in enumerate(annotations, start=1):
        place = where if len(annotations) == 1 else f"{where}, annotation {number}"
        for part in as_kind(annotation.get("result", []), list, place, "'result'"):
            part = as_kind(part, dict, place, "a result")
            if part.get("type") != "choices":
                continue
            value = as_kind(part.get("value"), dict, place, "'value'")
            if "x" not in value:  # else they classify a region
                yield place, as_name(part.get("from_name"), place), data, value.get("choices")


def _only(choices: Any, data: Mapping[str, Any], where: str) -> tuple[str, str, Naming]:
    """Return image, label and naming."""
    choices = as_kind(choices, list, where, "'choices'")
    if len(choices) != 1:
        raise ValueError(f"{where}: its choices are {shown(choices)}, but an image has one label: keep one of them")
    image, naming = _image(data, where)
    return image, as_label(choices[0], where), naming


def _read_flat(tasks: Sequence[Mapping[str, Any]], field: str | None) -> Iterator[Entry]:
    """Read JSON-MIN, in which the results and the data of a task are one object."""
    fields = dict.fromkeys(key for task in tasks for key in task if key not in _ABOUT and _is_choice(task[key]))
    control = chosen_field(list(fields), (_CHOICE, "label"), field)
    for number, task in enumerate(tasks, start=1):
        value, place = task.get(control), f"task {number}"
        if value is not None:
            choices = value.get("choices") if isinstance(value, dict) else [value]
            yield Entry(place, *_only(choices, task, place))


def _is_choice(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and "choices" in value)


def _image(data: Mapping[str, Any], where: str) -> tuple[str, Naming]:
    """Return what a task calls its image, and how to find it."""
    if isinstance(data.get(_NAME), str):
        return data[_NAME], "path"
    texts = [key for key, value in data.items() if isinstance(value, str)]
    if _IMAGE not in data and len(texts) != 1:
        raise ValueError(f"{where}: its data have no {_IMAGE!r}: name the column of images so, and export again")
    return _local(as_name(data[_IMAGE if _IMAGE in data else texts[0]], where))


def _local(address: str) -> tuple[str, Naming]:
    """Return the path in an address that Label Studio serves an image from, and how much of it is known.

    Example:
        >>> _local("/data/local-files/?d=photos/my%20cat.jpg"), _local("https://host/cats/1.jpg?key=7")
        (('photos/my cat.jpg', 'tail'), ('cats/1.jpg', 'tail'))
        >>> _local("/data/upload/3/0a1b2c3d-my_cat.jpg"), _local("s3://bucket/cats/1.jpg")
        (('my_cat.jpg', 'upload'), ('cats/1.jpg', 'tail'))
    """
    if _LOCAL in address:
        return unquote(address.partition(_LOCAL)[2]), "tail"
    if _UPLOAD in address:
        name = PurePosixPath(unquote(address.partition(_UPLOAD)[2])).name
        return _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name, "upload"
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address, "name"
    path = rest.partition("/")[2]
    # Keys in buckets may hold any sign, those of the web are quoted.
    return (unquote(re.split("[?#]", path)[0]) if scheme in ("http", "https", "file") else path), "tail"


def write(items: Sequence[Item], classes: Sequence[str], folder: str) -> str:
    """Make tasks for Label Studio's import, one for each image, with its label and prediction, if it has them.

    Images are named as local files below the folder that holds `folder`, the images' own folder.

    Raises:
        ValueError: never; every name that is text can be written.
    """
    tasks = []
    for item in items:
        address = _LOCAL + quote(f"{folder}/{item.name}")
        task: dict[str, Any] = {"data": {_IMAGE: address, _NAME: item.name}}
        if item.label is not None:
            task["annotations"] = [{"result": [_result(item.label)]}]
        if item.prediction is not None:
            label, confidence = item.prediction
            score = {} if confidence is None else {"score": confidence}
            task["predictions"] = [{"model_version": "tapetum", **score, "result": [_result(label)]}]
        tasks.append(task)
    return json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"


def _result(label: str) -> dict[str, Any]:
    return {"from_name": _CHOICE, "to_name": _IMAGE, "type": "choices", "value": {"choices": [label]}}


def interface(classes: Sequence[str]) -> str:
    """Make the labelling interface that these tasks need: an image and one choice among the classes."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=_IMAGE, value=f"${_IMAGE}")
    choices = ElementTree.SubElement(view, "Choices", name=_CHOICE, toName=_IMAGE, choice="single-radio")
    for name in classes:
        ElementTree.SubElement(choices, "Choice", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
