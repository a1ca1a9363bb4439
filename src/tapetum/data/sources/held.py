"""Images that are no files of this machine: in zip, tar and Parquet files, and below addresses such as `s3://bucket`.

Their names are those that they would have if they were unpacked, without folders that hold everything else. So a zip of
a folder, and that folder on another machine, are the same data to a run as the folder itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tapetum.data.images.contents import Blob, Members, RemoteFiles
from tapetum.data.images.decoding import IMAGE_SUFFIXES
from tapetum.data.images.stores import FileStore
from tapetum.data.labels.labels import Labels, labels_from_names
from tapetum.data.sources.archive_index import LABELS, Archive, indexed
from tapetum.data.sources.arrays import NoTestPart
from tapetum.data.sources.folders import image_names, is_image_name
from tapetum.data.sources.parquet_files import scan_parquet
from tapetum.data.sources.tar_files import scan_tar
from tapetum.data.sources.zip_files import scan_zip
from tapetum.system.addresses import Address, Place
from tapetum.system.notices import progress_notices
from tapetum.system.remote import Found, list_below

Part = Literal["train", "test", "all"]

_SCANS: dict[str, Callable[[Blob], Archive]] = {".tar": scan_tar, ".zip": scan_zip, ".parquet": scan_parquet}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
TEST_NAMES = ("test", "val", "valid", "validation")
"""What the folder or the files of a test part may be called."""
_MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Held:
    """Images that are no files here."""

    store: FileStore
    beside: Place
    """Where the names would lie if they were unpacked beside their archive: what label files may call them by."""
    labels: dict[str, tuple[str, ...]]
    """Kind of label, such as "cls", "folder" or a column -> the class of each image, "" if it has none."""
    described: str

    def own(self, kind: str | None = None) -> Labels | None:
        """Return the labels that the images come with; None if there are none.

        Args:
            kind: which of `labels`; None for the first of "cls", "json", "txt", "label", the only column, and folders.

        Raises:
            ValueError: there is no such kind, there are several columns, or only one class.
        """
        columns = [name for name in self.labels if name != "folder" and name not in LABELS]
        if kind is None:
            known = [name for name in (*LABELS, "label") if name in self.labels and not self._are_captions(name)]
            if not known and len(columns) > 1:
                raise ValueError(
                    f"{self.store.root} has labels in the columns {', '.join(columns)}: name one as labels, for "
                    f"example ':{columns[0]}'"
                )
            kind = next(iter(known or columns), "folder")
            if kind not in self.labels:
                return None
        if kind not in self.labels:
            raise ValueError(
                f"{self.store.root} has no labels :{kind}: choose from {', '.join(f':{k}' for k in self.labels)}"
            )
        try:
            return labels_from_names(self.store.names, [text or None for text in self.labels[kind]])
        except ValueError as error:
            raise ValueError(
                f"{self.store.root}: {error}: give a CSV of path,label lines as labels, or 'none' for no labels"
            ) from None

    def _are_captions(self, kind: str) -> bool:
        """Whether most texts are there once only, so that they describe images rather than classes."""
        texts = [text for text in self.labels[kind] if text]
        return kind == "txt" and 2 * len(set(texts)) > len(texts)


def find_held(place: Place, part: Part) -> Held | None:
    """Open what an address names, or a zip, tar or Parquet file, or several tar files named as `{000..012}.tar`.

    Args:
        place: where; a folder on this machine is not looked into.
        part: "train" and "test" take the images whose folder, or whose file in a folder of tar or Parquet files, is
            named so, if there are both; "test" may also be called val, valid or validation. "all" takes all.

    Returns:
        None if it is something else on this machine.

    Raises:
        NoTestPart: there is no test part.
        ValueError: there is nothing, or a file is damaged.
        Unreachable: another machine does not answer.
    """
    shards = _expanded(place)
    if shards[0].suffix.lower() in _SCANS:
        if isinstance(place, Path) and len(shards) == 1 and not place.is_file():
            return None
        root = place.parent if len(shards) > 1 else place
        return _of_shards(root, [Blob.at(shard) for shard in shards], place.name, part)
    return _of_address(place, part) if isinstance(place, Address) else None


def held_in_folder(folder: Path, part: Part) -> Held | None:
    """Open the tar, zip or Parquet files in a folder, or in the folder `data` in it, as the Hub has them.

    Returns:
        None if there are none, or if there are images below the folder.
    """
    found = _archives_in(folder)
    if not found and (folder / "data").is_dir():
        folder, found = folder / "data", _archives_in(folder / "data")
    if not found or next(image_names(folder), None) is not None:
        return None
    blobs = [Blob.at(folder / name) for name in _of_part(found, part, folder)]
    return _of_shards(folder, blobs, folder.name or str(folder), "all")


def _archives_in(folder: Path) -> list[str]:
    found = (path for path in folder.iterdir() if _is_archive(path.name) and not path.name.startswith("."))
    return sorted(path.name for path in found if path.is_file())  # asked last: a folder may hold a million images


def _is_archive(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _SCANS


def _expanded(place: Place) -> list[Place]:
    """Write out `{000..012}`: the numbers from the first to the last, as long as the first."""
    found = _RANGE.search(place.name)
    if found is None:
        return [place]
    first, last = found.groups()
    if not 0 <= int(last) - int(first) < _MOST_SHARDS:
        raise ValueError(f"{place} names no files, or too many: write the first number and the last, as {{000..012}}")
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    return [place.parent / (place.name[: found.start()] + number + place.name[found.end() :]) for number in numbers]


def _of_address(address: Address, part: Part) -> Held:
    if address.suffix.lower() in IMAGE_SUFFIXES:
        blob = Blob.at(address)
        found = [Found(address.name, blob.size, blob.stamp)]
        address = address.parent
    else:
        found = list_below(address)
    images = [file for file in found if is_image_name(file.name)]
    by_name = {file.name: file for file in found}
    shards = list(filter(_is_archive, by_name))
    if shards and sum(by_name[name].size for name in shards) > sum(file.size for file in images):
        blobs = [Blob(address / name, *by_name[name][1:]) for name in _of_part(shards, part, address)]
        return _of_shards(address, blobs, str(address), "all")
    if not images:
        kinds = " ".join(sorted(IMAGE_SUFFIXES | _SCANS.keys()))
        raise ValueError(f"there are no images below {address}: give an address that has some (recognised: {kinds})")
    inner, chosen = _within("", [file.name for file in images], part, address)
    root, kept = address / inner, [images[i] for i in chosen]
    names = [file.name[len(inner) + 1 if inner else 0 :] for file in kept]
    stats = np.array([(file.size, file.stamp) for file in kept], dtype=np.int64).reshape(-1, 2)
    store = FileStore(root, names, contents=RemoteFiles(root, names, stats))
    return Held(store, root, _folders(names), str(root))


def _of_shards(root: Place, blobs: Sequence[Blob], described: str, part: Part) -> Held:
    scan = _SCANS[blobs[0].place.suffix.lower()]
    archives = indexed(blobs, scan, progress_notices("listed", "archives"))
    names = [name for archive in archives for name in archive.names]
    entries = np.concatenate([archive.entries for archive in archives])
    entries["file"] = np.repeat(np.arange(len(archives)), [len(archive.names) for archive in archives])
    if not names:
        raise ValueError(f"there are no images in {described}: recognised are {' '.join(sorted(IMAGE_SUFFIXES))}")
    kinds = {kind for archive in archives for kind in archive.labels}
    labels = {
        kind: [text for archive in archives for text in archive.labels.get(kind, ("",) * len(archive.names))]
        for kind in sorted(kinds)
    }
    inner = ""
    if scan is not scan_parquet:
        inner, chosen = _within(_common(names), names, part, root)
        names = [names[i][len(inner) + 1 if inner else 0 :] for i in chosen]
        entries, labels = entries[chosen], {kind: [texts[i] for i in chosen] for kind, texts in labels.items()}
        labels |= {kind: list(texts) for kind, texts in _folders(names).items()}
    elif part == "test":
        raise NoTestPart(f"{described} has no test part: name a test source")
    if len(set(names)) < len(names):  # each archive counts from 0
        names = [f"{os.path.splitext(blobs[e].place.name)[0]}/{n}" for e, n in zip(entries["file"].tolist(), names)]
    order = (
        np.arange(len(names)) if scan is scan_parquet else np.array(sorted(range(len(names)), key=names.__getitem__))
    )
    store = FileStore(
        root / inner if inner else root, [names[i] for i in order], contents=Members(blobs, entries[order])
    )
    beside = blobs[0].place.parent / inner if inner else root
    return Held(store, beside, {kind: tuple(texts[i] for i in order) for kind, texts in labels.items()}, described)


def _folders(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The first folder of each name, as labels; nothing if no name has one."""
    if not any("/" in name for name in names):
        return {}
    return {"folder": tuple(name.split("/", 1)[0] if "/" in name else "" for name in names)}


def _within(inner: str, names: Sequence[str], part: Part, where: object) -> tuple[str, list[int]]:
    """Return the folder of a part, below the folder `inner` that holds all names, and where the part's names are."""
    chosen = list(range(len(names)))
    tops = {name[len(inner) + 1 if inner else 0 :].split("/")[0] for name in names}
    tests = [test for test in TEST_NAMES if test in tops]
    if "train" in tops and tests and part != "all":
        inner = f"{inner}/{'train' if part == 'train' else tests[0]}".lstrip("/")
        chosen = [i for i in chosen if names[i].startswith(f"{inner}/")]
    elif part == "test":
        raise NoTestPart(f"{where} has no test part: put images into folders train/ and test/, or name a test source")
    return inner, chosen


def _common(names: Sequence[str]) -> str:
    """The folders that all names begin with."""
    folders = [name.rpartition("/")[0] for name in (min(names), max(names))]
    parts = []
    for one, other in zip(*(folder.split("/") for folder in folders)):
        if one != other or not one:
            break
        parts.append(one)
    return "/".join(parts)


def _of_part(names: Sequence[str], part: Part, where: object) -> list[str]:
    """The archives of a part, by their names: `train-00000.tar`, `data/test-00000-of-00001.parquet`.

    Raises:
        ValueError: they are of several kinds.
        NoTestPart: there is no test part.
    """
    kinds = sorted({os.path.splitext(name)[1].lower() for name in names})
    if len(kinds) > 1:
        raise ValueError(f"{where} holds {' and '.join(kinds)} files: give those of one kind, such as {names[0]}")
    by_part = {
        word: [name for name in names if re.search(rf"(^|/){word}([-_./]|$)", name)] for word in ("train", *TEST_NAMES)
    }
    tests = next((by_part[word] for word in TEST_NAMES if by_part[word]), [])
    if part == "all":
        return list(names)
    if by_part["train"] and tests:
        return by_part["train"] if part == "train" else tests
    if part == "test":
        raise NoTestPart(f"{where} has no test part: name files train-... and test-..., or name a test source")
    return list(names)
