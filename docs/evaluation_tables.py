"""All evaluations of recorded runs, side by side, as a table of Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import ABSENT, METHODS, Result, table

INTRODUCTION = """## Evaluations side by side

Every evaluation of [tapetum evaluate](verbs/evaluate.md) for the same runs, on the test images of CIFAR-10 (JPEG), by
the labels that a column names: top-1 in percent, the seconds that the evaluation took (what else the machine did
counts as well), and settings that are not the protocol's own. `benchmarks/record_evaluations.py` wrote the
[files](results/evaluations).
"""
WARM_START_INTRODUCTION = """## Does a warm start pay?

SwAV on all images and then PAWS with few labels (`init`), against PAWS alone with the same labels and settings for as
long as both together. Time is counted in steps of PAWS: how many a step of SwAV costs was measured by short runs in
turn. `benchmarks/warm_start.py` wrote the files.
"""


def evaluations(found: Mapping[str, Result]) -> str:
    """A line for each evaluation, a column for each run."""
    ways = list(dict.fromkeys(way for result in found.values() for way in result["evaluations"]))
    rows = [[way, *(_cell(result["evaluations"].get(way)) for result in found.values())] for way in ways]
    heads = [_head(name, result) for name, result in found.items()]
    return table(["evaluation", *heads], rows, left=(0,))


def warm_start(found: Mapping[str, Result]) -> str:
    """A line for each way to spend the time."""
    rows = []
    for name, result in found.items():
        ratio = result["swav_step_in_paws_steps"]
        for way, run in result["ways"].items():
            total = run["paws_steps"] + ratio * run["swav_steps"]
            steps = [f"{run['swav_steps']:,}", f"{run['paws_steps']:,}", f"{total:,.0f}"]
            judges = [run["test"].get(judge) for judge in ("soft_neighbours", "classifier")]
            judges.append(run["test"]["nearest_neighbours"]["20"])
            top1 = [ABSENT if judge is None else f"{judge['top1']:.2f}" for judge in judges]
            link = f"[{name}](results/warm_start/{name}.json)"
            rows.append([link, way, str(result["num_labels"]), *steps, *top1])
    heads = ["measured", "way", "labels", "steps of SwAV", "steps of PAWS", "together, in steps of PAWS"]
    return table([*heads, "top-1, soft-NN", "top-1, classifier", "top-1, k-NN"], rows, left=(0, 1))


def _head(name: str, result: Result) -> str:
    run = result["run"]
    labels = f"{result['labels_per_class']} labels a class" if result["labels_per_class"] else "the run's own labels"
    kind = METHODS.get(run["method"], run["method"])
    return f"[{kind}, {run['steps']:,} steps](results/evaluations/{name}.json), {labels}"


def _cell(measured: Result | None) -> str:
    if measured is None:
        return ABSENT
    spread = "" if measured["deviation"] is None else f" ± {measured['deviation']:.2f}"
    told = [f"{measured['seconds']:,.0f} s", *measured.get("arguments", {}).get("overrides", ())]
    return f"{measured['mean']:.2f}{spread} ({', '.join(told)})"
