"""One training process of the toy method of tests/engine, which keeps rank-local state: for two ranks.

    python toy_process.py RUN --steps 40 [--stop-after N] [--slow-step SECONDS]

`--stop-after N` dies without a word before step N. Ends with 7 if threads of gloo outlive what is registered to run at
exit (seen on Linux only): they may abort a process that has done its work.
"""

from __future__ import annotations

import argparse
import atexit
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


def check_threads() -> None:
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in name for name in names):
        os._exit(7)


def main() -> None:
    atexit.register(check_threads)  # the first to be registered is the last to run
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--slow-step", type=float, default=0.0)
    parser.add_argument("--stop-after", type=int)
    options = parser.parse_args()
    toy = load_toy()
    run = toy.trainer(options.run, options.steps, on=toy.runtime(threads=1, devices=2))
    batches = run.batches

    def slowed(start: int, stop: int):
        for step, batch in enumerate(batches(start, stop), start):
            if step == options.stop_after:
                os._exit(9)
            time.sleep(options.slow_step)
            yield batch

    run.batches = slowed
    run.fit()


if __name__ == "__main__":
    main()
