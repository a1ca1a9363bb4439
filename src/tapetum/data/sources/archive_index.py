"""What lies where in an archive: found by reading it once, and kept in the cache folder.

A kept index is found again by the archive's place, size and time of change (or the tag that its store gives it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.data.images.cache_folder import CACHE_ADVICE, cache_folder, mark_used
from tapetum.data.images.contents import MEMBERS, Blob
from tapetum.data.label_formats.entries import is_printable
from tapetum.system.files import only_one, whole_file
from tapetum.system.notices import ReportProgress

_FORMAT = 1  # increase when scanning or the file's layout changes, so that old indices are no longer found
_END = "\0"  # in no name, label or path of a file

LABELS = ("cls", "json", "txt")
"""Endings of WebDataset's members that may hold the label of an image, in the order in which they are asked."""


@dataclass(frozen=True)
class Archive:
    """The image files in an archive."""

    names: tuple[str, ...]
    """N names, sorted."""
    entries: npt.NDArray[np.void]
    """(N,) where each lies, of dtype `MEMBERS`; the number of the file is 0."""
    labels: dict[str, tuple[str, ...]]
    """One of `LABELS` -> the text of that member beside each image, "" if there is none; or a column -> its values."""


def archive_of(
    names: Sequence[str], entries: Sequence[tuple[int, ...]], labels: dict[str, list[str]] | None = None
) -> Archive:
    """Sort what was found in an archive by name; of members with one name, the last counts, as when it is unpacked."""
    last = {name: i for i, name in enumerate(names)}
    order = [last[name] for name in sorted(last)]
    found = np.array([tuple(entry) for entry in entries], dtype=MEMBERS)
    kept = {kind: tuple(texts[i] for i in order) for kind, texts in (labels or {}).items() if any(texts)}
    return Archive(tuple(names[i] for i in order), found[np.array(order, dtype=np.int64)], kept)


def indexed(blobs: Sequence[Blob], scan: Callable[[Blob], Archive], report: ReportProgress | None) -> list[Archive]:
    """Return what is in each archive, from the cache folder or by scanning it.

    Args:
        blobs: the archives.
        scan: reads one.
        report: called with (archives scanned, all archives) if one had to be scanned.

    Raises:
        ValueError: an archive is damaged.
        Unreachable: it cannot be read.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, blob in enumerate(blobs, start=1):
        kept = folder / f"archive-{_key(blob)}.npz"
        archive = _read(kept)
        if archive is None:
            with only_one(folder / "archives.lock"):
                archive = _read(kept)  # another process may have scanned it meanwhile
                if archive is None:
                    archive = scan(blob)
                    _write(kept, archive)
            if report is not None:
                report(number, len(blobs))
        found.append(archive)
    return found


def _key(blob: Blob) -> str:
    place = blob.place.resolve() if isinstance(blob.place, Path) else blob.place
    text = f"{_FORMAT} {blob.size} {blob.stamp} {place}"
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _write(path: Path, archive: Archive) -> None:
    arrays: dict[str, Any] = {f"label_{kind}": _packed(texts) for kind, texts in archive.labels.items()}
    with whole_file(path, CACHE_ADVICE) as partial, partial.open("wb") as file:
        np.savez(file, entries=archive.entries, names=_packed(archive.names), **arrays)


def _read(path: Path) -> Archive | None:
    """Read a kept index; None if there is none, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            kinds = [name.removeprefix("label_") for name in arrays.files if name.startswith("label_")]
            labels = {kind: _unpacked(arrays[f"label_{kind}"]) for kind in kinds}
            archive = Archive(_unpacked(arrays["names"]), arrays["entries"], labels)
    except Exception:  # numpy's and zipfile's readers raise nearly any type on damaged files
        return None
    mark_used(path)
    columns = (archive.names, *labels.values())
    is_whole = archive.entries.dtype == MEMBERS and all(len(column) == len(archive.entries) for column in columns)
    return archive if is_whole else None


def _packed(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Text as bytes, because arrays of text take four bytes for each letter of the longest."""
    return np.frombuffer("".join(text + _END for text in texts).encode(errors="surrogateescape"), dtype=np.uint8)


def _unpacked(packed: npt.NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(packed.tobytes().decode(errors="surrogateescape").split(_END)[:-1])


def label_text(kind: str, content: bytes, where: str) -> str:
    """Return the class that a member of WebDataset names; "" for none.

    Args:
        kind: one of `LABELS`: the whole text of `cls`; the field label, class or cls of `json`; the text of `txt` if it
            is a single short line, because longer ones are captions.
        content: its bytes.
        where: what errors call it.

    Raises:
        ValueError: it is no text, or no JSON.
    """
    try:
        text = content.decode("utf-8-sig").strip()
        if kind == "json":
            fields = json.loads(text)
            known = fields if isinstance(fields, dict) else {}
            value = next((known[name] for name in ("label", "class", "cls") if known.get(name) is not None), "")
            text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} holds no {'JSON' if kind == 'json' else 'text'} in UTF-8 ({error})") from error
    if kind == "txt" and ("\n" in text or len(text) > 100):
        return ""
    if not is_printable(text):
        raise ValueError(f"{where} holds a label that cannot be printed: write the name of a class")
    return "" if text == "-1" else text
