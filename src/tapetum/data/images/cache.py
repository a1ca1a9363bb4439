"""Decodes a pool of image files once, into a memory-mapped array.

On two cores, loader workers that decode images take compute from training. So a pool whose pixels fit in a quarter of
memory is decoded before training into a cache on disk, bit for bit as `FileStore` reads it, and later runs start at
once. Images of equal size become an `ArrayStore`, images of different sizes a `RaggedStore`.
"""

import hashlib
import json
import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tapetum.data.images.decoding import decode, header_sizes, shrunk_sizes
from tapetum.data.images.stores import ArrayStore, FileStore, RaggedStore, Store
from tapetum.system.files import only_one, write_text
from tapetum.system.machine import memory_bytes
from tapetum.system.notices import ReportProgress

_FORMAT = 2  # increase when decoding or the folder's layout changes, so that old caches are no longer found
_CHUNK_BYTES = 4 * 2**20
MEMORY_FRACTION = 0.25
CACHE_ADVICE = "run the same command again, or set TAPETUM_CACHE to a folder on another disk"
THREADED_FROM_PIXELS = 128 * 128  # below this, Python's overhead outweighs decoding and threads only contend


def cache_folder() -> Path:
    """Return the folder for caches: $TAPETUM_CACHE, else $XDG_CACHE_HOME/tapetum, else ~/.cache/tapetum."""
    if chosen := os.environ.get("TAPETUM_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tapetum"


def decoded(
    store: Store,
    folder: Path | None = None,
    memory_fraction: float = MEMORY_FRACTION,
    report: ReportProgress | None = None,
    threads: int = 2,
) -> Store:
    """Decode a store once into a memory-mapped one; return the store itself if it has no files or they do not fit.

    A finished cache is reused, and an interrupted one is continued. If several processes need the same cache, one
    decodes and the others wait.

    Args:
        store: any store; only a `FileStore` is ever decoded.
        folder: where caches are kept; None means `cache_folder()`.
        memory_fraction: largest share of memory that the decoded images may take.
        report: called with (images decoded, all images); not called if a finished cache is found.
        threads: number of files decoded in parallel if they are photographs.

    Raises:
        ValueError: an image cannot be read, or its size differs from its header; names the file and the fix.
    """
    if not isinstance(store, FileStore) or len(store) == 0:
        return store
    folder = cache_folder() if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"images-{cache_key(store)}"
    if not _is_finished(final):
        if not fits(store, memory_fraction) or not _has_room(folder, _bytes(store.sizes)):
            return store
        with only_one(final.with_suffix(".lock")):
            if not _is_finished(final):
                _build(store, final, report, threads)
    sizes = np.load(final / "sizes.npy", allow_pickle=False)
    if (sizes == sizes[0]).all():
        return ArrayStore.open(final / "images.npy", store.names, store.fingerprint)
    return RaggedStore(final / "images.npy", sizes, store.names, store.fingerprint)


def fits(store: FileStore, memory_fraction: float = MEMORY_FRACTION) -> bool:
    """Return whether the decoded pixels of the whole store take at most `memory_fraction` of memory."""
    most = int(memory_fraction * memory_bytes())
    # A sample usually decides, while reading the headers of all photographs takes minutes.
    some = np.unique(np.linspace(0, len(store) - 1, 64).astype(np.int64))
    sizes = shrunk_sizes(header_sizes([store.root / store.names[i] for i in some]), store.shrink_to)
    return len(store) * _bytes(sizes) // len(some) <= 2 * most and _bytes(store.sizes) <= most


def _bytes(sizes: npt.NDArray[np.int64]) -> int:
    return int(3 * sizes.prod(axis=1).sum())


def _has_room(folder: Path, needed: int) -> bool:
    if shutil.disk_usage(folder).free >= 1.05 * needed:
        return True
    warnings.warn(
        f"{folder} has no room for the {needed / 2**20:.0f} MiB of decoded images, so they are decoded again in every "
        "epoch: free some space, or set TAPETUM_CACHE to a folder on another disk",
        stacklevel=3,
    )
    return False


def cache_key(store: FileStore) -> str:
    """Hash by which a cache is found. It is local, so unlike a fingerprint it may use paths and times of change."""
    digest = hashlib.blake2b(f"{_FORMAT} {store.fingerprint}".encode(), digest_size=16)
    digest.update(os.fsencode(store.root.resolve()))
    digest.update(store.file_stats.tobytes())
    return digest.hexdigest()


def _is_finished(final: Path) -> bool:
    return (final / "cache.json").is_file()


def _open_partial(partial: Path, shape: tuple[int, ...]) -> np.memmap:
    """Open the array to fill: that of an interrupted run, or a new one whose disk space is reserved."""
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
    if hasattr(os, "posix_fallocate"):  # a full disk raises an error here, but crashes the process in a mapped write
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return images


def _finished_chunks(partial: Path) -> set[int]:
    try:
        lines = (partial / "done").read_text().split("\n")
    except FileNotFoundError:
        return set()
    return {int(line) for line in lines[:-1]}  # text after the last newline was cut off


def _build(store: FileStore, final: Path, report: ReportProgress | None, threads: int) -> None:
    partial, sizes = final.with_suffix(".partial"), store.sizes
    total, is_even = _bytes(sizes), store.image_size is not None
    images = _open_partial(partial, (len(store), 3, *sizes[0].tolist()) if is_even else (total,))
    rows = images.reshape(-1)
    ends = np.cumsum(3 * sizes.prod(axis=1)).tolist()
    step = max(1, _CHUNK_BYTES * len(store) // total)
    finished = _finished_chunks(partial)
    done = sum(len(range(c * step, min((c + 1) * step, len(store)))) for c in finished)
    # By the pixels in the files, because a photograph takes long to read even if it is shrunk.
    workers = threads if header_sizes(store.paths[:64]).prod(axis=1).mean() >= THREADED_FROM_PIXELS else 1
    with ThreadPoolExecutor(workers) as pool, (partial / "done").open("a") as log:
        for chunk, start in enumerate(range(0, len(store), step)):
            if chunk in finished:
                continue
            paths = [store.root / name for name in store.names[start : start + step]]
            decode_in_order = pool.map if workers > 1 else map
            for row, pixels in enumerate(decode_in_order(decode, paths, repeat(store.shrink_to)), start):
                if pixels.shape[1:] != tuple(sizes[row]):
                    raise ValueError(f"image {paths[row - start]} differs in size from its header: replace it")
                rows[ends[row] - pixels.numel() : ends[row]] = pixels.numpy().reshape(-1)
            images.flush()
            log.write(f"{chunk}\n")
            log.flush()
            os.fsync(log.fileno())
            done += len(paths)
            if report is not None:
                report(done, len(store))
    del images, rows
    with (partial / "sizes.npy").open("wb") as file:
        np.save(file, sizes)
        file.flush()
        os.fsync(file.fileno())
    about = {"format": _FORMAT, "root": str(store.root), "images": len(store), "shrink_to": store.shrink_to}
    write_text(partial / "cache.json", json.dumps(about), CACHE_ADVICE)
    if final.exists():  # without cache.json it cannot be trusted
        shutil.rmtree(final)
    partial.rename(final)
