"""How seconds and memory grow with what grows: images, labels, classes, pixels.

    python benchmarks/growth.py [--quick] [--threads 2] [--curves "k-means" ...] [--json FILE]

Each point is measured in a process of its own, whose peak memory is then the point's. Steps are those of the recipe
`paws_cifar10_cpu` (small_net), views and optimiser included, on made-up images; evaluations, k-means and Sinkhorn get
made-up embeddings. `--quick` measures the two smallest sizes of each curve.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from side_by_side import (
    Sample,
    in_own_process,
    machine,
    peak_memory_mb,
    peaks,
    photographs,
    save_photographs,
    write_json,
)
from torch import Tensor
from torch.nn.functional import normalize

STARTS = {"import tapetum": ["-c", "import tapetum"], "tapetum --help": ["-m", "tapetum", "--help"]}
"""What starts -> arguments of Python."""
DIMENSION, CLASSES, PROTOTYPES = 128, 100, 3000
"""Of made-up embeddings, and the number of prototypes in the published SwAV and DeepCluster-v2."""
WARMUP, STEPS = 1, 3


@dataclass(frozen=True)
class Curve:
    """One thing that grows."""

    what: str
    """What is timed, and with which other sizes."""
    axis: str
    """What the sizes count."""
    sizes: tuple[int, ...]
    """From the smallest to the largest."""
    measure: Callable[[int], float]
    """Size -> seconds."""


def step(size: int, axis: str, chunk: int | None = None) -> float:
    """Median seconds of a step of PAWS where one size differs from 64 images, 80 supports, 10 classes, 24 pixels."""
    from tapetum.engine.callbacks import Callback
    from tapetum.recipe.recipe import load_recipe
    from tapetum.runs.run import assemble

    sizes = {"images": 64, "supports": 80, "classes": 10, "pixels": 24} | {axis: size}
    if axis == "classes":
        sizes["supports"] = 512
    ticks: list[float] = []

    class Ticks(Callback):
        def on_steps(self, rows: Sequence[Any]) -> None:
            ticks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        images = save_photographs(Path(folder), max(2048, sizes["images"], sizes["supports"]), sizes["classes"])
        run = assemble(load_recipe("paws_cifar10_cpu", settings_of(sizes, images, chunk)))
        run.resolve()
        run.trainer(None, callbacks=[Ticks()]).fit()
    return median(later - earlier for earlier, later in zip(ticks[WARMUP - 1 :], ticks[WARMUP:]))


def settings_of(sizes: dict[str, int], images: Path, chunk: int | None) -> list[str]:
    """What the recipe is told."""
    return [
        f"data.images={images}",
        "data.test=null",
        "data.labels_per_class=null",
        "data.held_out_per_class=null",
        f"data.batch_size={sizes['images']}",
        f"support.images_per_class={sizes['supports'] // sizes['classes']}",
        f"support.chunk={'null' if chunk is None else chunk}",
        "views.support_views=1",
        f"views.large.size={sizes['pixels']}",
        f"views.support.size={sizes['pixels']}",
        "runtime.accelerator=cpu",
        f"runtime.threads={torch.get_num_threads()}",
        "trainer.minutes=null",
        f"trainer.steps={WARMUP + STEPS}",
        "trainer.log_every=1",
    ]


def seconds_of(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def made_up(rows: int, columns: int = DIMENSION) -> Tensor:
    """(rows, columns) unit vectors."""
    return normalize(torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)), dim=1)


def judged(tests: int, supports: int, by: str) -> float:
    """Seconds of classifying embeddings by their soft nearest neighbours, or by the votes of the nearest 20 and 200."""
    from tapetum.evaluation.nearest_neighbours import nearest_neighbour_votes
    from tapetum.evaluation.soft_neighbours import classify_by_neighbours

    judge = classify_by_neighbours if by == "soft-NN" else nearest_neighbour_votes
    queries, known, labels = made_up(tests), made_up(supports), torch.arange(supports) % CLASSES
    return seconds_of(lambda: judge(queries, known, labels, CLASSES))


def opened(count: int) -> float:
    """Seconds of opening so many images of 32 x 32 pixels, and their labels, in memory."""
    from tapetum.data.sources.open_source import open_source

    pixels = np.broadcast_to(photographs(1), (count, 32, 32, 3)).copy()
    return seconds_of(lambda: open_source(pixels, np.arange(count) % 10))


def clustered(rows: int) -> float:
    """Seconds of one iteration of k-means and the last assignment."""
    from tapetum.ops.kmeans import kmeans

    vectors = made_up(rows)
    return seconds_of(lambda: kmeans(vectors, vectors[:PROTOTYPES], iterations=1))


def assigned(rows: int) -> float:
    """Seconds of one round of Sinkhorn over a whole data set and the last assignment."""
    from tapetum.ops.sinkhorn import sinkhorn_labels

    vectors = made_up(rows)
    return seconds_of(lambda: sinkhorn_labels(vectors, vectors[:PROTOTYPES], epsilon=0.05, iterations=1))


def coded(rows: int) -> float:
    """Median seconds of the codes of a batch, in three rounds as in SwAV."""
    from tapetum.ops.sinkhorn import sinkhorn

    scores = made_up(rows) @ made_up(PROTOTYPES).T
    return median(seconds_of(lambda: sinkhorn(scores, epsilon=0.05)) for _ in range(3))


def curves() -> dict[str, Curve]:
    """All of them, by name."""
    plain = "a step of PAWS (64 images, 80 supports, 10 classes, 24 pixels)"
    counts, rows = (1000, 10_000, 100_000), (13_000, 130_000, 1_300_000)
    found = {
        "step by images": Curve(plain, "batch size", (32, 64, 128, 256), partial(step, axis="images")),
        "step by supports": Curve(plain, "supports", (80, 320, 1280), partial(step, axis="supports")),
        "step by supports in chunks": Curve(
            f"{plain}, supports in chunks of 80",
            "supports",
            (80, 320, 1280),
            partial(step, axis="supports", chunk=80),
        ),
        "step by classes": Curve(
            f"{plain}, with 512 supports", "classes", (2, 16, 128, 512), partial(step, axis="classes")
        ),
        "step by pixels": Curve(plain, "pixels of a large view's side", (16, 24, 48, 72), partial(step, axis="pixels")),
    }
    for by in ("soft-NN", "k-NN"):
        found |= {
            f"{by} by tests": Curve(
                f"{by} among 4,000 supports", "test images", counts, lambda n, by=by: judged(n, 4000, by)
            ),
            f"{by} by supports": Curve(
                f"{by} of 2,000 test images", "supports", counts, lambda n, by=by: judged(2000, n, by)
            ),
        }
    found["opening"] = Curve("opening images of 32 x 32 pixels in memory", "images", counts, opened)
    size = f"{DIMENSION} dimensions, {PROTOTYPES:,}"
    found["k-means"] = Curve(f"k-means, one iteration and the assignment ({size} clusters)", "rows", rows, clustered)
    found["Sinkhorn"] = Curve(
        f"Sinkhorn of a data set, one round and the assignment ({size} prototypes)", "rows", rows, assigned
    )
    found["Sinkhorn of a batch"] = Curve(
        f"Sinkhorn of a batch, three rounds ({PROTOTYPES:,} prototypes)", "rows", (256, 1024, 4096, 16_384), coded
    )
    return found


def measure(name: str, size: int) -> Sample:
    """One point of a curve, in this process."""
    start = peak_memory_mb()
    seconds = curves()[name].measure(size)
    return {"size": size, "seconds": seconds, "start_memory_mb": start, "peak_memory_mb": peak_memory_mb()}


def starts() -> dict[str, float]:
    """Median seconds in which a process starts, does this and ends; the first one, which fills caches, is left out."""

    def start(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)

    found = {}
    for name, arguments in STARTS.items():
        found[name] = median([seconds_of(lambda arguments=arguments: start(arguments)) for _ in range(4)][1:])
        print(f"{name:<28} {found[name]:10.3f} s", flush=True)
    return found


def points(name: str, sizes: Sequence[int], threads: int) -> list[Sample]:
    """Measure a curve, each point in a process of its own."""
    found = []
    for size in sizes:
        point = in_own_process(Path(__file__), ["--threads", str(threads), "--point", name, str(size)], threads)
        grown = point["peak_memory_mb"] - point["start_memory_mb"]
        print(
            f"{name:<28} {size:>10,} {point['seconds']:10.3f} s  {point['peak_memory_mb']:7,.0f} MB, {grown:+,.0f}",
            flush=True,
        )
        found.append(point)
    return found


def main() -> None:
    known = curves()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", nargs="+", default=list(known), choices=known, help="what to measure")
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes of each curve")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of each process")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.point:
        print(json.dumps(measure(options.point[0], int(options.point[1]))))
        sys.exit()
    before, found = peaks(options.threads), {}
    begun = starts()
    for name in options.curves:
        curve = known[name]
        sizes = curve.sizes[:2] if options.quick else curve.sizes
        found[name] = {"what": curve.what, "axis": curve.axis, "points": points(name, sizes, options.threads)}
    result = {"threads": options.threads, "quick": options.quick, "starts": begun, "curves": found}
    peak = {"before": before, "after": peaks(options.threads)}
    write_json(options.json, {**result, "machine": machine(), "matrix_gflops": peak})


if __name__ == "__main__":
    main()
