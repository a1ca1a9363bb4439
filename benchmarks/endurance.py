"""Long and large: does memory stay flat, and do millions of files, thousands of classes and many supports work?

    python benchmarks/endurance.py training --images DIR [--minutes 60] --json docs/results/reliability/long_NAME.json
    python benchmarks/endurance.py predictions|files|classes|supports --images DIR [--count N] --json FILE

Each part runs `tapetum` itself, as a user would, and looks at it and at its child processes every second: memory (the
proportional set size, which counts pages that processes share once), open file handles and threads. DIR holds small
images in a folder for each class, such as CIFAR-10's; what a part needs more is made from them in a temporary folder,
as hard links where there are many. The page is docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from side_by_side import machine

EVERY = 1.0
"""Seconds between two looks."""
WARM = 0.25
"""Share of a command's time that the slope leaves out: caches fill, and memory that was freed is kept."""
BLOCKS = 12
"""Means of so many stretches give the slope and its error: neighbouring looks are not independent, these nearly are."""
KEPT = 240
"""Greatest number of looks that are written."""
LINKS = 10_000
"""Names of one file; file systems allow some ten thousand."""
Look = tuple[float, float, int, int, int]
"""Seconds, MB, handles, threads, processes."""
Row = dict[str, Any]


def watch(words: Sequence[str], folder: Path, threads: int) -> tuple[list[Look], float]:
    """Run `tapetum WORDS` in a folder, and look at it until it ends.

    Returns:
        What was seen, and the seconds it took.

    Raises:
        SystemExit: it failed; says what it said last.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TAPETUM_CACHE": str(folder / "cache")}
    log = folder / "log.txt"
    looks, began = [], time.perf_counter()
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
    return looks, seconds


def _look(number: int, seconds: float) -> Look | None:
    memory, handles, threads, processes = 0.0, 0, 0, 0
    for one in _family(number):
        proc = Path(f"/proc/{one}")
        try:
            rows = dict(line.split()[:2] for line in (proc / "smaps_rollup").read_text().splitlines()[1:])
            memory += int(rows["Pss:"]) / 1024
            handles += len(os.listdir(proc / "fd"))
            threads += len(os.listdir(proc / "task"))
            processes += 1
        except (OSError, KeyError, ValueError):  # it has just ended
            continue
    return (round(seconds, 1), round(memory, 1), handles, threads, processes) if processes else None


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
    """Least-squares slope of memory in MB per hour, and its standard error, from the means of `BLOCKS` stretches."""
    late = np.array([look[:2] for look in looks if look[0] >= WARM * looks[-1][0]])
    blocks = [part.mean(axis=0) for part in np.array_split(late, BLOCKS)]
    hours, memory = np.array(blocks).T / np.array([[3600.0], [1.0]])
    centred = hours - hours.mean()
    found = (centred @ memory) / (centred @ centred)
    left = memory - memory.mean() - found * centred
    return float(found), float(np.sqrt(left @ left / (BLOCKS - 2) / (centred @ centred)))


def row_of(what: str, words: Sequence[str], looks: Sequence[Look], seconds: float) -> Row:
    """What one command came to."""
    late = [look for look in looks if look[0] >= WARM * looks[-1][0]]
    row: Row = {
        "what": what,
        "command": " ".join(["tapetum", *words]),
        "seconds": round(seconds, 1),
        "peak_mb": round(max(look[1] for look in looks)),
        "handles": [min(look[2] for look in late), max(look[2] for look in late)],
        "threads": [min(look[3] for look in late), max(look[3] for look in late)],
    }
    if len(late) >= 4 * BLOCKS:
        row["mb_per_hour"], row["standard_error"] = (round(one, 2) for one in slope(looks))
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
    """`check`, and the start of a training, on so many tiny files."""
    link(tiny_images(folder / "tiny", -(-count // LINKS), 32), folder / "many", count)
    yield f"check of {count:,} files", ["check", "many", "--output", "health"]
    words = ["train", "simclr_cifar10_cpu", "--output", "run", "data.images=many", "trainer.steps=2"]
    yield f"start and 2 steps of a training on {count:,} files", words
    yield f"the same again, {count:,} files in the cache", [*words[:3], "again", *words[4:]]


def classes(images: Path, folder: Path, count: int, threads: int) -> Iterator[tuple[str, list[str]]]:
    """Training and prediction with so many classes, of four images each."""
    for number, path in enumerate(tiny_images(folder / "tiny", 4 * count, 16)):
        (folder / f"many/{number % count:05}").mkdir(parents=True, exist_ok=True)
        path.rename(folder / f"many/{number % count:05}/{path.name}")
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


def tiny_images(folder: Path, count: int, side: int) -> list[Path]:
    """Write noise as PNG files."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    paths = [folder / f"{number:05}.png" for number in range(count)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths


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
            looks, seconds = watch(words, Path(scratch), given.threads)
            if what:
                rows.append(row_of(what, words, looks, seconds))
                print({key: value for key, value in rows[-1].items() if key != "looks"}, flush=True)
                write(given.json, rows)


if __name__ == "__main__":
    main()
