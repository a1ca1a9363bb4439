"""What benchmarks measured besides accuracy and speed, as tables of Markdown: intervals, weights, exports."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import ABSENT, Result, mean, table

COVERAGE_INTRODUCTION = """## Do the intervals hold?

`tapetum fit` keeps a fifth of the labels out of the training and says between which bounds the accuracy on new images
lies with 95% confidence. Each line: many draws of the labels, a training each, and how often the accuracy on the test
images, which nothing had looked at, lay between the bounds.
"""

LAYOUTS_INTRODUCTION = """## Published weights

Files in these layouts can be given as `--init` or `init:` ([Weights from elsewhere](weights.md)). Each was written with
known weights, as its tool writes it, and loaded; its outputs were compared with those of the tool. The error is
relative, in float64, and for PaddlePaddle and TensorFlow in float32: there, small networks of the published form were
built and saved anew, because the published files were not at hand. "Unverified": names and shapes are those of the
tool, but there were no outputs to compare with.
"""

EXPORTS_INTRODUCTION = """## Exported models elsewhere

A trained ResNet-18 was exported in every format, loaded in an environment without Tapetum by the lines that
[tapetum export](verbs/export.md) prints, and asked about images of the test set through the tool's own preprocessing.
How many labels equal those of `tapetum predict`:
"""


def coverage(coverage: Mapping[str, Result]) -> str:
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


def layouts(layouts: Mapping[str, Result]) -> str:
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


def exports(exports: Mapping[str, Result]) -> str:
    """A line for each format and set of images."""
    rows = [
        [f"[{name}](results/exports/{name}.json)", way, f"{equal:,} of {found['images']:,}", str(found["labels"])]
        for name, found in exports.items()
        for way, equal in found["equal"].items()
    ]
    return table(["images", "format", "equal labels", "classes among them"], rows, left=(0, 1))
