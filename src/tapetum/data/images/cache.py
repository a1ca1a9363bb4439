"""Decodes a pool of image files once, into a memory-mapped array.

On two cores, loader workers that decode images take compute from training. So a pool whose pixels fit in a quarter of
memory is decoded before training into a cache on disk, bit for bit as `FileStore` reads it, and later runs start at
once. Images of equal size become an `ArrayStore`, images of different sizes a `RaggedStore`.

    images-KEY/images.npy   pixels
    images-KEY/sizes.npy    (N, 2) heights and widths
    images-KEY/done         a line for each chunk of images: its number, and the CRC-32 of its pixels
    images-KEY/cache.json   the note (`cache_folder`) that all of this is finished, with checksums of the rest

Whoever opens a finished cache reads all of it once and compares the checksums, in a small part of the time of the first
epoch. Chunks that have changed are decoded again.
"""

import hashlib
import os
import shutil
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tapetum.data.images.cache_folder import FORMAT, NOTE, cache_folder, clean_up, read_note, write_note
from tapetum.data.images.decoding import decode, header_sizes, shrunk_sizes
from tapetum.data.images.stores import ArrayStore, FileStore, RaggedStore, Store
from tapetum.system.files import only_one
from tapetum.system.machine import memory_bytes
from tapetum.system.notices import ReportProgress, notify

_CHUNK_BYTES = 4 * 2**20
_Chunk = tuple[range, slice]
"""Numbers of images, and the place of their pixels."""
MEMORY_FRACTION = 0.25
THREADED_FROM_PIXELS = 128 * 128  # below this, Python's overhead outweighs decoding and threads only contend


def decoded(
    store: Store,
    folder: Path | None = None,
    memory_fraction: float = MEMORY_FRACTION,
    report: ReportProgress | None = None,
    threads: int = 2,
) -> Store:
    """Decode a store once into a memory-mapped one; return the store itself if it has no files or they do not fit.

    A finished cache is reused, an interrupted one is continued, and a damaged one is mended, which a notice says. If
    several processes need the same cache, one decodes and the others wait. Caches that are of no more use are removed
    before another one is made.

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
    if _fault(final, len(store)) is not None:
        clean_up(folder, store.root, store.shrink_to, _names_key(store))
        if not fits(store, memory_fraction) or not _has_room(folder, _bytes(store.sizes)):
            return store
        _make(store, final, report, threads)
    sizes = np.load(final / "sizes.npy", allow_pickle=False)
    if (sizes == sizes[0]).all():
        return ArrayStore.open(final / "images.npy", store.names, store.fingerprint)
    return RaggedStore(final / "images.npy", sizes, store.names, store.fingerprint)


def fits(store: FileStore, memory_fraction: float = MEMORY_FRACTION) -> bool:
    """Return whether the decoded pixels of the whole store take at most `memory_fraction` of memory."""
    most = int(memory_fraction * memory_bytes())
    # A sample usually decides, while reading the headers of all photographs takes minutes.
    some = np.unique(np.linspace(0, len(store) - 1, 64).astype(np.int64))
    sizes = shrunk_sizes(header_sizes((store.file(int(i)) for i in some), store.at_once), store.shrink_to)
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
    digest = hashlib.blake2b(f"{FORMAT} {store.fingerprint}".encode(), digest_size=16)
    place = store.root.resolve() if isinstance(store.root, Path) else str(store.root)
    digest.update(os.fsencode(place))
    digest.update(store.file_stats.tobytes())
    return digest.hexdigest()


def _names_key(store: FileStore) -> str:
    """Hash of the names; "" for archives, two of which may lie in one place and hold the same names."""
    if store.contents is not None:
        return ""
    return hashlib.blake2b("\0".join(store.names).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _fault(final: Path, count: int) -> str | None:
    """Tell what is wrong with a finished cache of so many images: "" if it is not there, None if nothing is."""
    if not (final / NOTE).is_file():
        return ""
    changed, note = "bits of it have changed since it was written", read_note(final / NOTE)
    try:
        if note is None or note["checks"] != _checks(final):
            return changed
        if (final / "images.npy").stat().st_size < note["bytes"]:
            return "it is cut short"
        sizes = np.load(final / "sizes.npy", allow_pickle=False)
        images = np.load(final / "images.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError):
        return changed
    if images.shape != _shape(sizes) or images.dtype != np.uint8 or not images.flags.c_contiguous:
        return changed
    chunks = _chunks(sizes)
    is_whole = len(sizes) == count and len(_unchanged_chunks(final, images.reshape(-1), chunks)) == len(chunks)
    return None if is_whole else changed


def _checks(folder: Path) -> list[int]:
    with (folder / "images.npy").open("rb") as file:
        header = file.read(128)
    return [zlib.crc32(part) for part in (header, *((folder / name).read_bytes() for name in ("done", "sizes.npy")))]


def _shape(sizes: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """Shape of the array of pixels: images of differing sizes lie one after the other."""
    return (len(sizes), 3, *sizes[0].tolist()) if (sizes == sizes[0]).all() else (_bytes(sizes),)


def _chunks(sizes: npt.NDArray[np.int64]) -> list[_Chunk]:
    """Cut the images into parts that are decoded together."""
    step = max(1, _CHUNK_BYTES * len(sizes) // _bytes(sizes))
    ends = [0, *np.cumsum(3 * sizes.prod(axis=1)).tolist()]
    starts = range(0, len(sizes), step)
    rows = [range(start, min(start + step, len(sizes))) for start in starts]
    return [(some, slice(ends[some.start], ends[some.stop])) for some in rows]


def _unchanged_chunks(folder: Path, pixels: npt.NDArray[np.uint8], chunks: Sequence[_Chunk]) -> dict[int, int]:
    """Number and checksum of each chunk whose pixels are those that `done` notes."""
    noted: dict[int, int] = {}
    with suppress(OSError, ValueError):  # a line that was cut off, or was changed
        for line in (folder / "done").read_text().split("\n")[:-1]:
            number, checksum = map(int, line.split())
            noted[number] = checksum
    return {
        chunk: noted[chunk]
        for chunk, (_, place) in enumerate(chunks)
        if chunk in noted and zlib.crc32(pixels[place].data) == noted[chunk]
    }


def _make(store: FileStore, final: Path, report: ReportProgress | None, threads: int) -> None:
    """Decode, unless another process has done so meanwhile."""
    with only_one(final.with_suffix(".lock")) as is_alone:
        if (fault := _fault(final, len(store))) is None:
            return
        # On a disk without locks, others may do the same at once.
        partial = final.with_suffix(".partial" if is_alone else f".{os.getpid()}.partial")
        if fault:
            notify(f"the cache {final} is of no use: {fault}; what is wrong in it is decoded again")
        if final.exists():
            shutil.rmtree(partial, ignore_errors=True)
            with suppress(FileNotFoundError):  # it has been taken by another process
                final.rename(partial)
                (partial / NOTE).unlink(missing_ok=True)
        _build(store, partial, report, threads)
        try:
            partial.rename(final)
        except OSError:
            if _fault(final, len(store)) is not None:
                raise
            shutil.rmtree(partial)  # another process was faster


def _open_partial(partial: Path, shape: tuple[int, ...]) -> np.memmap:
    """Open the array to fill: that of an interrupted run, or a new one whose disk space is reserved."""
    path = partial / "images.npy"
    if path.is_file():
        try:
            images = np.lib.format.open_memmap(path, mode="r+")
            if images.shape == shape and images.dtype == np.uint8:
                _reserve(path)
                return images
        except Exception:  # interrupted while it was created; or damaged, and numpy fails in many ways
            pass
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    (partial / "done").unlink(missing_ok=True)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    _reserve(path)
    return images


def _reserve(path: Path) -> None:
    """Make sure of the disk space: a full disk raises an error here, but crashes the process in a mapped write."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _build(store: FileStore, partial: Path, report: ReportProgress | None, threads: int) -> None:
    sizes = store.sizes
    images = _open_partial(partial, _shape(sizes))
    rows, chunks = images.reshape(-1), _chunks(sizes)
    finished = _unchanged_chunks(partial, rows, chunks)
    (partial / "done").write_text("".join(f"{chunk} {checksum}\n" for chunk, checksum in finished.items()))
    done = sum(len(chunks[chunk][0]) for chunk in finished)
    # By the pixels in the files, because a photograph takes long to read even if it is shrunk.
    first = header_sizes(map(store.file, range(min(64, len(store)))), store.at_once)
    workers = max(threads if first.prod(axis=1).mean() >= THREADED_FROM_PIXELS else 1, store.at_once)
    with ThreadPoolExecutor(workers) as pool, (partial / "done").open("a") as log:
        for chunk, (some, place) in enumerate(chunks):
            if chunk in finished:
                continue
            files, begin = [store.file(row) for row in some], place.start
            decode_in_order = pool.map if workers > 1 else map
            for row, file, pixels in zip(some, files, decode_in_order(decode, files, repeat(store.shrink_to))):
                if pixels.shape[1:] != tuple(sizes[row]):
                    raise ValueError(f"image {file} differs in size from its header: replace it")
                rows[begin : begin + pixels.numel()] = pixels.numpy().reshape(-1)
                begin += pixels.numel()
            images.flush()
            log.write(f"{chunk} {zlib.crc32(rows[place].data)}\n")
            log.flush()
            os.fsync(log.fileno())
            done += len(files)
            if report is not None:
                report(done, len(store))
    del images, rows
    with (partial / "sizes.npy").open("wb") as array:
        np.save(array, sizes)
        array.flush()
        os.fsync(array.fileno())
    size = (partial / "images.npy").stat().st_size
    made_of = {"images": len(store), "shrink_to": store.shrink_to, "names": _names_key(store)}
    write_note(partial / NOTE, store.root, {**made_of, "bytes": size, "checks": _checks(partial)})
