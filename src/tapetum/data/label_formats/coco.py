"""COCO's JSON, used for classification: an annotation gives an image a category; boxes and outlines are passed over.

Format: https://cocodataset.org/#format-data. Written annotations have no box, as in datumaro's format `coco_labels`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tapetum.data.label_formats.entries import Entry, Item, as_kind, as_label, as_name, no_field, shown

_PARTS = {"image": "images", "category": "categories"}


def recognises(content: Any) -> bool:
    """Return whether parsed JSON is in this format."""
    return isinstance(content, dict) and {"images", "annotations"} <= set(content)


def read(content: Mapping[str, Any], field: str | None) -> Iterator[Entry]:
    """Yield an entry for each annotation, so an image with two different categories has two labels.

    Raises:
        ValueError: an id is repeated or unknown, or a value is of the wrong type; names its place.
    """
    no_field(field)
    images, categories = _by_id(content, "image", "file_name"), _by_id(content, "category", "name")
    annotations = as_kind(content["annotations"], list, "the file", "'annotations'")
    for number, annotation in enumerate(annotations, start=1):
        place = f"annotation {number}"
        as_kind(annotation, dict, place, "it")
        image = _known(annotation, "image", images, place)
        label = _known(annotation, "category", categories, place)
        yield Entry(place, as_name(image, place), as_label(label, place), "name")


def _by_id(content: Mapping[str, Any], what: str, key: str) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for number, one in enumerate(as_kind(content.get(_PARTS[what]), list, "the file", repr(_PARTS[what])), start=1):
        place = f"{what} {number}"
        as_kind(one, dict, place, "it")
        number_of_it = one.get("id")
        if not isinstance(number_of_it, (int, str)):
            raise ValueError(f"{place}: its id is {shown(number_of_it)}: give it a whole number")
        if number_of_it in found:
            raise ValueError(f"{place}: its id {shown(number_of_it)} is that of another {what}: give each its own")
        found[number_of_it] = one.get(key)
    return found


def _known(annotation: Mapping[str, Any], what: str, known: Mapping[Any, Any], where: str) -> Any:
    wanted = annotation.get(f"{what}_id")
    if not isinstance(wanted, (int, str)) or wanted not in known:
        raise ValueError(f"{where}: {what}_id {shown(wanted)} is not the id of any of the {_PARTS[what]}: correct it")
    return known[wanted]


def write(items: Sequence[Item], classes: Sequence[str], folder: str) -> str:
    """Make the file: all images, and one annotation for each label. Categories count from 1, as COCO's do."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    category = {name: number for number, name in enumerate(classes, start=1)}
    for number, item in enumerate(items, start=1):
        size = {} if item.size is None else {"width": item.size[0], "height": item.size[1]}
        images.append({"id": number, "file_name": item.name, **size})
        if item.label is not None:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category[item.label]})
    content = {
        "info": {"description": folder},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in category.items()],
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
