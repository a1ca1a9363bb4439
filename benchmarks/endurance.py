"""Long and large: does memory stay flat, and do millions of files, thousands of classes and many supports work?

    python benchmarks/endurance.py training --images DIR [--minutes 60] --json docs/results/reliability/long_NAME.json
    python benchmarks/endurance.py predictions|files|classes|supports --images DIR [--count N] --json FILE

Each part runs `tapetum` itself, as a user would, and looks at it and at its child processes every second: memory (the
proportional set size, which counts pages that processes share once), open file handles and threads. DIR holds small
images in a folder for each class, such as CIFAR-10's; what a part needs more is made in a temporary folder: further
names of these files (hard links), or noise as PNG files. The page is docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import machine

EVERY = 0.5
"""Seconds between two looks."""
WARM = 0.25
"""Share of a command's time that the slope leaves out: caches fill, and memory that was freed is kept."""
BLOCKS = 12
"""Means of so many stretches give the slope and its error: neighbouring looks are not independent, these nearly are."""
KEPT = 240
"""Greatest number of looks that are written."""
Look = tuple[float, float, int, int, int, float]
"""Seconds, MB, handles, threads, processes, and how many of the MB are anonymous: from no file."""
STEADY = ("training", "predictions")
"""Parts that do the same all the time, so that memory has a slope."""
Row = dict[str, Any]


def watch(words: Sequence[str], folder: Path, threads: int) -> tuple[list[Look], float, float]:
    """Run `tapetum WORDS` in a folder, and look at it until it ends.

    Returns:
        What was seen, the seconds it took, and the processor's seconds of it and its child processes.

    Raises:
        SystemExit: it failed; says what it said last.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TAPETUM_CACHE": str(folder / "cache")}
    log = folder / "log.txt"
    looks, began, used = [], time.perf_counter(), _processor_seconds()
    with log.open("w") as said:
        started = subprocess.Popen(
            [sys.executable, "-m", "tapetum", *words], cwd=folder, env=environment, stdout=said, stderr=said
        )
        while started.poll() is None:
            if (look := _look(started.pid, time.perf_counter() - began)) is not None:
                looks.append(look)
            time.sleep(EVERY)
    seconds = time.perf_counter() - began
    if started.returncode:
        raise SystemExit(f"endurance: error: tapetum {words[0]} failed: {log.read_text().strip().splitlines()[-1:]}")
    return looks, seconds, _processor_seconds() - used


def _processor_seconds() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def _look(number: int, seconds: float) -> Look | None:
    memory, anonymous, handles, threads, processes = 0.0, 0.0, 0, 0, 0
    for one in _family(number):
        proc = Path(f"/proc/{one}")
        try:
            rows = dict(line.split()[:2] for line in (proc / "smaps_rollup").read_text().splitlines()[1:])
            memory += int(rows["Pss:"]) / 1024
            anonymous += (int(rows["Pss_Anon:"]) + int(rows["Pss_Shmem:"])) / 1024
            handles += len(os.listdir(proc / "fd"))
            threads += len(os.listdir(proc / "task"))
            processes += 1
        except (OSError, KeyError, ValueError):  # it has just ended
            continue
    if not processes:
        return None
    return round(seconds, 1), round(memory, 1), handles, threads, processes, round(anonymous, 1)


def _family(number: int) -> Iterator[int]:
    yield number
    for task in Path(f"/proc/{number}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def slope(looks: Sequence[Look]) -> tuple[float, float]:
    """Least-squares slope of anonymous memory in MB per hour, and its standard error, from means of `BLOCKS` stretches.

    Pages of files, such as torch's code, count for each program by how many others have them, so they say little here.
    """
    late = np.array([(look[0], look[5]) for look in looks if look[0] >= WARM * looks[-1][0]])
    blocks = [part.mean(axis=0) for part in np.array_split(late, BLOCKS)]
    hours, memory = np.array(blocks).T / np.array([[3600.0], [1.0]])
    centred = hours - hours.mean()
    found = (centred @ memory) / (centred @ centred)
    left = memory - memory.mean() - found * centred
    return float(found), float(np.sqrt(left @ left / (BLOCKS - 2) / (centred @ centred)))


def row_of(
    what: str, words: Sequence[str], looks: Sequence[Look], seconds: float, used: float | None, steady: bool
) -> Row:
    """What one command came to."""
    late = [look for look in looks if look[0] >= WARM * looks[-1][0]]
    row: Row = {
        "what": what,
        "command": " ".join(["tapetum", *(Path(word).name if word.startswith("/") else word for word in words)]),
        "seconds": round(seconds, 1),
        "processor_seconds": None if used is None else round(used, 1),
        "peak_mb": round(max(look[1] for look in looks)),
        "handles": [min(look[2] for look in late), max(look[2] for look in late)],
        "threads": [min(look[3] for look in late), max(look[3] for look in late)],
    }
    if steady and len(late) >= 4 * BLOCKS:
        row["mb_per_hour"], row["standard_error"] = (round(one, 2) for one in slope(looks))
        row["slope_from"], row["highest_at"] = round(late[0][0]), round(max(looks, key=lambda look: look[5])[0])
    return row | {"looks": list(looks[:: -(-len(looks) // KEPT)])}


def training(images: Path, folder: Path, count: int, threads: int) -> Iterator[tuple[str, list[str]]]:
    """So many minutes of `fit`, with a checkpoint every hundred steps, evaluations and two loader processes."""
    words = ["fit", "--images", str(images), "--labels-per-class", "400", "--minutes", str(count), "--output", "run"]
    yield f"{count} minutes of training", [*words, *OFTEN]


OFTEN = ("trainer.checkpoint_every=100", "trainer.evaluations=40", "data.workers=2")


def predictions(images: Path, folder: Path, count: int, threads: int) -> Iterator[tuple[str, list[str]]]:
    """`predict` for so many images, which are the given ones under several names."""
    yield "", ["fit", "--images", str(images), "--labels-per-class", "40", "--steps", "20", "--output", "run"]
    link(sorted(path for path in images.rglob("*") if path.is_file()), folder / "many", count)
    yield f"{count:,} predictions", ["predict", "run", "many", "--output", "table.csv"]


def files(images: Path, folder: Path, count: int, threads: int) -> Iterator[tuple[str, list[str]]]:
    """`check`, and the start of a training, on so many tiny files, all of them different."""
    noise(folder / "many", count, 8, lambda number: f"{number // 1000:04}")
    yield f"check of {count:,} files", ["check", "many", "--output", "health"]
    words = ["train", "simclr_cifar10_cpu", "--output", "run", "data.images=many", "trainer.steps=2", RESIZED]
    yield f"start and 2 steps of a training on {count:,} files", words
    yield f"the same again, {count:,} files in the cache", [*words[:3], "again", *words[4:]]


RESIZED = "views.evaluation.resize=32"
"""The recipe looks at 32 pixels; these images have 8."""


def classes(images: Path, folder: Path, count: int, threads: int) -> Iterator[tuple[str, list[str]]]:
    """Training and prediction with so many classes, of four images each."""
    noise(folder / "many", 4 * count, 16, lambda number: f"{number // 4:05}")
    yield f"10 steps with {count:,} classes", ["fit", "--images", "many", "--steps", "10", "--output", "run"]
    yield f"predictions among {count:,} classes", ["predict", "run", "many", "--output", "table.csv"]


def supports(images: Path, folder: Path, count: int, threads: int) -> Iterator[tuple[str, list[str]]]:
    """Training and prediction with so many labelled images, all of which predictions are compared with."""
    link(sorted(path for path in images.rglob("*") if path.is_file()), folder / "many", count, by_class=True)
    words = ["fit", "--images", "many", "--steps", "10", "--output", "run"]
    yield f"10 steps with {count:,} labelled images", words
    some = next(path for path in sorted(images.iterdir()) if path.is_dir())
    yield f"predictions from {count:,} labelled images", ["predict", "run", str(some), "--output", "table.csv"]


PARTS: dict[str, tuple[Callable[..., Iterator[tuple[str, list[str]]]], int]] = {
    "training": (training, 60),
    "predictions": (predictions, 100_000),
    "files": (files, 1_000_000),
    "classes": (classes, 2_000),
    "supports": (supports, 100_000),
}
"""What there is -> its commands, each with what it is called ("" if it only prepares), and how many."""


def link(paths: Sequence[Path], folder: Path, count: int, by_class: bool = False) -> None:
    """Give files more names, a thousand in each folder, or in folders that are called as theirs."""
    if by_class:  # so that few come from all classes
        paths = [path for start in range(len(paths) // 10) for path in paths[start :: len(paths) // 10]]
    for number in range(count):
        path = paths[number % len(paths)]
        place = folder / (path.parent.name if by_class else f"{number // 1000:04}")
        if by_class or number % 1000 == 0:
            place.mkdir(parents=True, exist_ok=True)
        os.link(path, place / f"{number:07}{path.suffix}")


def noise(folder: Path, count: int, side: int, place: Callable[[int], str]) -> None:
    """Write so many images as PNG files, each below the folder that `place` names for its number."""
    generator = np.random.default_rng(0)
    for number in range(count):
        rows = generator.integers(0, 256, (side, 1 + 3 * side), dtype=np.uint8)
        rows[:, 0] = 0  # no filter
        parts = (
            (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows.tobytes(), 1)),
        )
        inside = folder / place(number)
        inside.mkdir(parents=True, exist_ok=True)
        (inside / f"{number:07}.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in (*parts, END))
        )


END = (b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write what was found, a line for each command."""
    from tapetum.system.files import write_text

    head, lines = json.dumps({"section": "long", "machine": machine()}, indent=1), ",\n  ".join(map(json.dumps, rows))
    write_text(path, f'{head[:-2]},\n "rows": [\n  {lines}\n ]\n}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", "--minutes", type=int, help="how many, if not as many as usual")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="where files are made, on the disk of DIR")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    part, usual = PARTS[given.part]
    rows = []
    with tempfile.TemporaryDirectory(dir=given.scratch, ignore_cleanup_errors=True) as scratch:
        for what, words in part(given.images.resolve(), Path(scratch), given.count or usual, given.threads):
            watched = watch(words, Path(scratch), given.threads)
            if what:
                rows.append(row_of(what, words, *watched, given.part in STEADY))
                print({key: value for key, value in rows[-1].items() if key != "looks"}, flush=True)
                write(given.json, rows)


if __name__ == "__main__":
    main()
