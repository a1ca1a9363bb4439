"""Every side-by-side comparison in one run, and their ratios in one table.

    python benchmarks/ratios.py --images DIR [--quick] [--folder docs/results --name MACHINE]

Runs the other scripts one after the other (each takes turns between its ways) and prints how many times faster than the
usual way each of ours is. Keep the machine otherwise idle. `--folder` keeps what they found where the pages of docs are
made from; `--quick` only shows that everything runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Comparison:
    """One script and the place of its findings."""

    script: str
    what: str
    place: str
    """The file below the folder of results; {} is the machine's name."""
    quick: tuple[str, ...]
    """Options that make it short."""
    needs_images: bool = False
    one_thread: bool = False


COMPARISONS = (
    Comparison(
        "views",
        "views of CIFAR-10, one core",
        "speed/views_{}.json",
        ("--images", "256", "--rounds", "1"),
        one_thread=True,
    ),
    Comparison(
        "views_on_disk",
        "views of JPEG photographs, one core",
        "views_on_disk/{}.json",
        ("--count", "16", "--rounds", "1"),
        needs_images=True,
        one_thread=True,
    ),
    Comparison(
        "step", "PAWS step, WRN-28-2", "speed/step_{}.json", ("--fraction", "64", "--steps", "1", "--rounds", "1")
    ),
    Comparison("linear_probe", "linear probe", "linear_probe/{}.json", ("--images", "2000", "--rounds", "1")),
    Comparison(
        "processes",
        "two processes of one thread, to one of two",
        "processes/{}.json",
        ("--steps", "5", "--rounds", "1"),
    ),
)


def run(comparison: Comparison, path: Path, images: Path | None, quick: bool) -> dict[str, Any]:
    """Run one script and read what it wrote."""
    command = [sys.executable, str(HERE / f"{comparison.script}.py"), "--json", str(path)]
    command += ["--images", str(images)] if comparison.needs_images else []
    command += comparison.quick if quick else ()
    threads = {"OMP_NUM_THREADS": "1"} if comparison.one_thread else {}
    subprocess.run(command, check=True, env={**os.environ, **threads})
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def lines(comparison: Comparison, found: dict[str, Any]) -> list[tuple[str, str, float]]:
    """(what, way, times as fast) of one script's findings."""
    if comparison.script == "linear_probe":
        kinds = {kind: part["median"] for kind, part in found.items() if isinstance(part, dict) and "median" in part}
        return [(comparison.what, kind, part["usual_over_fixed"]) for kind, part in kinds.items()]
    if comparison.script == "processes":
        # Of each recipe: images a second of two processes of one thread, over those of one process of two.
        return [(comparison.what, recipe, part["processes_over_threads"]) for recipe, part in found["recipes"].items()]
    ways = found["ratio_to_usual"].items()
    return [(comparison.what, way, ratio["images_per_cpu_second"]) for way, ratio in ways if way != "usual"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder with JPEG photographs; without it, they are left out")
    parser.add_argument("--quick", action="store_true", help="few steps and one round: shows that it runs, no more")
    parser.add_argument("--folder", type=Path, help="keep the findings here, as docs/results does")
    parser.add_argument("--name", default="machine", help="what to call this machine in the names of files")
    options = parser.parse_args()
    table: list[tuple[str, str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for comparison in COMPARISONS:
            if comparison.needs_images and options.images is None:
                continue
            path = (options.folder or Path(scratch)) / comparison.place.format(options.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            table += lines(comparison, run(comparison, path, options.images, options.quick))
    print("\ntimes as fast as the usual way")
    for what, way, ratio in table:
        print(f"  {what:<44} {way:<24} {ratio:6.2f}")


if __name__ == "__main__":
    main()
