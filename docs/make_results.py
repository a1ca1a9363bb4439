"""Write docs/results.md from docs/results/*.json, as `benchmarks/record_run.py` and `record_pixels.py` leave them: one
file, one run; from docs/results/coverage/*.json, by `benchmarks/coverage.py`; and from docs/results/speed/*.json, which
`benchmarks/views.py` and `step.py` write with `--json`; docs/results/doctor/*.json, by `benchmarks/doctor.py`; and
docs/results/layouts/*.json, by `benchmarks/layouts.py`; and docs/results/detection/*.json, by
`examples/detection/record.py`; and docs/results/evaluations/*.json, by `benchmarks/record_evaluations.py`.

    python docs/make_results.py

The same files give the same bytes, so a test can tell whether docs/results.md is up to date. Numbers are rounded here
and nowhere else; nothing is typed in by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import detection_tables
import evaluation_tables
from run_tables import (
    ABSENT,
    LONGEST_OVER_SHORTEST,
    METHODS,
    Result,
    data_set,
    is_without_labels,
    mean,
    overview,
    runs,
    table,
    without_labels,
)

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
SPEED = RESULTS / "speed"
DOCTOR = RESULTS / "doctor"
COVERAGE = RESULTS / "coverage"
LAYOUTS = RESULTS / "layouts"
DETECTION = RESULTS / "detection"
EVALUATIONS = RESULTS / "evaluations"
PAGE = DOCS / "results.md"

NOTES = {
    "CIFAR-10 (JPEG)": "All images of CIFAR-10 as JPEG files of quality 75. The re-encoding costs some accuracy, so"
    " these figures are not quite comparable to those of the original files.",
    "scikit-learn's digits": "1,797 grey images of 8x8 pixels that come with scikit-learn; 500 of them, always the"
    " same ones, are the test images.",
}

COVERAGE_INTRODUCTION = """## Do the intervals hold?

`tapetum fit` keeps a fifth of the labels out of the training and says between which bounds the accuracy on new images
lies with 95% confidence. Each line: many draws of the labels, a training each, and how often the accuracy on thousands
of test images, which nothing had looked at, lay between the bounds.
"""

LAYOUTS_INTRODUCTION = """## Published weights

Files in these layouts can be given as `--init` or `init:` ([Weights from elsewhere](weights.md)). Each was written with
known weights, as its tool writes it, and loaded; its outputs were compared with those of the tool. The error is
relative, in float64, and for PaddlePaddle and TensorFlow in float32: there, small networks of the published form were
built and saved anew, because the published files were not at hand. "Unverified": names and shapes are those of the
tool, but there were no outputs to compare with.
"""

SPEED_INTRODUCTION = """## Speed

Measured against the usual way (one PIL image after the other in loader workers, float32, NCHW), taking turns with it;
[benchmarks/](../benchmarks/README.md) explains. Ratios are medians over rounds; those by CPU seconds are hardly touched
by whatever else the machine does.
"""

DOCTOR_INTRODUCTION = """## What the collapse doctor costs

Every training is watched (see [tapetum doctor](verbs/doctor.md)). This is the share of a step's time that goes into
it, in the smallest steps there are, those of the recipes for CIFAR-10 on two CPU cores: the figures (spread of
embeddings, use of codes, length of prototypes), the gradient's norm, which also keeps steps that are not finite from
being taken, and the rules. These look every 10 steps in the runs of 200 steps measured here, and seldomer in longer
ones: every 125 in one of 5,000.
"""

INTRODUCTION = """# Results

Made by `make docs` from the files in [results/](results), one for each finished run; do not edit. A file holds the
resolved recipe, the command, the accuracy of every class, the curve, and the versions and kind of machine.

- *Test top-1*, in percent, of images that only the end of the run has looked at: by soft nearest neighbours among the
  labelled images, by the linear classifier where the method trains one, and by the votes of the 20 nearest labelled
  images (k-NN). **Bold** is what the method predicts with, which the other figures refer to; of raw pixels, k-NN.
- *Minus supervised*, in points: against `supervised` runs with the same network, views and number of labels,
  and a training time within a factor of {factor}; those with the same draw of labels where there are any.
- *Learned without labels*: no label takes part in the training; all of the training set then judge, by k-NN.
- *Chosen by fit*: `tapetum fit` was given the images, the labels and the minutes, and nothing else. It holds a fifth of
  the labels out of the training.
- *Images seen* are labelled images for `supervised` and unlabelled ones for the others; an image counts once per step,
  however many views of it are drawn.
- *Memory* is the training process's peak, in MB.
- *Matrix peak* is how fast the machine multiplied bfloat16 matrices just before and just after the run, in GFLOP/s.
  Where peaks differ, so did the machine or what else ran on it.
- The *curve*, from left to right, is accuracy on held-out labels where it was measured during training, else the
  training loss; scaled to its own range.
"""


def read_results(folder: Path = RESULTS) -> list[Result]:
    """Every recorded run, in the order of file names.

    Raises:
        ValueError: a file is no result; names it.
    """
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON ({error}): record the run again.") from error
        missing = [key for key in ("name", "recipe", "summary") if key not in result]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}: record the run with benchmarks/record_run.py.")
        results.append(result)
    return results


def read_found(folder: Path) -> dict[str, Result]:
    """What the benchmarks of a folder found, by the names of their files."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def render(
    results: Sequence[Result],
    speed: Mapping[str, Result] | None = None,
    coverage: Mapping[str, Result] | None = None,
    doctor: Mapping[str, Result] | None = None,
    layouts: Mapping[str, Result] | None = None,
    detection: Mapping[str, Result] | None = None,
    evaluations: Mapping[str, Result] | None = None,
) -> str:
    """The page, as Markdown."""
    parts = [INTRODUCTION.format(factor=LONGEST_OVER_SHORTEST)]
    if not results:
        parts.append("No run has been recorded yet.\n")
    for name in sorted({data_set(result) for result in results}):
        group = [result for result in results if data_set(result) == name]
        parts.append(f"## {name}\n")
        if name in NOTES:
            parts.append(f"{NOTES[name]}\n")
        with_labels = [r for r in group if not is_without_labels(r)]
        if len(with_labels) < len(group):
            parts += ["### Learned without labels\n", without_labels([r for r in group if is_without_labels(r)])]
            parts += ["### Learned with labels\n"] if with_labels else []
        parts += [overview(with_labels)] if with_labels else []
        parts += ["### Runs\n", runs(group)]
    if evaluations:
        parts += [evaluation_tables.INTRODUCTION, evaluation_tables.evaluations(evaluations)]
    if coverage:
        parts += [COVERAGE_INTRODUCTION, _coverage(coverage)]
    if speed:
        parts += [SPEED_INTRODUCTION, _speed(speed)]
    if doctor:
        parts += [DOCTOR_INTRODUCTION, _doctor(doctor)]
    if layouts:
        parts += [LAYOUTS_INTRODUCTION, _layouts(layouts)]
    if detection:
        parts += [detection_tables.INTRODUCTION, detection_tables.detection(detection)]
    return "\n".join(parts)


def _coverage(coverage: Mapping[str, Result]) -> str:
    """A line for each series of draws."""
    rows = []
    for name, found in coverage.items():
        runs = found["runs"]
        held = sum(run["contains"] for run in runs)
        widths = [run["heldout_interval"][1] - run["heldout_interval"][0] for run in runs]
        error = mean([run["heldout_top1"] - run["test_top1"] for run in runs])
        test = mean([run["test_top1"] for run in runs])
        link, command = f"[{name}](results/coverage/{name}.json)", f"`{found['command']}`"
        labels = f"{runs[0]['heldout_labels']:,}"
        rows.append(
            [
                link,
                labels,
                f"**{held} of {len(runs)}**",
                f"{mean(widths):.1f}",
                f"{test:.2f}",
                f"{error:+.2f}",
                command,
            ]
        )
    heads = ["draws of", "held-out labels", "intervals that held", "their width, mean", "test top-1, mean"]
    return table([*heads, "held-out minus test, mean", "command"], rows, left=(0, 6))


def _speed(speed: Mapping[str, Result]) -> str:
    """A line for each benchmark and way."""
    rows = []
    for name, found in speed.items():
        units = ", ".join(found["machine"]["processor_units"]) or "none of them"
        for way, ratio in found["ratio_to_usual"].items():
            rounds = found["rounds"][way]
            cpu = [sample["images_per_cpu_second"] for sample in rounds]
            memory = [sample["peak_memory_mb"] for sample in rounds]
            share = ABSENT
            if "floor" in found:
                share = f"{found['floor']['step_cpu_seconds'] / median(s['step_cpu_seconds'] for s in rounds):.0%}"
            ratios = [f"{ratio[rate]:.2f}" for rate in ("images_per_second", "images_per_cpu_second")]
            link = f"[{name}](results/speed/{name}.json)"
            rows.append([link, way, f"{median(cpu):,.1f}", *ratios, share, f"{median(memory):,.0f}", units])
    heads = ["benchmark", "way", "images per CPU second", "ratio by wall time", "ratio by CPU time"]
    return table([*heads, "share of the floor", "peak memory, MB", "bfloat16 units"], rows, left=(0, 1, 7))


def _doctor(doctor: Mapping[str, Result]) -> str:
    """A line for each machine's file and method."""
    rows = []
    for name, found in doctor.items():
        for kind, cost in found["methods"].items():
            norm, rules = (cost["parts"].get(part, 0.0) for part in ("get_total_norm", "on_steps"))
            shares = [f"{share:.2%}" for share in (cost["share"] - norm - rules, norm, rules)]
            link = f"[{name}](results/doctor/{name}.json)"
            step = f"{1000 * cost['step_seconds']:.0f}"
            rows.append([link, METHODS.get(kind, kind), step, *shares, f"**{cost['share']:.2%}**"])
    heads = ["measured on", "method", "step, ms", "figures", "gradient norm", "rules", "together"]
    return table(heads, rows, left=(0, 1))


def _layouts(layouts: Mapping[str, Result]) -> str:
    """A line for each published file."""
    rows = []
    for found in (row for one in layouts.values() for row in one["layouts"]):
        unused = ", ".join(f"{count} ({why})" for why, count in found["unused"].items()) or ABSENT
        error = found["golden_error"]
        shown = "unverified" if error is None else f"{error:.0e}" if error else "0"
        counts = [str(found["used"]), unused, str(found["new"])]
        rows.append(
            [found["file"], found["network"], found["layout"], *counts, shown, found["compared_with"] or ABSENT]
        )
    heads = ["file", "network", "recognised as", "tensors used", "not used", "left new", "error", "compared with"]
    return table(heads, rows, left=(0, 1, 2, 4, 7))


if __name__ == "__main__":
    try:
        found = (read_found(folder) for folder in (SPEED, COVERAGE, DOCTOR, LAYOUTS, DETECTION, EVALUATIONS))
        PAGE.write_text(render(read_results(), *found), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"make_results: error: {error}")
    print(f"Written: {PAGE.relative_to(DOCS.parent)}")
