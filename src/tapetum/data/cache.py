"""A pool decoded once: image files become one memory-mapped array of uint8 images.

On two cores, loader workers that decode steal the compute of training. So a pool whose working-size copy fits in a
quarter of memory is decoded before training into a cache on disk, and later runs start at once.

Which pools are cached, and as what:

- all images share one size, no larger than asked for: as they are, bit for bit what `FileStore` decodes;
- all images become one size when their shorter side is resized to `size` (equal aspect ratio): as that;
- anything else (photographs of mixed shapes): not cached. Random resized crops need the whole image, and whole
  images of different shapes do not stack. They keep being decoded when they are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tapetum.data.decoding import decode, header_sizes
from tapetum.data.stores import ArrayStore, FileStore, ReportProgress, Store

_FORMAT = 1  # raise when decoding or the layout of the folder changes: old caches are then not found
_CHUNK_BYTES = 4 * 2**20
THREADED_FROM_PIXELS = 128 * 128  # below, Python's overhead outweighs decoding and threads only contend


def cache_folder() -> Path:
    """Where caches go: $TAPETUM_CACHE, else $XDG_CACHE_HOME/tapetum, else ~/.cache/tapetum."""
    if chosen := os.environ.get("TAPETUM_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tapetum"


def memory_bytes() -> int:
    """Memory this process may use: the machine's, or its container's limit where that is lower."""
    if not hasattr(os, "sysconf"):
        return 8 * 2**30  # not a POSIX system: assume a modest machine
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return int(total)


def working_size(sizes: npt.NDArray[np.int64], size: int | None) -> tuple[int, int] | None:
    """The one (height, width) that all images of a pool have when worked on, or None if there is none.

    Args:
        sizes: (N, 2) heights and widths.
        size: shorter side in pixels that training and evaluation need at most; None: as large as the images are.
    """
    if len(sizes) == 0:
        return None
    shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
    if (sizes == sizes[0]).all() and (size is None or shorter[0] <= size):
        return int(sizes[0, 0]), int(sizes[0, 1])
    if size is None or shorter.min() < size:
        return None
    # The longer side is rounded down, as torchvision's Resize does.
    resized = np.where(sizes == shorter[:, None], size, (size * longer // shorter)[:, None])
    if (resized != resized[0]).any():
        return None
    return int(resized[0, 0]), int(resized[0, 1])


def decoded(
    store: Store,
    size: int | None = None,
    folder: Path | None = None,
    memory_fraction: float = 0.25,
    report: ReportProgress | None = None,
    threads: int = 2,
) -> Store:
    """The store decoded once into a memory-mapped `ArrayStore`, or the store itself where that does not apply.

    A finished cache is reused. One that was interrupted goes on where it stopped. Several processes may ask for
    the same cache: one decodes, the others wait.

    Args:
        store: any store; only a `FileStore` is ever decoded.
        size: shorter side in pixels of the working copy; None takes images as they are.
        folder: where caches are kept; None means `cache_folder()`.
        memory_fraction: largest share of memory the copy may take.
        report: called with (images decoded, all images); not called where a finished cache is found.
        threads: files decoded at the same time, for photographs.

    Raises:
        ValueError: an image cannot be read; names the file and the fix.
    """
    if not isinstance(store, FileStore) or len(store) == 0:
        return store
    folder = cache_folder() if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"images-{cache_key(store, size)}"
    if not _is_finished(final):
        shape = _shape_to_cache(store, size, int(memory_fraction * memory_bytes()))
        if shape is None or not _has_room(folder, len(store) * 3 * shape[0] * shape[1]):
            return store
        with only_one(final.with_suffix(".lock")):
            if not _is_finished(final):
                _build(store, shape, final, report, threads)
    about = json.loads((final / "cache.json").read_text())
    return ArrayStore.open(final / "images.npy", store.names, about["fingerprint"])


def _shape_to_cache(store: FileStore, size: int | None, max_bytes: int) -> tuple[int, int] | None:
    """The pool's `working_size` where a copy of that size is small enough, else None."""
    # A few images mostly settle it, and reading the header of every photograph takes minutes.
    some = np.unique(np.linspace(0, len(store) - 1, 64).astype(np.int64))
    shape = working_size(header_sizes([store.root / store.names[i] for i in some]), size)
    if shape is None or len(store) * 3 * shape[0] * shape[1] > max_bytes:
        return None
    return working_size(store.sizes, size)


def _has_room(folder: Path, needed: int) -> bool:
    if shutil.disk_usage(folder).free >= 1.05 * needed:
        return True
    warnings.warn(
        f"{folder} has no room for the {needed / 2**20:.0f} MiB of decoded images, so they are decoded again in every "
        "epoch: free some space, or set TAPETUM_CACHE to a folder on another disk",
        stacklevel=3,
    )
    return False


def _fingerprint(store: FileStore, shape: tuple[int, int]) -> str:
    """The store's own where pixels are the same, so that a run resumes where the cache does not fit."""
    if store.image_size == shape:
        return store.fingerprint
    return hashlib.blake2b(f"{store.fingerprint} {shape}".encode(), digest_size=16).hexdigest()


def cache_key(store: FileStore, size: int | None) -> str:
    """What a cache is found by. Local, so it may look at what a fingerprint must not: place and time of change."""
    digest = hashlib.blake2b(f"{_FORMAT} {size} {store.fingerprint}".encode(), digest_size=16)
    digest.update(os.fsencode(store.root.resolve()))
    digest.update(store.file_stats.tobytes())
    return digest.hexdigest()


def _is_finished(final: Path) -> bool:
    return (final / "cache.json").is_file()


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it when that process dies."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: processes there must not share a cache folder while it is built
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    # The file stays: deleting it would let a third process lock a new one beside a waiting second.


def _open_partial(partial: Path, shape: tuple[int, ...]) -> np.memmap:
    """The array being filled: the interrupted one, or a new one with its room on disk reserved."""
    path = partial / "images.npy"
    if path.is_file():
        try:
            images = np.lib.format.open_memmap(path, mode="r+")
            if images.shape == shape and images.dtype == np.uint8:
                return images
        except ValueError:
            pass  # interrupted while it was created
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    (partial / "done").unlink(missing_ok=True)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and a crash when a mapped page is written
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return images


def _finished_chunks(partial: Path) -> set[int]:
    try:
        lines = (partial / "done").read_text().split("\n")
    except FileNotFoundError:
        return set()
    return {int(line) for line in lines[:-1]}  # what follows the last newline was cut off


def _build(store: FileStore, shape: tuple[int, int], final: Path, report: ReportProgress | None, threads: int) -> None:
    partial = final.with_suffix(".partial")
    images = _open_partial(partial, (len(store), 3, *shape))
    step = max(1, _CHUNK_BYTES // (3 * shape[0] * shape[1]))
    finished = _finished_chunks(partial)
    done = sum(len(range(c * step, min((c + 1) * step, len(store)))) for c in finished)
    workers = threads if store.sizes.prod(axis=1).mean() >= THREADED_FROM_PIXELS else 1
    with ThreadPoolExecutor(workers) as pool, (partial / "done").open("a") as log:
        for chunk, start in enumerate(range(0, len(store), step)):
            if chunk in finished:
                continue
            paths = [store.root / name for name in store.names[start : start + step]]
            decode_in_order = pool.map if workers > 1 else map
            for row, pixels in enumerate(decode_in_order(decode, paths, repeat(shape)), start):
                images[row] = pixels.numpy()
            images.flush()
            log.write(f"{chunk}\n")
            log.flush()
            os.fsync(log.fileno())
            done += len(paths)
            if report is not None:
                report(done, len(store))
    del images
    about = {"format": _FORMAT, "root": str(store.root), "images": len(store), "shape": [3, *shape]}
    write_durably(partial / "cache.json", json.dumps({**about, "fingerprint": _fingerprint(store, shape)}))
    if final.exists():  # a folder without cache.json: not ours to trust
        shutil.rmtree(final)
    partial.rename(final)


def write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
