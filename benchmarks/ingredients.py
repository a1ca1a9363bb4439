"""What each ingredient of a short training with few labels gains, one at a time.

    python benchmarks/ingredients.py --images DIR --labels N [--rungs A,B] [--budget UNITS] [--seeds 0,1]
        [--threads 1] [--quick] --json docs/results/ingredients/N.json

DIR holds training images in a folder for each class. Every rung (`ingredients_rungs.py`) is trained from scratch for
the same *work*, counted in units and not in seconds, because machines and what else they do differ. It is then judged
by 500 training images of each class that nothing else has seen; no test image is read. The file is written after every
training and a later call adds what is missing.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ingredients_data import Pool, open_pool
from ingredients_rungs import PIXELS, RUNGS, UNTRAINED, rungs_for, settings_of
from ingredients_training import Training, judge, judge_pixels
from matrix_peak import matrix_peak
from side_by_side import machine

from tapetum.system.files import write_text
from tapetum.system.machine import keep_freed_memory

BUDGET = 40_000.0
"""Units: some 300 steps of PAWS with 64 unlabelled and 80 labelled images."""
JUDGED = 500
"""Images of each class that judge."""
QUICK = {"budget": 200.0, "judged": 5}
"""Instead, to see whether everything runs."""
NOTHING = {"steps": 0, "units": 0, "seconds": 0.0, "cpu_seconds": 0.0}
"""What a floor costs."""


def train(pool: Pool, name: str, num_labels: int, seed: int, budget: float) -> dict[str, Any]:
    """Train a rung once, and judge it."""
    if name == PIXELS:
        return {"seed": seed, **NOTHING, "top1": judge_pixels(pool)}
    training = Training(pool, settings_of(name, num_labels), seed, budget)
    told = NOTHING if name == UNTRAINED else training.run()
    return {"seed": seed, **told, "top1": judge(training.judged, pool, training.settings)}


def peak() -> dict[str, float]:
    """GFLOP/s in float32, in which all of this computes."""
    return {"float32": round(matrix_peak(torch.float32, repeats=3), 1)}


def describe(name: str, num_labels: int) -> dict[str, Any]:
    """What a rung is."""
    rung = RUNGS[name]
    settings = asdict(settings_of(name, num_labels))
    return {"against": rung.against, "changes": dict(rung.changes), "about": rung.about, "settings": settings}


def read(path: Path, common: dict[str, Any]) -> dict[str, Any]:
    """What earlier calls have found; nothing if there was none.

    Raises:
        SystemExit: it was measured otherwise.
    """
    if not path.is_file():
        return {**common, "machine": machine(), "rungs": {}}
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for key, value in common.items():
        if found.get(key) != value:
            raise SystemExit(
                f"ingredients: error: {path} was measured with {key} {found.get(key)}, not {value}: "
                "name another --json."
            )
    return found


def measure(pool: Pool, found: dict[str, Any], names: list[str], seeds: list[int], path: Path) -> None:
    """Train what is missing, and write the file after each training."""
    wanted = [(name, seed) for seed in seeds for name in names]
    before = None
    for number, (name, seed) in enumerate(wanted, start=1):
        described = describe(name, found["labels"])
        rung = found["rungs"].setdefault(name, {**described, "runs": []})
        if rung["settings"] != json.loads(json.dumps(described["settings"])):
            rung.update({**described, "runs": []})  # its settings have changed since
        if any(run["seed"] == seed for run in rung["runs"]):
            continue
        before = before or peak()
        run = train(pool, name, found["labels"], seed, found["budget"])
        after = peak()
        rung["runs"].append({**run, "matrix_gflops": {"before": before, "after": after}})
        before = after  # of the next
        found["rungs"] = {known: found["rungs"][known] for known in RUNGS if known in found["rungs"]}
        write_text(path, json.dumps(found, indent=1) + "\n")
        shown = ", ".join(f"{judge} {top1:.2f}" for judge, top1 in run["top1"]["plain"].items())
        told = f"{number} of {len(wanted)}  {name} (seed {seed}): {shown}"
        print(f"{told}; {run['steps']} steps, {run['seconds']:.0f} s, {run['cpu_seconds']:.0f} CPU s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="training images, a folder for each class")
    parser.add_argument("--labels", type=int, required=True, help="labelled images, of all classes together")
    parser.add_argument("--rungs", help=f"some of: {', '.join(RUNGS)}; all, if left out")
    parser.add_argument("--budget", type=float, help=f"units of a training; {BUDGET:,.0f}, if left out")
    parser.add_argument("--seeds", default="0", help="of weights and draws; the labels stay the same")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few steps and judges, which say nothing")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    all_rungs = rungs_for(given.labels)
    names = [name.strip() for name in given.rungs.split(",")] if given.rungs else all_rungs
    if unknown := [name for name in names if name not in all_rungs]:
        parser.error(f"--rungs names {unknown[0]!r}: choose from {', '.join(all_rungs)}.")
    judged = QUICK["judged"] if given.quick else JUDGED
    budget = given.budget or (QUICK["budget"] if given.quick else BUDGET)
    try:
        pool = open_pool(given.images, given.labels, int(judged))
    except ValueError as error:
        parser.error(str(error))
    common = {"images": given.images.name, "labels": given.labels, "num_classes": pool.num_classes}
    found = read(given.json, {**common, "judged_per_class": judged, "budget": budget})
    given.json.parent.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    measure(pool, found, names, seeds, given.json)


if __name__ == "__main__":
    main()
