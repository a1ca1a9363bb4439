"""Views of JPEG files per core: Tapetum's pipeline against torchvision's transforms of PIL images.

    python benchmarks/views_on_disk.py --images DIR [--json FILE]

One process and one thread each; the 2 views of 224 and 6 of 96 pixels of the recipe `swav_imagenet_400ep`, from JPEG
files to normalised float32 tensors. The usual way is spared what its DataLoader would add. `exact` equals PIL to the
level and is what published recipes use; `matrix` approximates the colour jitter; `fast` approximates resizing, jitter
and blur. `cut` ends with the uint8 crops of `exact`, which is what loader workers do where a GPU distorts the colours,
and `fast_cut` with those of `fast`. Milliseconds by part tell where ours spends CPU time. The demand is 3 times the
usual way, for `fast`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts import Clock
from PIL import Image, ImageFilter
from side_by_side import Sample, peak_memory_mb, time_of_process, views_in_turn, write_json
from torchvision import transforms

RECIPE = "swav_imagenet_400ep"
WAYS = ("usual", "exact", "matrix", "fast", "cut", "fast_cut")
BATCH = 32


class Blur:
    """Blurs a PIL image with probability one half."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() >= 0.5:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def usual_transform(size: int, scale: tuple[float, float]) -> transforms.Compose:
    """One random view of a PIL image as a normalised float32 tensor."""
    jitter = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=scale),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(0.2),
            Blur(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),
        ]
    )


def usual(files: list[Path]) -> Callable[[], None]:
    """What makes all views of the files, one image after the other."""
    views = [usual_transform(224, (0.14, 1.0))] * 2 + [usual_transform(96, (0.05, 0.14))] * 6

    def run() -> None:
        for path in files:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            for view in views:
                view(image)

    return run


def ours(files: list[Path], way: str) -> Callable[[], None]:
    """What makes all views of the files, in batches as training does."""
    from tapetum.data.batches.pipeline import Pipeline
    from tapetum.data.images.stores import FileStore
    from tapetum.recipe.recipe import load_recipe

    colour = {"cut": "exact", "fast_cut": "fast"}.get(way, way)
    recipe = load_recipe(RECIPE, [f"views.{kind}.colour={colour}" for kind in ("large", "small")])
    store = FileStore(files[0].parent, [path.name for path in files])
    pipeline = Pipeline(store, None, recipe.views, None, batch_size=min(BATCH, len(files)), seed=0)

    def run() -> None:
        for number in range(pipeline.batches_per_epoch):
            cut = pipeline.cut(number)
            assert way.endswith("cut") or pipeline.finish(cut, channels_last=True).views is not None

    return run


def places() -> list[tuple[Any, str, str]]:
    """The functions of the parts."""
    from tapetum.data.batches import pipeline
    from tapetum.data.images import stores

    return [
        (stores, "decode", "decode"),
        (pipeline, "crop_resize_flip", "geometry"),
        (pipeline, "distort_and_normalise", "colour"),
    ]


def measure(way: str, files: list[Path]) -> Sample:
    """Images a second, of wall time and of CPU time, and the milliseconds of each part for an image."""
    torch.set_num_threads(1)
    files = files[: len(files) - len(files) % min(BATCH, len(files))]
    (usual(files[:2]) if way == "usual" else ours(files[:2], way))()
    clock = Clock(time_of_process)
    with clock.placed(places()):
        run = usual(files) if way == "usual" else ours(files, way)
        wall, cpu = time.perf_counter(), time_of_process()
        run()
        wall, cpu = time.perf_counter() - wall, time_of_process() - cpu
    found = {
        "images_per_second": len(files) / wall,
        "images_per_cpu_second": len(files) / cpu,
        "cpu_ms": 1000 * cpu / len(files),
        "peak_memory_mb": peak_memory_mb(),
    }
    return found | {f"{part}_ms": 1000 * value / len(files) for part, value in clock.seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder with JPEG files")
    parser.add_argument("--count", type=int, default=128, help="files per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        files = sorted(options.images.glob("*.[jJ][pP]*[gG]"))
        chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(options.count, len(files))).astype(int)]
        print(json.dumps(measure(options.way, chosen)))
        sys.exit()
    arguments = ["--images", str(options.images), "--count", str(options.count)]
    what = f"2x224 + 6x96 of {options.count} JPEG files"
    rates = ("images_per_second", "images_per_cpu_second")
    found = views_in_turn(
        Path(__file__), WAYS, arguments, rates, images=options.count, rounds=options.rounds, what=what
    )
    write_json(options.json, found)


if __name__ == "__main__":
    main()
