"""Folders that other tools export whole: images, and a file of labels at a place that the tool chose.

- `data/` and `labels.json`: FiftyOne (`tapetum.data.label_formats.fiftyone`, or COCO's JSON);
- `images/` and `annotations.xml`, or `annotations/instances_default.json`: CVAT;
- images beside `metadata.csv` or `metadata.jsonl`: Hugging Face's `imagefolder`, if a column is called `label`.
"""

from pathlib import Path

from tapetum.data.label_formats.formats import first_fields
from tapetum.data.label_formats.imagefolder import names_its_labels
from tapetum.data.label_formats.rows import rows_of_lines

_LAYOUTS = (
    ("data", "labels.json"),
    ("images", "annotations.xml"),
    ("images", "annotations/instances_default.json"),
)
_HEAD = 1 << 16  # bytes


def find_exported(folder: Path) -> tuple[Path, Path] | None:
    """Return the folder of images and the file of labels of an exported data set, or None if the folder is none."""
    for images, labels in _LAYOUTS:
        if (folder / images).is_dir() and (folder / labels).is_file():
            return folder / images, folder / labels
    for name in ("metadata.csv", "metadata.jsonl"):
        if (folder / name).is_file() and _has_labels(folder / name):
            return folder, folder / name
    return None


def _has_labels(metadata: Path) -> bool:
    with metadata.open("rb") as file:
        head = file.readline(_HEAD)
    if metadata.suffix == ".csv":
        return names_its_labels(first_fields(head))
    try:
        return any(row is not None and names_its_labels(row) for _, row in rows_of_lines(head.decode("utf-8-sig")))
    except ValueError:
        return False
