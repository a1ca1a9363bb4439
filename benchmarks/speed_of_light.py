"""How near to the machine's limit training runs, and where the rest of the time goes.

    python benchmarks/speed_of_light.py [--recipes paws_cifar10_cpu ...] [--threads 2] [--json FILE]

Prints what the machine can do (matrix products in float32 and bfloat16, bytes copied a second), and for each recipe,
trained as `tapetum train` does it on made-up images: the multiplications and additions of a step, its seconds by part,
and the share of the peak of the type in which it computes. Parts do not overlap: a part's seconds are without those of
the parts inside it. On a CPU, where each call ends when its work has ended, they add up to the step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from parts import Clock
from side_by_side import machine, peaks, save_photographs, write_json
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tapetum
from tapetum.data.batches import pipeline
from tapetum.data.images.stores import ArrayStore
from tapetum.diagnosis.collapse_doctor import CollapseDoctor
from tapetum.engine.runtime import Runtime
from tapetum.engine.trainer import Trainer
from tapetum.methods.base import Method
from tapetum.runs import run

RECIPES = {
    "paws_cifar10_cpu": [],
    "swav_cifar10_cpu": [],
    "supervised_cifar10_cpu": [],
    "fixmatch_cifar10_cpu": ["method.unlabelled_start=0"],
    "paws_cifar10_4000": ["data.batch_size=32", "support.images_per_class=8", "trainer.epochs=null"],
}
"""Recipe -> what it is told; of FixMatch, the steps that see unlabelled images; of the published one, an eighth of the
batch."""
POOL = 2000
WARMUP = 5
COPIED_BYTES = 2**28


class StepClock(Clock):
    """Counts steps, too."""

    def __init__(self) -> None:
        super().__init__()
        self._marks: list[tuple[float, dict[str, float]]] = []

    def mark(self) -> None:
        """A step has ended."""
        self._marks.append((time.perf_counter(), dict(self.seconds)))

    def finding(self) -> dict[str, Any]:
        """Seconds of a step and of its parts, without the first steps, which also build kernels."""
        (first, before), (last, after) = self._marks[WARMUP - 1], self._marks[-1]
        count = len(self._marks) - WARMUP
        parts = {part: (seconds - before.get(part, 0.0)) / count for part, seconds in after.items()}
        step = (last - first) / count
        parts["other"] = step - sum(parts.values())
        return {"step_seconds": step, "parts": {part: seconds for part, seconds in parts.items() if seconds > 0}}


def clocked(clock: StepClock, patches: ExitStack) -> None:
    """Put the clock around everything that a step does."""
    places: list[tuple[Any, str, str]] = [
        (pipeline, "draw", "draw"),
        (pipeline, "make_keys", "draw"),
        (ArrayStore, "read", "read"),
        (pipeline, "crop_resize_flip", "crop"),
        (pipeline, "distort_and_normalise", "colour"),
        (pipeline.Pipeline, "cut", "views, the rest"),
        (pipeline.Pipeline, "finish", "views, the rest"),
        (Runtime, "backward", "backward"),
        (torch.nn.utils, "get_total_norm", "gradient norm"),
        (CollapseDoctor, "on_steps", "collapse doctor"),
        (Trainer, "_after_step", "logging"),
    ]
    patches.enter_context(clock.placed(places))
    setup, build, after_step = Runtime.setup, run.build_backbone, Trainer._after_step

    def setup_clocked(self: Runtime, method: Method, optimizer: Any) -> Any:
        method.forward = clock.around("heads and loss", method.forward)  # type: ignore[method-assign]
        module, stepper = setup(self, method, optimizer)
        stepper.step = clock.around("optimiser", stepper.step)  # type: ignore[method-assign]
        return module, stepper

    def build_clocked(*args: Any, **kwargs: Any) -> nn.Module:
        backbone = build(*args, **kwargs)
        backbone.forward = clock.around("backbone", backbone.forward)
        return backbone

    def after_step_marked(self: Trainer) -> None:
        after_step(self)
        clock.mark()

    for owner, name, replacement in (
        (Runtime, "setup", setup_clocked),
        (run, "build_backbone", build_clocked),
        (Trainer, "_after_step", after_step_marked),
    ):
        patches.enter_context(mock.patch.object(owner, name, replacement))


def settings_of(recipe: str, images: Path, steps: int, threads: int) -> list[str]:
    """What a recipe is told to train so many steps on the images."""
    return [
        *RECIPES[recipe],
        "trainer.minutes=null",
        f"trainer.steps={steps}",
        f"runtime.threads={threads}",
        f"data.images={images}",
        "data.test=null",
        "data.labels_per_class=100",
        "runtime.accelerator=cpu",
    ]


def operations(recipe: str, images: Path, folder: Path, threads: int) -> float:
    """GFLOP of one step: what two steps have more than one, so that nothing else is counted."""
    counts = []
    for steps in (1, 2):
        with FlopCounterMode(display=False) as counter:
            tapetum.train(recipe, folder / f"{recipe}-{steps}", settings_of(recipe, images, steps, threads))
        counts.append(counter.get_total_flops())
    return (counts[1] - counts[0]) / 1e9


def measure(recipe: str, images: Path, folder: Path, steps: int, threads: int) -> dict[str, Any]:
    """Count and time one recipe's steps."""
    gflop, clock = operations(recipe, images, folder, threads), StepClock()
    with ExitStack() as patches:
        clocked(clock, patches)
        trained = folder / recipe
        tapetum.train(recipe, trained, settings_of(recipe, images, WARMUP + steps, threads))
    precision = tapetum.load_recipe(trained / "recipe.yaml").runtime.precision
    return {"gflop_per_step": gflop, "precision": precision, **clock.finding()}


def bytes_per_second() -> float:
    """Bytes read and written a second by copying a block much larger than the caches; the best of some."""
    source, target = torch.zeros(COPIED_BYTES, dtype=torch.uint8), torch.empty(COPIED_BYTES, dtype=torch.uint8)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - began)
    return 2 * COPIED_BYTES / min(seconds)


def tell(recipe: str, found: dict[str, Any], peak: float) -> None:
    """Print one recipe's step."""
    step, gflop = found["step_seconds"], found["gflop_per_step"]
    print(
        f"\n{recipe}: {gflop:.1f} GFLOP and {1000 * step:.0f} ms a step, {gflop / step:.0f} GFLOP/s in "
        f"{found['precision']}, {found['share_of_peak']:.0%} of the peak ({peak:.0f})"
    )
    for part, seconds in sorted(found["parts"].items(), key=lambda item: -item[1]):
        print(f"  {part:<18} {1000 * seconds:8.2f} ms  {seconds / step:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, help="what to train")
    parser.add_argument("--steps", type=int, default=20, help="of each recipe, after the first few")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the trainer")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before, copied = peaks(options.threads), bytes_per_second()
    recipes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = save_photographs(Path(folder), POOL)
        for recipe in options.recipes:
            recipes[recipe] = measure(recipe, images, Path(folder), options.steps, options.threads)
    after = peaks(options.threads)
    print(f"\nmatrix products, GFLOP/s: before {before}, after {after}; {copied / 1e9:.1f} GB copied a second")
    for recipe, found in recipes.items():
        kind = "bfloat16" if "bf" in found["precision"] else "float32"
        peak = max(before[kind], after[kind])
        found["share_of_peak"] = found["gflop_per_step"] / found["step_seconds"] / peak
        tell(recipe, found, peak)
    settings = {"steps": options.steps, "threads": options.threads, "bytes_copied_per_second": copied}
    result = {**settings, "recipes": recipes, "machine": machine()}
    write_json(options.json, {**result, "matrix_gflops": {"before": before, "after": after}})


if __name__ == "__main__":
    main()
