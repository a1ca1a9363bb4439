"""The images of a folder, packed: as zip, tar, WebDataset's shards and Parquet in Hugging Face's layout."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ash", "birch", "cedar")


def save_photos(folder: Path, per_class: int = 3, classes: Sequence[str] = CLASSES) -> Path:
    """Write JPEG files of differing sizes into a folder per class, no two the same; returns the folder."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            height, width = 20 + number, 24 + label
            ramp = np.arange(height * width * 3).reshape(height, width, 3) * (7 * label + number + 1)
            Image.fromarray((ramp % 256).astype(np.uint8)).save(folder / name / f"{number}.jpg", quality=95)
    return folder


def names_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))


def as_zip(folder: Path, path: Path, method: int = zipfile.ZIP_STORED, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names_of(folder):
            archive.write(folder / name, inside + name)
    return path


def as_tar(folder: Path, path: Path, inside: str = "") -> Path:
    with tarfile.open(path, "w") as archive:
        for name in names_of(folder):
            archive.add(folder / name, inside + name)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def as_shards(folder: Path, target: Path, per_shard: int, label: Callable[[str], tuple[str, bytes]]) -> Path:
    """Write shards 00.tar, 01.tar, ...: KEY.jpg and what `label` makes of the class, (ending, content)."""
    target.mkdir(parents=True, exist_ok=True)
    names = names_of(folder)
    for shard, start in enumerate(range(0, len(names), per_shard)):
        with tarfile.open(target / f"{shard:02}.tar", "w") as archive:
            for number, name in enumerate(names[start : start + per_shard], start):
                add(archive, f"{number:06}.jpg", (folder / name).read_bytes())
                ending, content = label(name.split("/")[0])
                add(archive, f"{number:06}.{ending}", content)
                add(archive, f"{number:06}.pyd", b"\x80\x04 a pickle, which nobody opens")
    return target


def as_parquet(folder: Path, path: Path, rows_per_group: int = 2, paths: bool = True, describe: bool = True) -> Path:
    """Write what `datasets` writes for columns image and label; the classes are the folders."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = names_of(folder)
    classes = sorted({name.split("/")[0] for name in names})
    images = [{"bytes": (folder / name).read_bytes(), "path": name if paths else None} for name in names]
    labels = [classes.index(name.split("/")[0]) for name in names]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels, pa.int64())})
    if describe:
        features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path
