"""Finds the image files in a tar archive, and the labels beside them if it is a shard of WebDataset.

A shard holds the parts of a sample one after the other, under one name up to the first dot of its last part:
`000017.jpg`, `000017.cls`. Only image files, and of `.cls`, `.json` and `.txt` the text, are ever read: no array, no
pickle. Nothing is unpacked, so links, devices and names that lead upwards do no harm; all but regular files is skipped.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from tapetum.data.images.contents import STORED, Blob
from tapetum.data.sources.archive_index import LABELS, Archive, archive_of, label_text
from tapetum.data.sources.folders import is_image_name
from tapetum.system.strangers import short_reason

_LONGEST_LABEL = 2**20  # bytes; captions and other fields may be long
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # how files of gzip, bzip2, xz and zstd begin


def scan_tar(blob: Blob) -> Archive:
    """Find the images in a tar file.

    Raises:
        ValueError: it is damaged, cut off or compressed, or a label beside an image is faulty.
        Unreachable: it cannot be read.
    """
    names: list[str] = []
    entries: list[tuple[int, ...]] = []
    texts: dict[str, dict[str, str]] = {kind: {} for kind in LABELS}
    faults: dict[str, str] = {}
    with blob.open() as file:
        for member in _members(file, blob):
            name = member.name.removeprefix("./").lstrip("/")
            if is_image_name(name):
                names.append(name)
                entries.append((0, member.offset_data, member.size, member.size, STORED, 0))
            elif (kind := name.rpartition(".")[2].lower()) in LABELS and member.size <= _LONGEST_LABEL:
                file.seek(member.offset_data)
                try:
                    texts[kind][_key(name)] = label_text(kind, file.read(member.size), f"{blob.place}/{name}")
                except ValueError as error:
                    faults[_key(name)] = str(error)
    for name in names if faults else ():  # what is beside no image, such as a README.txt, is no label
        if _key(name) in faults:
            raise ValueError(faults[_key(name)])
    return archive_of(names, entries, {kind: [known.get(_key(n), "") for n in names] for kind, known in texts.items()})


def _members(file: BinaryIO, blob: Blob) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of an archive in their order."""
    try:
        archive, reached = tarfile.TarFile(fileobj=file), -1
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined] # it would keep all that it has seen
            end = member.offset_data + (member.size if member.isreg() else 0)
            if not reached < member.offset_data <= end <= blob.size:
                raise ValueError(f"{member.name} does not lie inside")
            reached = member.offset_data
            if member.isreg() and not member.issparse():
                yield member
        file.seek(archive.offset)  # at a header that it cannot read, tarfile ends as if the archive did
        if (rest := file.read(tarfile.BLOCKSIZE)) and (len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0")):
            raise ValueError(f"what begins at byte {archive.offset:,} is no header")
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        if blob.read(0, min(blob.size, 6)).startswith(_COMPRESSED):
            raise ValueError(
                f"{blob.place} is compressed, so its images cannot be read one by one: unpack it to a .tar or a folder"
            ) from error
        raise ValueError(f"{blob.place} is no whole tar file ({short_reason(error)}): fetch it again") from error


def _key(name: str) -> str:
    folder, slash, bare = name.rpartition("/")
    return folder + slash + bare.partition(".")[0]
