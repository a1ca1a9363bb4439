"""Training steps: Tapetum's PAWS against the usual way, views and optimiser included.

    python benchmarks/step.py [--fraction 8] [--threads 2] [--json FILE]

WRN-28-2 on the published CIFAR-10 batch (256 unlabelled images in 2x32 + 6x18 views, 2 views of 64 supports of each of
10 classes) or, so that the usual way fits into memory, a fraction of it: `--fraction 8` takes 32 unlabelled images and
8 supports a class. `usual` is `usual.py`: PIL in loader workers, float32, NCHW. `ours` is the recipe
`paws_cifar10_4000` through `Trainer` as `tapetum train` runs it; `compiled` the same with runtime.compile=true. The
demand is 4 times the usual way's images a second. An image is an unlabelled one.

The floor is the time of the step's multiplications (forward and backward, those with the padding counted) at this
machine's matrix peak, of bfloat16 or float32, whichever is higher: a yardstick, not a proof, since a convolution may
skip its padding.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from side_by_side import (
    Sample,
    alternate,
    cpu_seconds,
    machine,
    peak_memory_mb,
    peaks,
    photographs,
    print_ratios,
    write_json,
)
from torch import nn

WAYS = ("usual", "ours", "compiled")
POOL = 4000
SPARE_BATCHES = 4


class Clock:
    """Splits warm-up from what counts."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.began = warmup, time.perf_counter()
        self.steps: list[tuple[float, float]] = []

    def tick(self) -> None:
        """A step has finished."""
        self.steps.append((time.perf_counter(), cpu_seconds()))

    def finding(self, batch_size: int) -> Sample:
        """Rates over the steps after the warm-up."""
        (first, first_cpu), (last, last_cpu) = self.steps[self.warmup - 1], self.steps[-1]
        count = len(self.steps) - self.warmup
        return {
            "images_per_second": batch_size * count / (last - first),
            "images_per_cpu_second": batch_size * count / (last_cpu - first_cpu),
            "step_seconds": (last - first) / count,
            "step_cpu_seconds": (last_cpu - first_cpu) / count,
            "first_step_seconds": self.steps[0][0] - self.began,
            "peak_memory_mb": peak_memory_mb(),
        }


def network(depth: int, width: int) -> nn.Sequential:
    """Backbone and projector: the same plain torch layers in all ways."""
    from tapetum.nn.heads import HeadConfig, build_heads
    from tapetum.nn.wide_resnet import WideResNet, WideResNetConfig

    torch.manual_seed(0)
    backbone = WideResNet(WideResNetConfig(depth=depth, width=width))
    return nn.Sequential(backbone, build_heads(HeadConfig(), backbone.num_features)[0])


def run_usual(options: argparse.Namespace) -> Sample:
    from usual import usual_loaders, usual_steps

    torch.set_num_threads(options.threads)
    steps = options.warmup + options.steps
    sizes = (256 // options.fraction, 64 // options.fraction)
    # Loaders read ahead: with batches to spare they still make one for each that is taken, to the last step.
    loaders = usual_loaders(photographs(POOL), *sizes, steps=steps + SPARE_BATCHES, workers=1)
    clock = Clock(options.warmup)
    for _ in islice(usual_steps(network(options.depth, options.width), *loaders), steps):
        clock.tick()
    return clock.finding(sizes[0])


def overrides(options: argparse.Namespace) -> list[str]:
    """What the recipe is told for a fraction of its batch."""
    return [
        f"data.batch_size={256 // options.fraction}",
        f"support.images_per_class={64 // options.fraction}",
        f"backbone.depth={options.depth}",
        f"backbone.width={options.width}",
        f"runtime.threads={options.threads}",
        f"runtime.compile={'true' if options.way == 'compiled' else 'false'}",
        "runtime.accelerator=cpu",
        "trainer.epochs=null",
        f"trainer.steps={options.warmup + options.steps}",
        "trainer.log_every=1",
    ]


def run_ours(options: argparse.Namespace) -> Sample:
    from tapetum.data.batches.pipeline import Pipeline
    from tapetum.data.images.stores import ArrayStore
    from tapetum.data.labels.labels import Labels, sorted_classes
    from tapetum.engine.callbacks import Callback
    from tapetum.engine.runtime import Runtime
    from tapetum.engine.trainer import Trainer
    from tapetum.methods.paws import PAWS, PAWSConfig
    from tapetum.optim.optimizers import build_optimizer, set_schedules
    from tapetum.recipe.recipe import load_recipe

    recipe = load_recipe("paws_cifar10_4000", overrides(options))
    runtime = Runtime(recipe.runtime)
    runtime.launch()
    store = ArrayStore(photographs(POOL).transpose(0, 3, 1, 2).copy())
    values = torch.arange(POOL).remainder(10).numpy()
    labels = Labels(sorted_classes(map(str, range(10))), tuple(store.names), values)
    pipeline = Pipeline(
        store, labels, recipe.views, recipe.support, batch_size=recipe.data.batch_size, seed=recipe.seed
    )
    assert isinstance(recipe.method, PAWSConfig)
    method = PAWS(recipe.method, network(options.depth, options.width)[0], num_classes=10, num_images=POOL)
    optimizer = build_optimizer(recipe.optimizer, method)
    clock = Clock(options.warmup)

    class Ticks(Callback):
        def on_steps(self, rows: Sequence[Any]) -> None:
            clock.tick()

    per_epoch, total = pipeline.batches_per_epoch, options.warmup + options.steps
    Trainer(
        method,
        optimizer,
        lambda step: set_schedules(optimizer, recipe.optimizer, step, per_epoch, total),
        lambda start, stop: pipeline.batches(start, stop, channels_last=runtime.channels_last),
        steps_per_epoch=per_epoch,
        total_steps=total,
        config=recipe.trainer,
        runtime=runtime,
        callbacks=[Ticks()],
    ).fit()
    return clock.finding(recipe.data.batch_size)


def operations(options: argparse.Namespace) -> float:
    """GFLOP of one step's multiplications and additions, forward and backward, counted without computing."""
    from torch.utils.flop_counter import FlopCounterMode

    large, small = 2 * (64 * 10 + 256) // options.fraction, 6 * 256 // options.fraction
    model = network(options.depth, options.width).to("meta")
    with FlopCounterMode(display=False) as counter:
        for count, size in ((large, 32), (small, 18)):
            model(torch.empty(count, 3, size, size, device="meta")).sum().backward()
    return counter.get_total_flops() / 1e9


def report(options: argparse.Namespace, samples: dict[str, list[Sample]], found: dict[str, Any]) -> dict[str, Any]:
    """Print ratios, memory and the share of the floor."""
    before, after = found["matrix_gflops"]["before"], found["matrix_gflops"]["after"]
    print(
        f"\nPAWS step, WRN-{options.depth}-{options.width}, 1/{options.fraction} of the published batch,"
        f" {options.threads} threads; matrix GFLOP/s\n  before {before}\n  after  {after}"
    )
    found["ratio_to_usual"] = print_ratios(samples, ("images_per_second", "images_per_cpu_second"))
    gflop = found["gflop_per_step"] = operations(options)
    peak = max(p[kind] for p in (before, after) for kind in ("bfloat16", "float32"))
    peak_cpu = max(p[f"{kind}_per_cpu_second"] for p in (before, after) for kind in ("bfloat16", "float32"))
    found["floor"] = {"step_seconds": gflop / peak, "step_cpu_seconds": gflop / peak_cpu}
    usual = median(sample["step_cpu_seconds"] for sample in samples["usual"])
    print(f"floor: {gflop:.0f} GFLOP a step, {gflop / peak_cpu:.2f} CPU seconds at the matrix peak")
    print(f"  doing nothing else, all at that peak, would be {usual * peak_cpu / gflop:.2f} times the usual way")
    for way, rounds in samples.items():
        wall, cpu, memory, first = (
            median(sample[key] for sample in rounds)
            for key in ("step_seconds", "step_cpu_seconds", "peak_memory_mb", "first_step_seconds")
        )
        print(
            f"{way:>9}  step {wall:.2f} s, {cpu:.2f} CPU s; {gflop / peak / wall:.0%} of the floor by wall time,"
            f" {gflop / peak_cpu / cpu:.0%} by CPU time; peak memory {memory:.0f} MB; first step after {first:.1f} s"
        )
    return found


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all ways in turn and print the ratios."""
    names = ("fraction", "threads", "steps", "warmup", "depth", "width")
    arguments = [part for name in names for part in (f"--{name}", str(getattr(options, name)))]
    ways = WAYS if options.compile else WAYS[:2]
    before = peaks(options.threads)
    samples = alternate(Path(__file__), ways, arguments, rounds=options.rounds, threads=options.threads)
    settings = {name: getattr(options, name) for name in names}
    found = {**settings, "rounds": samples, "machine": machine()}
    return report(options, samples, {**found, "matrix_gflops": {"before": before, "after": peaks(options.threads)}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=int, choices=(1, 2, 4, 8, 16, 32, 64), default=8, help="batch: 1 / this")
    parser.add_argument("--threads", type=int, default=2, help="threads of the trainer")
    parser.add_argument("--steps", type=int, default=3, help="steps that count, per measurement")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way")
    parser.add_argument("--depth", type=int, default=28, help="of the WRN")
    parser.add_argument("--width", type=int, default=2, help="of the WRN")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too: minutes for each round")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(run_usual(options) if options.way == "usual" else run_ours(options)))
        sys.exit()
    write_json(options.json, compare(options))


if __name__ == "__main__":
    main()
