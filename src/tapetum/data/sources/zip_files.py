"""Finds the image files in a zip archive by its central directory, which lies at its end; nothing is unpacked."""

from __future__ import annotations

import itertools
import stat
import zipfile

from tapetum.data.images.contents import IN_ZIP, Blob
from tapetum.data.sources.archive_index import Archive, archive_of
from tapetum.data.sources.folders import is_image_name
from tapetum.system.strangers import short_reason

_LONGEST_HEADER = 30 + 2 * 65535  # bytes of the header that precedes a member


def scan_zip(blob: Blob) -> Archive:
    """Find the images in a zip file.

    Raises:
        ValueError: it is damaged or cut off.
        Unreachable: it cannot be read.
    """
    try:
        with blob.open() as file, zipfile.ZipFile(file) as archive:
            members, end = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise ValueError(f"{blob.place} is no whole zip file ({short_reason(error)}): fetch it again") from error
    starts = sorted({member.header_offset for member in members} | {end})
    following = dict(itertools.pairwise(starts))
    names, entries = [], []
    for member in members:
        name = member.filename.replace("\\", "/").removeprefix("./").lstrip("/")
        kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where it was not made on Unix
        if not is_image_name(name) or member.is_dir() or kind not in (0, stat.S_IFREG):
            continue
        # What reads it finds in its header where it begins; up to the next member, there is nothing else.
        start, most = member.header_offset, _LONGEST_HEADER + member.compress_size
        length = min(following.get(start, start) - start, most)
        if start < 0 or start + length > blob.size:
            raise ValueError(f"{blob.place} is no whole zip file ({name} lies outside): fetch it again")
        names.append(name)
        entries.append((0, start, length, member.file_size, IN_ZIP, member.CRC))
    return archive_of(names, entries)
