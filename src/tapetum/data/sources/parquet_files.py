"""Finds the images in a Parquet file, one in each row, and the labels in other columns, as Hugging Face writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tapetum.data.images.contents import IN_ROW, MEMBERS, Blob
from tapetum.data.images.parquet_rows import features_of, image_column, open_parquet
from tapetum.data.sources.archive_index import Archive
from tapetum.data.sources.tables import class_name

_LABELS = ("label", "labels", "class", "category", "species", "target", "fine_label", "coarse_label")


def scan_parquet(blob: Blob) -> Archive:
    """Find the images in a Parquet file, in the order of its rows.

    An image is named by its path, if the rows have some that differ, or else by the number of its row. Its size is that
    of its row group, because its own is not known before it is read.

    Raises:
        ValueError: it is damaged, has no column of images, or a label is no class.
        Unreachable: it cannot be read.
    """
    with open_parquet(blob) as file:
        image, is_struct = image_column(file.schema_arrow, blob.place)
        classes = _label_columns(file.schema_arrow)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        entries = [_rows(number, group, image) for number, group in enumerate(groups)]
        paths = _paths(file, image) if is_struct else []
        columns = file.read(columns=list(classes), use_threads=False)
        labels = {
            name: tuple(_texts(columns.column(name).to_pylist(), names, f"{blob.place}, column {name}"))
            for name, names in classes.items()
        }
    found = np.concatenate(entries) if entries else np.empty(0, MEMBERS)
    named = all(paths) and len(set(paths)) == len(found) and len(found) > 0
    names = paths if named else [str(row) for row in range(len(found))]
    return Archive(tuple(names), found, labels)


def _rows(number: int, group: Any, image: str) -> np.ndarray:
    columns = (group.column(i) for i in range(group.num_columns))
    size = sum(c.total_compressed_size for c in columns if c.path_in_schema.split(".")[0] == image)
    rows = np.zeros(group.num_rows, dtype=MEMBERS)
    rows["start"], rows["length"], rows["size"], rows["kind"] = number, np.arange(group.num_rows), size, IN_ROW
    return rows


def _paths(file: Any, image: str) -> list[str]:
    """Return the path of each image without the folders of the machine that wrote it; "" where there is none."""
    inner = [field.name for field in file.schema_arrow.field(image).type]
    if "path" not in inner:
        return []
    rows = file.read(columns=[f"{image}.path"], use_threads=False).column(0).to_pylist()
    paths = [(row or {}).get("path") or "" for row in rows]
    return [PurePosixPath(path).name if path.startswith("/") else path.removeprefix("./") for path in paths]


def _label_columns(schema: Any) -> dict[str, list[str] | None]:
    """Return the columns that may hold labels, each with the names of its classes, or None if its values name them."""
    found: dict[str, list[str] | None] = {}
    features = features_of(schema)
    for field in schema:
        names = features.get(field.name, {}).get("names")
        is_encoded = str(field.type).startswith("dictionary")
        kind = str(field.type.value_type if is_encoded else field.type)
        is_number = re.fullmatch(r"u?int\d+", kind) is not None
        if isinstance(names, list) and is_number:
            found[field.name] = [str(name) for name in names]
        elif field.name.lower() in _LABELS and (is_number or kind in ("string", "large_string", "string_view")):
            found[field.name] = None
    return found


def _texts(values: Sequence[Any], names: Sequence[str] | None, where: str) -> list[str]:
    return [class_name(value, names, f"{where}, row {row}") or "" for row, value in enumerate(values)]
