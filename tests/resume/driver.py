"""One training process, to be killed from outside: the toy method of tests/engine with the engine around it.

    python driver.py RUN --steps 40 --threads 2 [--devices 2] [--slow evaluation|checkpoint] [--stop-after N]

`--slow` makes one thing last long enough to be hit and says so by a file RUN/in-<thing>; `--slow checkpoint` waits
once the temporary file is written and before it gets its name. `--stop-after N` dies without a word before step N.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path
from types import ModuleType


def load_toy() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "engine" / "toy.py"
    spec = importlib.util.spec_from_file_location("tapetum_toy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tapetum_toy"] = module
    spec.loader.exec_module(module)
    return module


def wait(run: Path, what: str) -> None:
    (run / f"in-{what}").touch()
    time.sleep(60)


def slow_checkpoint(run: Path) -> None:
    replace = os.replace

    def waiting(source: object, target: object) -> None:
        if str(target).endswith(".safetensors"):
            wait(run, "checkpoint")
        replace(source, target)

    os.replace = waiting


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--slow", choices=["evaluation", "checkpoint"])
    parser.add_argument("--slow-step", type=float, default=0.0)
    parser.add_argument("--stop-after", type=int)
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    toy = load_toy()
    on = toy.runtime(threads=options.threads, devices=options.devices, precision=options.precision)
    run = toy.trainer(options.run, options.steps, on=on)
    if options.slow == "checkpoint":
        slow_checkpoint(options.run)
    if options.slow == "evaluation":
        run.evaluate = lambda: wait(options.run, "evaluation")
    batches = run.batches

    def slowed(start: int, stop: int):
        for step, batch in enumerate(batches(start, stop), start):
            if step == options.stop_after:
                sys.stdout.flush()
                os._exit(9)
            time.sleep(options.slow_step)
            yield batch

    run.batches = slowed
    if on.rank == 0:
        (options.run / "started").touch()
    run.fit()


if __name__ == "__main__":
    main()
