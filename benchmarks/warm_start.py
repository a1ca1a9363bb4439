"""Whether a warm start pays: SwAV on all images, then PAWS with few labels, against PAWS alone in the same total time.

    python benchmarks/warm_start.py --images DIR [--labels-per-class 4] [--swav-steps 1500] [--paws-steps 1500]
        [--seed 0] [--runs runs/warm_start] [--json docs/results/warm_start/NAME.json]

DIR holds `train` and `test` with class folders. Time is counted in steps, as machines and what else they do differ: a
step of each is timed by short runs in turn, and PAWS alone gets as many steps as PAWS after SwAV and SwAV together
cost. Labels, views and settings of PAWS are those of `paws_cifar10_250_cpu`; once it starts from SwAV with lower rates
(GENTLE), too. For those who have weights already, PAWS alone stands beside them without SwAV's time as well. An
interrupted call goes on with the runs that are missing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from side_by_side import machine, write_json

import tapetum
from tapetum.evaluation.accuracy import Evaluation

RECIPES = {"swav": "swav_cifar10_cpu", "paws": "paws_cifar10_250_cpu"}
GENTLE = ("optimizer.lr.peak=0.05", "method.paws_ramp=0.2")
"""A quarter of the rate, which keeps more of what was learned, and the term of PAWS sooner."""
TIMED_STEPS = {"swav": 60, "paws": 120}


class Trainings:
    """Runs of the two recipes in one folder; one that is there already is read instead."""

    def __init__(self, folder: Path, images: Path, labels_per_class: int, seed: int) -> None:
        self.folder = folder
        self.common = [f"data.images={images}", f"data.test={images}", "trainer.minutes=null", f"seed={seed}"]
        self.labels_per_class = labels_per_class
        self.few = {"swav": [], "paws": [f"data.labels_per_class={labels_per_class}"]}

    def run(self, name: str, method: str, steps: int, *settings: str) -> dict[str, Any]:
        """The summary of a run of so many steps."""
        folder = self.folder / name
        if not (folder / "summary.json").is_file():
            settings = (*self.common, *self.few[method], f"trainer.steps={steps}", *settings)
            tapetum.train(RECIPES[method], folder, list(settings))
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        if summary["steps"] != steps:
            raise SystemExit(f"{folder} is a run of {summary['steps']} steps, not {steps}: choose another --runs.")
        return summary


def compare(trainings: Trainings, swav_steps: int, paws_steps: int, rounds: int = 2) -> dict[str, Any]:
    """Time both, then train both ways."""
    seconds: dict[str, list[float]] = {method: [] for method in RECIPES}
    for i in range(1, rounds + 1):  # in turn, as the machine may become slower meanwhile
        for method, steps in TIMED_STEPS.items():
            timed = trainings.run(f"{method}_timed_{i}", method, steps)
            seconds[method].append(timed["train_seconds"] / steps)
    ratio = median(seconds["swav"]) / median(seconds["paws"])
    trainings.run("swav", "swav", swav_steps)
    start = f"init={trainings.folder / 'swav'}"
    longer = paws_steps + round(swav_steps * ratio / 100) * 100
    alone = trainings.run("paws_alone", "paws", longer)
    neighbours = tapetum.evaluate(trainings.folder / "swav", labels_per_class=trainings.labels_per_class)
    assert isinstance(neighbours, Evaluation)
    ways = [
        ("SwAV alone", swav_steps, 0, neighbours.as_dict()),
        ("SwAV, then PAWS", swav_steps, paws_steps, trainings.run("paws_after_swav", "paws", paws_steps, start)),
        (
            "SwAV, then PAWS with lower rates",
            *(swav_steps, paws_steps),
            trainings.run("paws_after_swav_gently", "paws", paws_steps, start, *GENTLE),
        ),
        ("PAWS alone, the same total", 0, longer, alone),
        ("PAWS alone, without the time of SwAV", 0, paws_steps, trainings.run("paws_short", "paws", paws_steps)),
    ]
    return {
        "recipes": RECIPES,
        "settings": {"common": trainings.common, **trainings.few, "lower rates": GENTLE},
        "num_labels": alone["num_labels"],
        "step_seconds": seconds,
        "swav_step_in_paws_steps": ratio,
        "ways": {
            name: {"swav_steps": swav, "paws_steps": paws, "test": found.get("test", found)}
            for name, swav, paws, found in ways
        },
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels-per-class", type=int, default=4)
    parser.add_argument("--swav-steps", type=int, default=1500)
    parser.add_argument("--paws-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/warm_start"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    trainings = Trainings(given.runs, given.images, given.labels_per_class, given.seed)
    result = compare(trainings, given.swav_steps, given.paws_steps)
    for name, way in result["ways"].items():
        top1 = way["test"]["soft_neighbours"]["top1"]
        print(f"{name:38} {way['swav_steps']:6} + {way['paws_steps']:5} steps, soft nearest neighbours {top1:.2f}%")
    write_json(given.json, result)


if __name__ == "__main__":
    main()
