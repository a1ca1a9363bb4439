"""The folder of caches: where it is, notes with a checksum in it, and what is removed from it.

images-KEY/           decoded images, and images-KEY.partial while they are being decoded
unreadable-KEY.json   files that cannot be decoded
archive-KEY.npz       what lies where in a tar, zip or Parquet file
*.lock                empty; whoever makes one of these locks it
"""

import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tapetum.system.files import write_text
from tapetum.system.notices import notify

FORMAT = 3
"""Increased when decoding or the layout of the folder changes: caches of older formats are removed."""
NOTE = "cache.json"
"""Name of the note in a folder of decoded images; without it, the folder is not finished."""
CACHE_ADVICE = "run the same command again, or set TAPETUM_CACHE to a folder on another disk"
_UNUSED_DAYS = 7
"""How long caches are kept that nothing has used: images that are gone may be on a disk that is elsewhere just now."""
_PERHAPS_UNUSED_DAYS = 90
"""The same for caches that may be in use: of some of the images in a folder, or of an archive."""


def cache_folder() -> Path:
    """Return the folder for caches: $TAPETUM_CACHE, else $XDG_CACHE_HOME/tapetum, else ~/.cache/tapetum."""
    if chosen := os.environ.get("TAPETUM_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tapetum"


def write_note(path: Path, root: Any, content: Mapping[str, Any]) -> None:
    """Write a note about images below `root`, if that is a path, as JSON with a checksum, whole or not at all."""
    note = json.loads(json.dumps({"format": FORMAT, "root": _place(root), **content}))  # as it will be read
    write_text(path, json.dumps(note | {"crc32": _checksum(note)}) + "\n", CACHE_ADVICE)


def _place(root: Any) -> str:
    return str(root.resolve()) if isinstance(root, Path) else ""


def read_note(path: Path) -> dict[str, Any] | None:
    """Read a note, and remember that it was used; None if there is none, or if it has changed since it was written."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        is_whole = note.pop("crc32") == _checksum(note)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    mark_used(path)
    return note if is_whole else None


def mark_used(path: Path) -> None:
    """Remember that a file of the cache was used."""
    with suppress(OSError):  # a folder that may only be read
        os.utime(path)


def _checksum(note: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(note, sort_keys=True).encode())


def clean_up(folder: Path, root: Any, shrink_to: int | None, names: str) -> None:
    """Remove caches that are of no more use; say so, with the room that this makes.

    These are caches of older formats; if unused for a week, those whose images are gone or, by the same names, have
    changed; and, if unused for 90 days, lists of archives, and what else was decoded of images below `root`.

    Args:
        folder: where caches are kept.
        root, shrink_to: of the images that are about to be decoded.
        names: hash of their names; "" if images in the same place may have the same names.
    """
    about = {"root": _place(root), "shrink_to": shrink_to, "names": names}
    removed = [_remove(path) for path in sorted(folder.iterdir()) if _is_useless(path, about)]
    if removed:
        notify(f"removed {len(removed)} old caches ({sum(removed) / 2**20:.0f} MiB) from {folder}")


def _is_useless(path: Path, made: Mapping[str, Any]) -> bool:
    if path.suffix == ".partial" and path.name.startswith("images-"):
        return _days_unused(path / "done") > _UNUSED_DAYS
    if path.name.startswith("archive-") and path.suffix == ".npz":
        return _days_unused(path) > _PERHAPS_UNUSED_DAYS
    if not path.name.startswith("images-" if path.is_dir() else "unreadable-") or path.suffix not in ("", ".json"):
        return False
    note = path / NOTE if path.is_dir() else path
    try:
        about = json.loads(note.read_text(encoding="utf-8"))
        version, root = about.get("format", 0), about.get("root", "")
        is_alike = all(about.get(name, -1) == made[name] for name in ("root", "shrink_to"))
        is_replaced = is_alike and made["names"] and about.get("names") == made["names"]
        is_old = version == FORMAT and root and (is_alike or not os.path.exists(root))
    except (OSError, ValueError, TypeError, AttributeError):
        return False  # damaged: made anew when it is needed
    most = _PERHAPS_UNUSED_DAYS if is_alike and not is_replaced else _UNUSED_DAYS
    return version < FORMAT or (is_old and _days_unused(note) > most)


def _days_unused(path: Path) -> float:
    try:
        return (time.time() - path.stat().st_mtime) / 86400
    except OSError:
        return 0.0


def _remove(path: Path) -> int:
    """Delete a file or folder; returns how many bytes it had."""
    files = [path] if path.is_file() else list(_files(path))
    size = sum(file.stat().st_size for file in files if file.exists())
    with suppress(OSError):  # another process is faster, or it may not be deleted
        path.unlink() if path.is_file() else shutil.rmtree(path)
    return size


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
