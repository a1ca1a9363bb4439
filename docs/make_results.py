"""Write docs/results.md from docs/results/*.json, as `benchmarks/record_run.py` and `record_pixels.py` leave them (one
file, one run), and from the folders in docs/results: each is a section of the page (SECTIONS names the scripts).

    python docs/make_results.py

The same files give the same bytes, so a test can tell whether docs/results.md is up to date. Numbers are rounded here
and nowhere else; nothing is typed in by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import benchmark_tables
import detection_tables
import evaluation_tables
from run_tables import (
    LONGEST_OVER_SHORTEST,
    Result,
    data_set,
    is_without_labels,
    overview,
    runs,
    without_labels,
)

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
PAGE = DOCS / "results.md"

SECTIONS: dict[str, tuple[str, Callable[[Mapping[str, Result]], str]]] = {
    "evaluations": (evaluation_tables.INTRODUCTION, evaluation_tables.evaluations),  # benchmarks/record_evaluations.py
    "warm_start": (evaluation_tables.WARM_START_INTRODUCTION, evaluation_tables.warm_start),  # benchmarks/warm_start.py
    "linear_probe": (benchmark_tables.PROBE_INTRODUCTION, benchmark_tables.linear_probe),  # benchmarks/linear_probe.py
    "coverage": (benchmark_tables.COVERAGE_INTRODUCTION, benchmark_tables.coverage),  # benchmarks/coverage.py
    "speed": (benchmark_tables.SPEED_INTRODUCTION, benchmark_tables.speed),  # benchmarks/views.py and step.py
    "speed_of_light": (benchmark_tables.LIGHT_INTRODUCTION, benchmark_tables.speed_of_light),  # by its namesake
    "processes": (benchmark_tables.PROCESSES_INTRODUCTION, benchmark_tables.processes),  # by its namesake
    "growth": (benchmark_tables.GROWTH_INTRODUCTION, benchmark_tables.growth),  # by its namesake
    "doctor": (benchmark_tables.DOCTOR_INTRODUCTION, benchmark_tables.doctor),  # benchmarks/doctor.py
    "layouts": (benchmark_tables.LAYOUTS_INTRODUCTION, benchmark_tables.layouts),  # benchmarks/layouts.py
    "exports": (benchmark_tables.EXPORTS_INTRODUCTION, benchmark_tables.exports),  # benchmarks/exports.py
    "detection": (detection_tables.INTRODUCTION, detection_tables.detection),  # examples/detection/record.py
}
"""Folder in docs/results -> introduction and table; in the order of the page."""

NOTES = {
    "CIFAR-10 (JPEG)": "All images of CIFAR-10 as JPEG files of quality 75. The re-encoding costs some accuracy, so"
    " these figures are not quite comparable to those of the original files.",
    "scikit-learn's digits": "1,797 grey images of 8x8 pixels that come with scikit-learn; 500 of them, always the"
    " same ones, are the test images.",
}

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


def read_sections() -> dict[str, dict[str, Result]]:
    """What the benchmarks found: section -> name of a file -> its content."""
    return {
        section: {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((RESULTS / section).glob("*.json"))}
        for section in SECTIONS
    }


def render(results: Sequence[Result], **found: Mapping[str, Result]) -> str:
    """The page, as Markdown.

    Args:
        found: name of a section -> what the benchmarks in its folder found, by the names of their files.
    """
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
    for section, (introduction, rows) in SECTIONS.items():
        if found.get(section):
            parts += [introduction, rows(found[section])]
    return "\n".join(parts)


if __name__ == "__main__":
    try:
        PAGE.write_text(render(read_results(), **read_sections()), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"make_results: error: {error}")
    print(f"Written: {PAGE.relative_to(DOCS.parent)}")
