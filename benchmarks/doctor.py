"""What the collapse doctor, which watches every run, costs as a share of a training step.

    python benchmarks/doctor.py [--steps 200] [--threads 2] [--json FILE]

Each method's CIFAR-10 recipe is trained as `tapetum train` does it, on made-up images, with a clock around all that is
there for the doctor: the spread of embeddings, the entropy and use of codes, the length of prototypes, the norm of the
gradient, and the rules themselves. Shares of one process's time need no second run to compare with. The rules look
more often in a short run than in a long one, so the share printed is more than a long run's. The demand is 1%.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from side_by_side import machine, peaks, save_photographs, write_json

import tapetum
from tapetum.diagnosis.collapse_doctor import CollapseDoctor
from tapetum.methods.registry import METHODS
from tapetum.nn.prototypes import Prototypes

RECIPES = ("paws", "ropaws", "suncet", "suave", "simclr", "swav", "deepcluster", "sela", "supervised")
POOL = 2000
WARMUP = 10


class Clock:
    """Adds up the seconds inside functions, and those of whole steps."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = defaultdict(list)
        self.steps: list[float] = []

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            found = function(*args, **kwargs)
            self.parts[name].append(time.perf_counter() - began)
            if name == "get_total_norm":  # once a step
                self.steps.append(time.perf_counter())
            return found

        return timed

    def finding(self) -> dict[str, Any]:
        """Seconds of a step and the doctor's share of it, without the first steps, which also build kernels."""
        steps = len(self.steps) - WARMUP - 1
        step_seconds = (self.steps[-1] - self.steps[WARMUP]) / steps
        shares = {}
        for name, seconds in self.parts.items():
            kept = seconds[len(seconds) * WARMUP // len(self.steps) :]
            shares[name] = sum(kept) / steps / step_seconds
        return {"step_seconds": step_seconds, "share": sum(shares.values()), "parts": shares}


def measure(recipe: str, images: Path, folder: Path, steps: int, threads: int) -> dict[str, Any]:
    """Train a recipe with the clock in place."""
    clock = Clock()
    with ExitStack() as patches:
        modules = [importlib.import_module(place.partition(":")[0]) for place in METHODS.values()]
        owners = [(module, name) for module in modules for name in ("spread", "code_metrics") if hasattr(module, name)]
        owners += [(Prototypes, "mean_norm"), (torch.nn.utils, "get_total_norm"), (CollapseDoctor, "on_steps")]
        for owner, name in owners:
            patches.enter_context(mock.patch.object(owner, name, clock.around(name, getattr(owner, name))))
        settings = ["trainer.minutes=null", f"trainer.steps={steps}", f"runtime.threads={threads}"]
        settings += [f"data.images={images}", "data.labels_per_class=25", "runtime.accelerator=cpu"]
        tapetum.train(f"{recipe}_cifar10_cpu", folder, settings)
    return clock.finding()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of each method; the first 10 do not count")
    parser.add_argument("--threads", type=int, default=2, help="threads of the trainer")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES, help="whose *_cifar10_cpu recipe")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    options = parser.parse_args()
    before, found = peaks(options.threads), {}
    with tempfile.TemporaryDirectory() as folder:
        images = save_photographs(Path(folder), POOL)
        for recipe in options.recipes:
            found[recipe] = measure(recipe, images, Path(folder) / recipe, options.steps, options.threads)
            step, share, each = (found[recipe][name] for name in ("step_seconds", "share", "parts"))
            parts = ", ".join(f"{name} {part:.2%}" for name, part in each.items())
            print(f"{recipe:>12}  step {step:.3f} s, doctor {share:.2%} ({parts})", flush=True)
    settings = {"steps": options.steps, "threads": options.threads}
    peak = {"before": before, "after": peaks(options.threads)}
    write_json(options.json, {**settings, "methods": found, "machine": machine(), "matrix_gflops": peak})


if __name__ == "__main__":
    main()
