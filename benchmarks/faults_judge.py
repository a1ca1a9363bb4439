"""What a fault has left behind: whole files only, one sentence, and later the same bits as without the fault."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from faults_processes import Ended
from PIL import Image
from safetensors import SafetensorError, safe_open

from tapetum.engine.callbacks import TIME_COLUMNS
from tapetum.system.interruption import STOPPED

_TEMPORARY = re.compile(r"(^|/)(\.tmp[^/]*|[^/]*\.partial(\.json|\.json\.new)?|run\.lock|[^/]*\.new)(/|$)")
"""Names that files have before they are complete, or only while somebody writes."""
_GROWING = re.compile(r"(^|/)(metrics\.csv|[^/]*\.lock|[^/]*\.log)$")
"""Files that grow under their own names; a kill may cut their last line, which readers leave out."""
_CHECKPOINT = re.compile(r"(?P<folder>.*(^|/)checkpoints)/(?P<step>step-\d+)")
_OF_THE_CLOCK = frozenset({*TIME_COLUMNS, "seconds", "peak_memory_mb"})
"""Keys of JSON that differ between two undisturbed runs."""
SENTENCES = (1, 2, STOPPED)
"""Exit codes that come with a sentence on stderr."""

Snapshot = dict[str, str]
"""Path in a folder -> hash of what the file there says, but for times."""


def snapshot(folder: Path) -> Snapshot:
    """Hash all files of a folder."""
    return {str(path.relative_to(folder)): _digest(path) for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        for part in _said(path):
            digest.update(part)
    except (ValueError, KeyError, SafetensorError):
        return "damaged: " + hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return digest.hexdigest()


def _said(path: Path) -> Iterable[bytes]:
    """What a file says, but for times."""
    if path.name == "metrics.csv":
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        return [repr([(key, row[key]) for key in row if key not in TIME_COLUMNS]).encode() for row in rows]
    if path.suffix == ".safetensors":
        return _tensors(path)
    if path.suffix == ".json":
        return [_without_times(json.loads(path.read_text()))]
    return [path.read_bytes()]


def _tensors(path: Path) -> Iterator[bytes]:
    with safe_open(path, "np") as file:
        for key, text in sorted((file.metadata() or {}).items()):
            yield key.encode() + (_without_times(json.loads(text)) if text.startswith("{") else text.encode())
        for name in sorted(file.keys()):
            array = file.get_tensor(name)
            yield f"{name} {array.dtype} {array.shape}".encode() + array.tobytes()


def _without_times(content: Any) -> bytes:
    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: kept(item) for key, item in sorted(value.items()) if key not in _OF_THE_CLOCK}
        return [kept(item) for item in value] if isinstance(value, list) else value

    return json.dumps(kept(content)).encode()


def parts_under_final_names(folder: Path, known: Iterable[Snapshot]) -> list[str]:
    """Name the files that are not whole, though their names say that they are.

    Args:
        folder: as the fault has left it.
        known: what whole files say, before the command and after it.
    """
    found = []
    for path in _files(folder):
        name = str(path.relative_to(folder))
        if _TEMPORARY.search(name) or _GROWING.search(name):
            continue
        if any(_digest(path) == one.get(name) for one in known) or _is_whole(path):
            continue
        found.append(name)
    return found


def _is_whole(path: Path) -> bool:
    """Whether a file that is in neither state, such as a checkpoint that has been deleted since, can be read."""
    try:
        if path.suffix == ".safetensors":
            return bool([*_tensors(path)])
        if path.suffix == ".json":
            return json.loads(path.read_text()) is not None
        if path.suffix in (".yaml", ".yml"):
            return yaml.safe_load(path.read_text()) is not None
        if path.suffix in (".npz", ".zip", ".pth"):
            return zipfile.ZipFile(path).testzip() is None
        if path.suffix in (".png", ".jpg"):
            Image.open(path).load()
            return True
        return path.suffix == ".html" and path.read_text().rstrip().endswith("</html>")
    except (OSError, ValueError, SafetensorError, yaml.YAMLError, zipfile.BadZipFile):
        return False


def difference(found: Snapshot, wanted: Snapshot, changing: Iterable[str]) -> str:
    """Tell how a folder differs from what it should be; empty if it does not.

    Args:
        changing: files that differ between undisturbed runs, which need only be there.
    """
    found, wanted = _spares_alike(found), _spares_alike(wanted)
    if missing := [name for name in wanted if name not in found]:
        return f"missing: {', '.join(missing[:3])}"
    if further := [name for name in found if name not in wanted]:
        return f"left behind: {', '.join(further[:3])}"
    other = [name for name in wanted if found[name] != wanted[name] and name not in changing]
    return f"differs: {', '.join(other[:3])}" if other else ""


def _spares_alike(files: Snapshot) -> Snapshot:
    """Name and count checkpoints before the last alike: which one is kept depends on where a run was stopped."""
    steps: dict[str, set[str]] = {}
    for found in filter(None, map(_CHECKPOINT.match, files)):
        steps.setdefault(found["folder"], set()).add(found["step"])
    alike = {}
    for name, digest in files.items():
        found = _CHECKPOINT.match(name)
        place = 0 if found is None else sorted(steps[found["folder"]], reverse=True).index(found["step"])
        if found is None or place == 0:
            alike[name] = digest
        else:
            alike[f"{found['folder']}/spare {place}{name[found.end() :]}"] = ""
    return alike


def wrong_end(ended: Ended, expected: Iterable[int] = ()) -> str:
    """Tell what is wrong with the way a command ended; empty if nothing is.

    Args:
        expected: codes that need no sentence, such as -9 after kill -9.
    """
    if ended.hung:
        return "hangs"
    if "Traceback (most recent call last)" in ended.errors:
        return f"traceback: {ended.errors.strip().splitlines()[-1][:200]}"
    for code in ended.codes:
        if code == 0 or code in expected:
            continue
        if code not in SENTENCES:
            return f"exit code {code}"
        if not (sentences := [line for line in ended.errors.splitlines() if line.startswith("tapetum: ")]):
            return "no sentence"
        if "[Errno" in sentences[-1]:
            return f"no plain sentence: {sentences[-1][:200]}"
    return ""


def fresh_copy(template: Path, folder: Path) -> None:
    """Make a folder hold what a template holds, with the same times; the folder stays, as a disk may be there."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, *(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink())):
        place.chmod(0o755)
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(template, folder, dirs_exist_ok=True)


def allow_writing(folder: Path) -> None:
    """Undo what took permissions away."""
    for place in (folder, *folder.rglob("*")):
        if not place.is_symlink():
            place.chmod(0o755 if place.is_dir() else 0o644)


def bring_back(template: Path, folder: Path, name: str, after: Snapshot) -> None:
    """Put a file that a fault removed or cut back, as it was, unless an undisturbed command removes it, too."""
    path, there = template / name, folder / name
    if name in after and path.is_file() and not (there.is_file() and there.stat().st_size >= path.stat().st_size):
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, there)
