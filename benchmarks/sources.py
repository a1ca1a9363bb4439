"""How fast images are read from a folder, from zip, tar and Parquet files, and from an object store that runs here.

    python benchmarks/sources.py FOLDER [--images 4000] [--members 100000] [--json FILE]

FOLDER holds a folder of JPEG files for each class. The same files are packed in each way, and read in a random order,
in batches of 64, as a training without a cache of decoded images would. Each reading is a process of its own: *cold*
with no index and none of the files in the system's memory, *warm* with both. `s3` is moto's server, in another process,
one Python for all requests: it tells what a request costs here, not what a store can do. Also measured: how long it
takes to list an archive of many small members, the first time and later.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import in_own_process, machine, peak_memory_mb, write_json

BATCH, ROWS = 64, 100
WAYS = ("folder", "zip", "tar", "parquet", "s3", "s3_tar")
BUCKET = "s3://sources"


def pack(folder: Path, target: Path, count: int) -> None:
    """Write `count` images of a folder as folder, zip, tar and Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(folder.rglob("*.jp*g"))
    paths = paths[:: max(1, len(paths) // count)][:count]
    contents = [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths]
    for name, content in contents:
        (target / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (target / "folder" / name).write_bytes(content)
    write_zip(target / "zip.zip", contents)
    write_tar(target / "tar.tar", contents)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": content, "path": name} for name, content in contents], kind)
    labels = [name.split("/")[0] for name, _ in contents]
    pq.write_table(pa.table({"image": images, "label": labels}), target / "parquet.parquet", row_group_size=ROWS)


def write_zip(path: Path, contents: list[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents:
            archive.writestr(name, content)


def write_tar(path: Path, contents: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in contents:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """Run moto's server with the files of a folder in a bucket; yields what the environment needs."""
    import fsspec

    port = "5555"
    command = [sys.executable, "-m", "moto.server", "-p", port]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    try:
        os.environ.update(found)
        store = fsspec.filesystem("s3")
        for _ in range(100):
            try:
                store.mkdir("sources")
                break
            except Exception:
                time.sleep(0.2)
        store.put(str(folder / "folder"), "sources/folder", recursive=True)
        store.put(str(folder / "tar.tar"), "sources/tar.tar")
        yield found
    finally:
        server.terminate()
        server.wait()


def forget(place: Path) -> None:
    """Let the system forget what it has read of files."""
    for path in [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(place: str, count: int) -> dict[str, float]:
    """Open a source and read images in a random order, in this process."""
    from tapetum.data.sources.open_source import open_source

    began = time.perf_counter()
    store = open_source(place, "none").store
    opened = time.perf_counter()
    start = peak_memory_mb()
    order = np.random.default_rng(0).permutation(len(store))[:count]
    cpu = time.process_time()
    for first in range(0, len(order), BATCH):
        store.read(order[first : first + BATCH])
    seconds = time.perf_counter() - opened
    return {
        "open_seconds": opened - began,
        "images_per_second": len(order) / seconds,
        "cpu_ms_per_image": 1000 * (time.process_time() - cpu) / max(1, len(order)),
        "start_memory_mb": start,
        "peak_memory_mb": peak_memory_mb(),
    }


def measure(folder: Path, way: str, count: int) -> dict[str, Any]:
    """Read one way twice, cold and warm."""
    name = {"s3": "folder", "s3_tar": "tar.tar", "folder": "folder"}.get(way, f"{way}.{way}")
    place = f"{BUCKET}/{name}" if way.startswith("s3") else str(folder / name)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TAPETUM_CACHE"] = cache
        forget(folder / name)
        found = {}
        for state in ("cold", "warm"):
            found[state] = in_own_process(Path(__file__), ["--read", place, str(count)], 1)
            about = found[state]
            print(
                f"{way:<8} {state} {about['images_per_second']:8.0f} images/s, opened in {about['open_seconds']:.2f} s",
                flush=True,
            )
    return found


def listing(kind: str, count: int) -> dict[str, float]:
    """Seconds to list an archive of small members, the first time and from the kept index."""
    content = b"\xff\xd8" + bytes(1000)
    contents = [(f"{i % 100:02}/{i:06}.jpg", content) for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TAPETUM_CACHE"] = f"{folder}/cache"
        path = Path(folder, f"many.{kind}")
        (write_zip if kind == "zip" else write_tar)(path, contents)
        first = in_own_process(Path(__file__), ["--read", str(path), "0"], 1)
        again = in_own_process(Path(__file__), ["--read", str(path), "0"], 1)
    found = {"first_seconds": first["open_seconds"], "again_seconds": again["open_seconds"]}
    found |= {"peak_memory_mb": first["start_memory_mb"], "members": count}
    print(f"{kind:<8} {count:,} members listed in {found['first_seconds']:.2f} s, then {found['again_seconds']:.2f} s")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a folder per class of JPEG files")
    parser.add_argument("--images", type=int, default=4000, help="how many are packed and read")
    parser.add_argument("--members", type=int, default=100_000, help="members of the archives that are listed")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read[0], int(options.read[1]))))
        sys.exit()
    if options.folder is None:
        parser.error("give a folder of JPEG files")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as packed:
        pack(options.folder, Path(packed), options.images)
        local = [way for way in options.ways if not way.startswith("s3")]
        remote = [way for way in options.ways if way.startswith("s3")]
        sizes = [path.stat().st_size for path in Path(packed, "folder").rglob("*.jp*g")]
        found |= {way: measure(Path(packed), way, options.images) for way in local}
        if remote:
            with object_store(Path(packed)):
                found |= {way: measure(Path(packed), way, options.images) for way in remote}
    lists = {kind: listing(kind, options.members) for kind in ("tar", "zip")} if options.members else {}
    about = {"images": len(sizes), "bytes_per_image": round(sum(sizes) / len(sizes)), "rows_per_group": ROWS}
    write_json(options.json, {**about, "ways": found, "listing": lists, "machine": machine()})


if __name__ == "__main__":
    main()
