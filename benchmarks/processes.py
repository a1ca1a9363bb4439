"""Whether a second core is better used by a second process or by a second thread.

    python benchmarks/processes.py [--recipes paws_cifar10_cpu ...] [--steps 60] [--rounds 5] [--json FILE]

Trains a recipe on made-up images by `tapetum train` in three ways that take turns: one process of one thread, one of
two threads (`runtime.threads=2`), and two of one thread each (`runtime.devices=2 runtime.threads=1`), which exchange
gradients, batch statistics and whatever the loss needs. Sizes in a recipe are global, so all of them train the same
batches. The machine needs two cores that nothing else uses: pin the script to them with taskset.

Efficiency is the images a second over twice those of one process of one thread.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from side_by_side import Sample, machine, peaks, save_photographs, write_json

RECIPES = ("paws_cifar10_cpu", "swav_cifar10_cpu")
WAYS = {"one": (1, 1), "threads": (1, 2), "processes": (2, 1)}
"""Name -> processes, threads of each."""
POOL = 2000
WARMUP = 5


def settings_of(images: Path, way: str, steps: int) -> list[str]:
    """What a recipe is told."""
    processes, threads = WAYS[way]
    return [
        "trainer.minutes=null",
        f"trainer.steps={WARMUP + steps}",
        f"runtime.devices={processes}",
        f"runtime.threads={threads}",
        "runtime.accelerator=cpu",
        f"data.images={images}",
        "data.test=null",
        "data.labels_per_class=100",
    ]


def rate(metrics: Path) -> float:
    """Images a second, without the first steps, which also build kernels."""
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = [(float(row["images_seen"]), float(row["train_seconds"])) for row in csv.DictReader(file)]
    (first, began), (last, ended) = rows[WARMUP - 1], rows[-1]
    return (last - first) / (ended - began)


def measure(recipe: str, way: str, images: Path, folder: Path, steps: int) -> Sample:
    """Train once, in processes of their own.

    Raises:
        subprocess.CalledProcessError: the training failed; its messages have been printed.
    """
    own = ("OMP_NUM_THREADS", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    arguments = ["train", recipe, "--output", str(folder), *settings_of(images, way, steps)]
    subprocess.run(
        [sys.executable, "-m", "tapetum", *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return {"images_per_second": rate(folder / "metrics.csv")}


def compare(recipe: str, images: Path, folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Measure every way once a round."""
    samples: dict[str, list[Sample]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            found = measure(recipe, way, images, folder / f"{recipe}-{way}-{number}", steps)
            samples[way].append(found)
            speed = found["images_per_second"]
            print(f"round {number + 1} of {rounds}, {recipe}, {way}: {speed:.1f} images a second", flush=True)
    return {"rounds": samples, **summary(samples)}


def summary(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """Medians of the rates, and of the ratios within rounds."""
    rates = {way: [sample["images_per_second"] for sample in found] for way, found in samples.items()}

    def ratio(way: str, to: str) -> float:
        return median(mine / other for mine, other in zip(rates[way], rates[to]))

    return {
        "images_per_second": {way: round(median(found), 1) for way, found in rates.items()},
        "efficiency": {way: round(ratio(way, "one") / 2, 3) for way in ("threads", "processes")},
        "processes_over_threads": round(ratio("processes", "threads"), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), help="what to train")
    parser.add_argument("--steps", type=int, default=60, help="of each training, after the first few")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each way")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    options = parser.parse_args()
    before = peaks(2)
    recipes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = save_photographs(Path(folder), POOL)
        for recipe in options.recipes:
            recipes[recipe] = compare(recipe, images, Path(folder), options.steps, options.rounds)
    result = {"steps": options.steps, "recipes": recipes, "machine": machine()}
    write_json(options.json, {**result, "matrix_gflops": {"before": before, "after": peaks(2)}})
    for recipe, found in recipes.items():
        print(f"{recipe}: {found['images_per_second']} images a second, efficiency {found['efficiency']}")


if __name__ == "__main__":
    main()
