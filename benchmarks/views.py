"""Views per core: Tapetum's batched draw-then-apply against one PIL image after the other.

    python benchmarks/views.py [--json FILE]

One process and one thread each; the same 2 views of 32 and 6 of 18 pixels of the recipe `paws_cifar10_4000`, from
uint8 images in memory to normalised float32 tensors. The usual way is spared what its DataLoader would add (collating
in the worker, sending to the trainer). `exact` equals PIL to the level and is what recipes use; `matrix` is the faster
approximation of the colour jitter that a recipe may name. The demand is 5 times the usual way, for `exact`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import Sample, peak_memory_mb, photographs, time_of_process, views_in_turn, write_json

WAYS = ("usual", "exact", "matrix")
VIEWS = 8
BATCH = 256


def usual(images: int) -> Callable[[], None]:
    """What makes all views of so many images, one image after the other."""
    from usual import UsualViews

    data = UsualViews(photographs(images), large=2, small=6)

    def run() -> None:
        for index in range(images):
            data[index]

    return run


def ours(images: int, colour: str) -> Callable[[], None]:
    """What makes all views of so many images, in batches as training does."""
    from tapetum.data.batches.pipeline import Pipeline
    from tapetum.data.images.stores import ArrayStore
    from tapetum.recipe.recipe import load_recipe

    recipe = load_recipe("paws_cifar10_4000", [f"views.{kind}.colour={colour}" for kind in ("large", "small")])
    store = ArrayStore(photographs(images).transpose(0, 3, 1, 2).copy())
    pipeline = Pipeline(store, None, recipe.views, None, batch_size=min(BATCH, images), seed=0)

    def run() -> None:
        for batch in pipeline.batches(0, pipeline.batches_per_epoch, channels_last=True):
            assert batch.views is not None

    return run


def measure(way: str, images: int) -> Sample:
    """Images and views a second, of wall time and of CPU time."""
    torch.set_num_threads(1)
    images -= images % min(BATCH, images)
    few = min(images, BATCH) if way != "usual" else 8
    warm_up, run = (usual(n) if way == "usual" else ours(n, way) for n in (few, images))
    warm_up()
    wall, cpu = time.perf_counter(), time_of_process()
    run()
    wall, cpu = time.perf_counter() - wall, time_of_process() - cpu
    return {
        "images_per_second": images / wall,
        "images_per_cpu_second": images / cpu,
        "views_per_cpu_second": VIEWS * images / cpu,
        "peak_memory_mb": peak_memory_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048, help="images per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.images)))
        sys.exit()
    arguments, what = ["--images", str(options.images)], f"views of {options.images} images, 2x32 + 6x18"
    rates = ("images_per_second", "images_per_cpu_second", "views_per_cpu_second")
    found = views_in_turn(
        Path(__file__), WAYS, arguments, rates, images=options.images, rounds=options.rounds, what=what
    )
    write_json(options.json, found)


if __name__ == "__main__":
    main()
