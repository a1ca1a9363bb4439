"""FiftyOne: the labels.json of its FiftyOneImageClassificationDataset, whose images lie beside it in data/.

Format: https://docs.voxel51.com/user_guide/dataset_creation/datasets.html. Images are named without their endings.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tapetum.data.label_formats.entries import Entry, Item, as_kind, as_label, as_name, no_field, shown


def recognises(content: Any) -> bool:
    """Return whether parsed JSON is in this format."""
    return isinstance(content, dict) and isinstance(content.get("labels"), dict)


def read(content: Mapping[str, Any], field: str | None) -> Iterator[Entry]:
    """Yield an entry for each label: a number of a class, or the class itself; null means no label.

    Raises:
        ValueError: a number of no class, several labels for one image, or a value of the wrong type; names the image.
    """
    no_field(field)
    classes = content.get("classes")
    if classes is not None:
        as_kind(classes, list, "the file", "'classes'")
    for name, given in content["labels"].items():
        place = f"label of {shown(name)}"
        given = given[0] if isinstance(given, list) and len(given) == 1 else given  # as in multilabel data sets
        target = given.get("label") if isinstance(given, dict) else given  # beside confidence and attributes
        if target is None:
            continue
        if classes is not None and isinstance(target, int) and not isinstance(target, bool):
            if not 0 <= target < len(classes):
                raise ValueError(f"{place}: {target} is no class, because classes count from 0 to {len(classes) - 1}")
            target = classes[target]
        yield Entry(place, as_name(name, place), as_label(target, place), "stem")


def write(items: Sequence[Item], classes: Sequence[str], folder: str) -> str:
    """Make the file, in which images without a label are null.

    Raises:
        ValueError: two images differ by their endings alone.
    """
    number = {name: i for i, name in enumerate(classes)}
    labels: dict[str, int | None] = {}
    seen: dict[str, str] = {}
    for item in items:
        stem = os.path.splitext(item.name)[0]
        if stem in seen:
            raise ValueError(f"{seen[stem]} and {item.name} differ by their endings alone, which this format omits")
        seen[stem] = item.name
        labels[stem] = None if item.label is None else number[item.label]
    return json.dumps({"classes": list(classes), "labels": labels}, ensure_ascii=False, indent=1) + "\n"
