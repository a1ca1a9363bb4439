"""Recorded detectors as a table of Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import ABSENT, Result, table

INTRODUCTION = """## Detection

Detectors that were trained from a backbone of Tapetum, and from random weights, on drawn shapes
([detection.md](detection.md)); images and steps are far too few to compare with published figures. AP is COCO's average
precision on the test images, in percent, of a single run each. The loss is the mean over the first and over the last
tenth of the logged steps. Seconds are of one thread on a machine that did other work.
"""
DETECTORS = {"faster_rcnn": "Faster R-CNN", "detr": "DETR"}


def detection(found: Mapping[str, Result]) -> str:
    """A line for each detector that was trained."""
    rows = []
    for name, result in found.items():
        recipe, summary = result["recipe"], result["summary"]
        weights = recipe["backbone"]["weights"]
        curve = ", ".join(f"{row['step']:.0f}: {row['AP']:.1f}" for row in result["evaluations"])
        rows.append(
            [
                f"[{name}](results/detection/{name}.json)",
                DETECTORS[recipe["detector"]["kind"]],
                f"`{weights}`" if weights else "random",
                str(recipe["seed"]),
                f"{summary['step']:.0f}",
                f"{summary['train_seconds']:,.0f}",
                _loss(result),
                f"**{summary['AP']:.1f}**",
                f"{summary['AP50']:.1f}",
                f"{summary['AP75']:.1f}",
                curve or ABSENT,
            ]
        )
    heads = ["detector", "kind", "backbone", "seed", "steps", "seconds", "loss", "AP", "AP50", "AP75", "AP by step"]
    return table(heads, rows, left=(0, 1, 2, 10))


def _loss(result: Result) -> str:
    losses = [row["loss"] for row in result["losses"]]
    count = max(1, len(losses) // 10)
    first, last = (sum(part) / len(part) for part in (losses[:count], losses[-count:]))
    return f"{first:.2f} to {last:.2f}"
