"""Write docs/results.md from docs/results/*.json, as `benchmarks/record_run.py` and `record_pixels.py` leave them (one
file, one run), and from folders in docs/results, each of which is a section (SECTIONS names the scripts); and write
docs/performance.md, docs/speedrun.md and docs/reliability.md from the other folders (PERFORMANCE, SPEEDRUN).

    python docs/make_results.py

The same files give the same bytes, so tests can tell whether the pages are up to date. Numbers are rounded here
and nowhere else; no figure of a table is typed in by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import benchmark_tables
import detection_tables
import evaluation_tables
import install_tables
import label_tables
import performance_tables
import reliability_tables
import sharding_tables
import source_tables
import speedrun_goals
import speedrun_pairs
import speedrun_plot
import speedrun_runs
import speedrun_tables
import suggest_tables
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
PERFORMANCE_PAGE = DOCS / "performance.md"
SPEEDRUN_PAGE = DOCS / "speedrun.md"
RELIABILITY_PAGE = DOCS / "reliability.md"
INSTALL_PAGE = DOCS / "install.md"
SPEEDRUN_PLOT = DOCS / "images" / "speedrun.svg"
SUGGEST_PICTURE = DOCS / "images" / "suggest.svg"

Sections = dict[str, tuple[str, Callable[[Mapping[str, Result]], str]]]
"""Folder in docs/results -> introduction and table; in the order of the page."""

SECTIONS: Sections = {
    "evaluations": (evaluation_tables.INTRODUCTION, evaluation_tables.evaluations),  # benchmarks/record_evaluations.py
    "warm_start": (evaluation_tables.WARM_START_INTRODUCTION, evaluation_tables.warm_start),  # benchmarks/warm_start.py
    "suggest": (suggest_tables.INTRODUCTION, suggest_tables.suggest),  # benchmarks/suggest.py
    "label_walk": (label_tables.WALK_INTRODUCTION, label_tables.label_walk),  # benchmarks/label_walk.py
    "label_errors": (label_tables.ERRORS_INTRODUCTION, label_tables.label_errors),  # benchmarks/label_errors.py
    "out_of_class": (label_tables.OUT_OF_CLASS_INTRODUCTION, label_tables.out_of_class),  # benchmarks/out_of_class.py
    "coverage": (benchmark_tables.COVERAGE_INTRODUCTION, benchmark_tables.coverage),  # benchmarks/coverage.py
    "layouts": (benchmark_tables.LAYOUTS_INTRODUCTION, benchmark_tables.layouts),  # benchmarks/layouts.py
    "exports": (benchmark_tables.EXPORTS_INTRODUCTION, benchmark_tables.exports),  # benchmarks/exports.py
    "detection": (detection_tables.INTRODUCTION, detection_tables.detection),  # examples/detection/record.py
}

PERFORMANCE: Sections = {
    "speed_of_light": (performance_tables.LIGHT_INTRODUCTION, performance_tables.speed_of_light),
    "layers": (performance_tables.LAYERS_INTRODUCTION, performance_tables.layers),
    "small_net": (performance_tables.SMALL_NET_INTRODUCTION, performance_tables.small_net),
    "speed": (performance_tables.SPEED_INTRODUCTION, performance_tables.speed),  # views.py and step.py
    "views_on_disk": (performance_tables.DISK_INTRODUCTION, performance_tables.views_on_disk),
    "processes": (performance_tables.PROCESSES_INTRODUCTION, performance_tables.processes),
    "sharding": (sharding_tables.INTRODUCTION, sharding_tables.sharding),
    "sources": (source_tables.INTRODUCTION, source_tables.sources),
    "growth": (performance_tables.GROWTH_INTRODUCTION, performance_tables.growth),
    "linear_probe": (performance_tables.PROBE_INTRODUCTION, performance_tables.linear_probe),
    "doctor": (performance_tables.DOCTOR_INTRODUCTION, performance_tables.doctor),
}
"""The same for docs/performance.md; the scripts in benchmarks have the names of the folders."""

SPEEDRUN: Sections = {
    "speedrun": (speedrun_runs.INTRODUCTION, speedrun_runs.runs),  # benchmarks/record_run.py
    "goals": (speedrun_goals.GOALS_INTRODUCTION, speedrun_goals.goals),
    "optimizers": (speedrun_pairs.OPTIMIZERS_INTRODUCTION, speedrun_pairs.optimizers),
    "views": (speedrun_pairs.VIEWS_INTRODUCTION, speedrun_pairs.views),
    "neighbours": (speedrun_pairs.NEIGHBOURS_INTRODUCTION, speedrun_pairs.neighbours),
    "methods": (speedrun_pairs.METHODS_INTRODUCTION, speedrun_pairs.methods),
    # benchmarks/after_training.py
    "after_training": (speedrun_tables.AFTER_TRAINING_INTRODUCTION, speedrun_tables.after_training),
    "ingredients": (speedrun_tables.INGREDIENTS_INTRODUCTION, speedrun_tables.ingredients),
}
"""The same for docs/speedrun.md."""

INSTALL: Sections = {
    "install": (install_tables.INSTALL_INTRODUCTION, install_tables.install),  # benchmarks/install.py
    "versions": (install_tables.VERSIONS_INTRODUCTION, install_tables.versions),  # benchmarks/versions.py
}
"""The same for docs/install.md."""

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
- *Chosen by fit*: `tapetum fit` was given the images, the labels and the minutes; for supervised runs, also
  `method.kind=supervised`. These runs are older than its choice of FixMatch ([what that reaches](speedrun.md)). It
  holds a fifth of the labels out of the training.
- *Images seen* are labelled images for `supervised` and unlabelled ones for the others; an image counts once per step,
  however many views of it are drawn.
- *Memory* is the training process's peak, in MB.
- *Matrix peak* is how fast the machine multiplied bfloat16 matrices just before and just after the run, in GFLOP/s.
  Where peaks differ, so did the machine or what else ran on it.
- The *curve*, from left to right, is accuracy on held-out labels where it was measured during training, else the
  training loss; scaled to its own range.
"""

PERFORMANCE_INTRODUCTION = """# Performance

Made by `make docs` from the folders in [results/](results); do not edit. `python benchmarks/ratios.py` takes the
comparisons with the usual way again, in one run, and prints the ratios; `--folder docs/results --name MACHINE` keeps
what it found for this page. [benchmarks/](../benchmarks/README.md) says how to read the figures, and
[GPUs](performance_gpu.md) what was reviewed for them, and what many of them would cost on paper.
"""

SPEEDRUN_INTRODUCTION = """# Accurate sooner

Made by `make docs` from the folders in [results/](results); do not edit. How much accuracy little work buys, and which
ingredients buy it: tried on CIFAR-10 (JPEG), failures included.
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


def read_folder(section: str) -> dict[str, Result]:
    """What a folder in docs/results holds: name of a file -> its content."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((RESULTS / section).glob("*.json"))}


def read_sections() -> dict[str, dict[str, Result]]:
    """What the benchmarks found: section -> name of a file -> its content. The speedrun is of all recorded runs."""
    found = {section: read_folder(section) for section in (SECTIONS | PERFORMANCE | SPEEDRUN | INSTALL)}
    found |= dict.fromkeys(("optimizers", "views", "neighbours", "methods"), found["speedrun"])
    found["goals"] = found["speedrun"] = found["speedrun"] | {result["name"]: result for result in read_results()}
    return found


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
    return "\n".join([*parts, *_sections(SECTIONS, found)])


def render_performance(**found: Mapping[str, Result]) -> str:
    """The page about speed, as Markdown; `found` as for `render`."""
    return "\n".join([PERFORMANCE_INTRODUCTION, *_sections(PERFORMANCE, found)])


def render_speedrun(**found: Mapping[str, Result]) -> str:
    """The page about accuracy for little work, as Markdown; `found` as for `render`."""
    return "\n".join([SPEEDRUN_INTRODUCTION, *_sections(SPEEDRUN, found)])


def render_install(**found: Mapping[str, Result]) -> str:
    """The page about installing, as Markdown; `found` as for `render`."""
    return "\n".join([install_tables.INTRODUCTION, *_sections(INSTALL, found)])


def _sections(sections: Sections, found: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Introduction and table of each section of which something was found."""
    present = [(introduction, rows(found[name])) for name, (introduction, rows) in sections.items() if found.get(name)]
    return [part for parts in present for part in parts]


if __name__ == "__main__":
    try:
        PAGE.write_text(render(read_results(), **read_sections()), encoding="utf-8")
        PERFORMANCE_PAGE.write_text(render_performance(**read_sections()), encoding="utf-8")
        SPEEDRUN_PAGE.write_text(render_speedrun(**read_sections()), encoding="utf-8")
        RELIABILITY_PAGE.write_text(reliability_tables.render(read_folder("reliability")), encoding="utf-8")
        INSTALL_PAGE.write_text(render_install(**read_sections()), encoding="utf-8")
        SPEEDRUN_PLOT.write_text(speedrun_plot.plot(read_sections()["speedrun"]), encoding="utf-8")
        SUGGEST_PICTURE.write_text(suggest_tables.picture(read_sections()["suggest"]), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"make_results: error: {error}")
    written = (PAGE, PERFORMANCE_PAGE, SPEEDRUN_PAGE, RELIABILITY_PAGE, INSTALL_PAGE, SPEEDRUN_PLOT, SUGGEST_PICTURE)
    print(*(f"Written: {page.relative_to(DOCS.parent)}" for page in written), sep="\n")
