"""Image files below a folder, and labels from a folder of class folders inside it or elsewhere.

The labelled images join the pool. People often copy the images that they label. So if a file of the pool has the same
name and bytes (of which some are compared) as a labelled one, the two count as one image, which is labelled.
"""

import filecmp
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tapetum.data.images.decoding import IMAGE_SUFFIXES
from tapetum.data.labels.labels import Labels, labels_from_names
from tapetum.system.files import reason_of
from tapetum.system.notices import notify

_SAMPLE = 2**14  # bytes
_COMPRESSED = (".jpg", ".jpeg", ".png", ".webp")


def image_names(root: Path) -> Iterator[str]:
    """Yield the relative names of all image files below a folder; follow links, skip hidden files and runs.

    A folder that cannot be read is left out, and a notice says so. The pictures that a run draws of itself would
    otherwise join the pool that it was trained on.
    """
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=_left_out, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()  # a link that leads back up
            continue
        seen.add(real)
        if Path(folder) != root and _is_run(folders, files):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        relative = Path(folder).relative_to(root)
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield (relative / name).as_posix()


def _is_run(folders: Sequence[str], files: Sequence[str]) -> bool:
    return "checkpoints" in folders and "recipe.yaml" in files


def refuse_among(path: Path, images: Any) -> None:
    """Refuse to write pictures below a folder of images, unless `image_names` would leave them out.

    Raises:
        ValueError: they would join the images.
    """
    if not isinstance(images, str | Path):
        return
    root, place = Path(os.path.realpath(Path(images).expanduser())), Path(os.path.realpath(path))
    if not root.is_dir() or not place.is_relative_to(root):
        return
    between = [folder for folder in place.parents if folder != root and folder.is_relative_to(root) and folder.is_dir()]
    hidden = any(part.startswith(".") for part in place.relative_to(root).parts)
    if not hidden and not any(_is_run(names := os.listdir(folder), names) for folder in between):
        raise ValueError(
            f"{path} lies among the images of {images}, which its pictures would join: give an --output elsewhere."
        )


def _left_out(error: OSError) -> None:
    notify(f"{error.filename} is left out, because it cannot be read ({reason_of(error)}): allow reading, or move it")


def is_image_name(name: str) -> bool:
    """Return whether a relative name is that of an image, and neither hidden nor left by another system."""
    *folders, bare = name.split("/")
    hidden = bare.startswith(".") or any(folder.startswith((".", "__MACOSX")) for folder in folders)
    return not hidden and os.path.splitext(bare)[1].lower() in IMAGE_SUFFIXES


def with_labelled_folder(folder: Path, root: Path, pool: Sequence[str]) -> tuple[list[str], Labels]:
    """Join the pool and the labelled images, and return their names and labels.

    Args:
        folder: holds one folder per class.
        root: the pool's folder.
        pool: the pool's image files, relative to `root`.

    Returns:
        Sorted names relative to `root` (`../labelled/cat/1.jpg` if the folders lie next to each other), and the labels
        of these images.

    Raises:
        ValueError: there are no class folders, or only one.
    """
    folder, root = Path(os.path.realpath(folder)), Path(os.path.realpath(root))
    # If the pool lies inside the labelled folder, the pool's folder is not a class.
    inner = os.path.relpath(root, folder) + "/" if root != folder and root.is_relative_to(folder) else None
    labelled = [n for n in image_names(folder) if "/" in n and not (inner and n.startswith(inner))]
    from_root = Path(os.path.relpath(folder, root))
    class_of = {(from_root / name).as_posix(): name.split("/", 1)[0] for name in labelled}
    if len(set(class_of.values())) < 2:
        found = f"only the class folder {next(iter(class_of.values()))!r}" if class_of else "no class folders"
        raise ValueError(f"labels: {folder} has {found}: give a folder with one folder of images per class, or a CSV")
    others = [name for name in pool if name not in class_of]
    twins = _twins(folder, labelled, root, others)
    names = sorted({*class_of, *(name for name in others if name not in twins)})
    return names, labels_from_names(names, [class_of.get(name) for name in names])


def _twins(folder: Path, labelled: Sequence[str], root: Path, pool: Sequence[str]) -> set[str]:
    """Return pool names that repeat a labelled image: same bytes, and same relative path or unique bare name."""
    in_folder = set(labelled)
    bare_labelled = Counter(os.path.basename(name) for name in labelled)
    by_bare = {os.path.basename(name): name for name in labelled}
    bare_pool = Counter(os.path.basename(name) for name in pool)
    twins = set()
    for name in pool:
        bare = os.path.basename(name)
        other = name if name in in_folder else None
        if other is None and bare_labelled[bare] == bare_pool[bare] == 1:
            other = by_bare[bare]
        if other is not None and _are_alike(root / name, folder / other):
            twins.add(name)
    return twins


def _are_alike(one: Path, other: Path) -> bool:
    """Whether files have the same bytes; of compressed ones, where a pixel changes all that follows, only some."""
    try:
        size = one.stat().st_size
        if one.suffix.lower() not in _COMPRESSED:
            return filecmp.cmp(one, other, shallow=False)
        return size == other.stat().st_size and _sampled(one, size) == _sampled(other, size)
    except OSError:  # told when the image itself is read
        return False


def _sampled(path: Path, size: int) -> list[bytes]:
    with path.open("rb", buffering=0) as file:
        return [file.read(_SAMPLE) for place in (0, size // 2, size - _SAMPLE) if file.seek(max(0, place)) >= 0]
