"""Accuracy for little work, as tables of Markdown: docs/speedrun.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from run_tables import ABSENT, Result, mean, table

INGREDIENTS_INTRODUCTION = """## What each ingredient gains

One change at a time, in short trainings from scratch that all cost the same work on CIFAR-10 (JPEG);
`benchmarks/ingredients.py` made them. No test image was read: training images that nothing else has seen judge.

- A *unit* of work is the forward and backward pass of the network on one image of 24 pixels; a forward pass alone is a
  third of it, and pixels and multiplications count in proportion. A step that costs less comes more often.
- *Top-1*, in percent: of the linear classifier and of soft neighbours among the labelled images (pixels: of the votes
  of the nearest); *mirrored* is with the mean over each image and its mirror image, which costs nothing in training.
- *Gain*, in points: the better of the two plain figures, minus that of the rung named under *against*.
- *Pseudo-labels*: their mean weight at the end of the training, and the share of it that lay on true labels.
- *Muon* orthogonalises with five iterations in float32, as the library did when most rungs were trained, but for those
  *in three iterations*, which are in bfloat16 as well.
"""
_JUDGES = (("classifier",), ("soft_neighbours", "nearest_neighbours"))
"""Of each column; the floor has the last of them."""
_WAYS = ("plain", "mirrored")


def ingredients(found: Mapping[str, Result]) -> str:
    """A table for each number of labels, most first, and amount of work; a line for each rung."""
    ordered = sorted(found.items(), key=lambda item: (-item[1]["labels"], item[1]["budget"]))
    return "\n".join(_table(name, result) for name, result in ordered)


def _table(name: str, result: Result) -> str:
    rungs = result["rungs"]
    rows = [_row(rung, content, rungs) for rung, content in rungs.items() if content["runs"]]
    heads = [
        "rung",
        "against",
        "changes",
        "from",
        "runs",
        "steps",
        "CPU seconds",
        "top-1, classifier",
        "top-1, soft-NN",
    ]
    heads += ["mirrored, classifier", "mirrored, soft-NN", "pseudo-labels", "gain"]
    return (
        f"### {result['labels']:,} labels, {result['budget']:,.0f} units of work\n\n"
        f"[{name}.json](results/ingredients/{name}.json), judged by {result['judged_per_class']} images of each class. "
        f"{_noise(result)}\n\n" + table(heads, rows, left=(0, 1, 2, 3))
    )


def _row(name: str, content: Result, rungs: Mapping[str, Result]) -> list[str]:
    runs, against = content["runs"], content["against"]
    changes = ", ".join(f"{key} {_shown(value)}" for key, value in content["changes"].items()) or ABSENT
    top1 = [_top1(content, way, judge) for way in _WAYS for judge in _JUDGES]
    cells = [f"{mean([run[key] for run in runs]):,.0f}" for key in ("steps", "cpu_seconds")]
    told = [run["pseudo_labels"] for run in runs if "pseudo_labels" in run]
    pseudo = f"{mean([t['weight'] for t in told]):.2f}, {mean([t['right'] for t in told]):.0%}" if told else ABSENT
    gain = ABSENT
    if against is not None and rungs.get(against, {}).get("runs"):
        gain = f"**{_best(content) - _best(rungs[against]):+.2f}**"
    shown = [name, against or ABSENT, changes, _source(content["about"]), str(len(runs)), *cells]
    return [*shown, *(ABSENT if figure is None else f"{figure:.2f}" for figure in top1), pseudo, gain]


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _source(about: str) -> str:
    """What a rung is from, its link short."""
    text, scheme, link = about.rpartition("https://")
    if not scheme:
        return about or ABSENT
    return f"{text}[{link.removeprefix('arxiv.org/abs/').rstrip('/')}](https://{link})"


def _top1(content: Result, way: str, judges: Sequence[str]) -> float | None:
    """The mean over runs of the first of the judges that there is."""
    for judge in judges:
        figures = [run["top1"][way][judge] for run in content["runs"] if judge in run["top1"].get(way, {})]
        if figures:
            return mean(figures)
    return None


def _best(content: Result) -> float:
    """The better of the plain figures, each a mean over runs."""
    return max(figure for judges in _JUDGES if (figure := _top1(content, "plain", judges)) is not None)


def _noise(result: Result) -> str:
    """From which difference on two rungs differ by more than the draw of the images that judge."""
    best = max((_best(content) for content in result["rungs"].values() if content["runs"]), default=50.0) / 100
    count = result["judged_per_class"] * result["num_classes"]
    points = 100 * 2 * math.sqrt(2 * best * (1 - best) / count)
    return f"Differences of less than {points:.1f} points may be chance."


AFTER_TRAINING_INTRODUCTION = """## What predictions gain without training

Finished runs, judged again by `benchmarks/after_training.py`: by images of *its pool* whose labels the run was not
given, so that no test image is read, or by *others*: test images, by which nothing was chosen.

- *Scales*: the mean over as many sizes of an image, 0.75 to 1.25 times that of the recipe, and over mirror images.
- *Soft-NN*: soft neighbours among the labelled images. *Spread*: labels spread over a graph in which each image is
  joined to its 30 nearest ones (Zhou et al., NeurIPS 2003), so judging images help each other. *Balanced*: every class
  wins about as often.
"""
_AFTER = ("classifier", "soft_neighbours", "soft_neighbours_balanced", "spread", "spread_balanced")


def after_training(found: Mapping[str, Result]) -> str:
    """A line for each run and way of looking; most labels first."""
    rows = []
    for name, result in sorted(found.items(), key=lambda item: (-item[1]["labels"], item[0])):
        told = f"{result['judged']:,} of {result['judges']}"
        for way, top1 in result["ways"].items():
            cells = [f"{top1[judge]:.2f}" if judge in top1 else ABSENT for judge in _AFTER]
            rows.append([f"[{name}](results/after_training/{name}.json)", f"{result['labels']:,}", told, way, *cells])
    heads = ["run", "labels", "judged by", "averaged over", "classifier", "soft-NN"]
    return table([*heads, "soft-NN, balanced", "spread", "spread, balanced"], rows, left=(0, 2, 3))
