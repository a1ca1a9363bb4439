"""Figures for people who have not seen the code: each explains what it shows. The only file that imports matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapetum.evaluation.review import JUDGES, Floats, Integers, Judged, Review, principal_components, smooth, umap
from tapetum.ops.intervals import wilson
from tapetum.system.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#4269d0", "#ff725c", "#3ca951", "#efb118", "#a463f2", "#6cc5b0", "#ff8ab7", "#9c6b4e", "#97bbf5", "#7d8796")
"""Colours of classes, as distinguishable as ten colours can be with the common kinds of colour blindness."""
_MARKERS = "o^sDvP*X<>"  # with more classes than colours, the shape tells them apart
_OTHER_SCRIPTS = (
    "Noto Sans",
    "WenQuanYi",
    "Hiragino",
    "PingFang",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun",
    "Apple SD",
)
_LEGEND_UP_TO, _NAMES_UP_TO, _COUNTS_UP_TO = 30, 40, 12  # numbers of classes


def write_figures(review: Review, folder: Path, with_umap: bool = False) -> list[Path]:
    """Draw everything that a run has numbers for, each as PNG and SVG.

    Returns:
        The files: loss, accuracy, map_pca, map_umap, confusion and reliability, without those that lack numbers.

    Raises:
        ValueError: matplotlib or umap-learn is not installed, or the folder cannot be written to.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "matplotlib is not installed: pip install 'tapetum[plots]'; `tapetum report` works without it."
        ) from error
    drawings: dict[str, Callable[[Figure], None]] = {}
    if "train/loss" in review.curves:
        drawings["loss"] = lambda figure: _loss(figure, review)
    if any(name.startswith("eval/") for name in review.curves):
        drawings["accuracy"] = lambda figure: _accuracy(figure, review)
    flat = principal_components(review.sample.embeddings)
    drawings["map_pca"] = lambda figure: _map(
        figure, review, flat, "the two directions in which they differ most (PCA)"
    )
    if with_umap:
        near = umap(review.sample.embeddings)
        drawings["map_umap"] = lambda figure: _map(figure, review, near, "similar images lie close (UMAP)")
    judged = review.judged
    if judged is not None:
        drawings["confusion"] = lambda figure: _confusion(figure, judged, review)
        drawings["reliability"] = lambda figure: _reliability(figure, judged, review)
    written = []
    style: Any = {"svg.hashsalt": "tapetum", "axes.spines.top": False, "axes.spines.right": False}
    style |= {"text.parse_math": False, "font.family": _fonts()}  # names of classes and runs are no formulas
    with mpl.rc_context(style):
        for name, draw in drawings.items():
            figure = Figure(figsize=(7.5, 5), layout="constrained")
            draw(figure)
            for suffix in ("png", "svg"):
                written.append(folder / f"{name}.{suffix}")
                _save(figure, written[-1])
    return written


def _fonts() -> list[str]:
    """The usual font, and after it those here that have the letters of other scripts."""
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *sorted(name for name in known if name.startswith(_OTHER_SCRIPTS))]


def _save(figure: Figure, path: Path) -> None:
    kind = path.suffix[1:]
    with whole_file(path) as partial:
        # Without the date, the same run gives the same bytes.
        figure.savefig(partial, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def _titled(figure: Figure, title: str, note: str) -> Axes:
    figure.suptitle("\n".join(textwrap.wrap(title, 75)), x=0.02, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel("\n".join(textwrap.wrap(note, 115)), x=0.02, ha="left", fontsize=8.5, color="#555555")
    return figure.add_subplot()


def _loss(figure: Figure, review: Review) -> None:
    steps, values = review.curves["train/loss"]
    axes = _titled(figure, f"{review.name}: loss during training", "Lower is better. Pale: each step; dark: means.")
    axes.plot(steps, values, color=PALETTE[0], alpha=0.25, linewidth=0.8)
    axes.plot(*smooth(steps, values, max(2, min(40, len(steps) // 5))), color=PALETTE[0], linewidth=2)
    axes.set(xlabel="step", ylabel="loss")


def _accuracy(figure: Figure, review: Review) -> None:
    note = "Share of held-out labels, which are not trained on, that are predicted correctly."
    axes = _titled(figure, f"{review.name}: accuracy on held-out labels during training", note)
    for colour, (column, (steps, values)) in zip(
        PALETTE, ((c, v) for c, v in review.curves.items() if c.startswith("eval/"))
    ):
        axes.plot(steps, values, "o-", color=colour, markersize=4, label=JUDGES.get(column, column[5:]))
    axes.set(xlabel="step", ylabel="correct, %", ylim=(0, 101), xlim=(0, None))
    axes.legend(frameon=False, loc="lower left")


def _map(figure: Figure, review: Review, places: Floats, how: str) -> None:
    sample = review.sample
    note = f"Colour: the class, as labelled (ringed) or as predicted. Placed by the network's embedding: {how}."
    axes = _titled(figure, f"{review.name}: {len(sample):,} images of the pool", note)
    shown, is_labelled = sample.shown_classes, sample.truth >= 0
    classes = []
    for c in range(len(review.classes)):
        chosen = shown == c
        style: Any = {"c": PALETTE[c % len(PALETTE)], "marker": _MARKERS[c // len(PALETTE) % len(_MARKERS)]}
        x, y = places.T
        classes.append(axes.scatter(x[chosen], y[chosen], s=9, linewidths=0, alpha=0.75, **style))
        ringed = chosen & is_labelled
        axes.scatter(x[ringed], y[ringed], s=20, edgecolors="black", linewidths=0.6, **style)
    axes.set_axis_off()
    axes.set_aspect("equal")
    if len(review.classes) <= _LEGEND_UP_TO:
        # Names given here may begin with an underscore, those of the points may not.
        axes.legend(
            classes, review.classes, frameon=False, bbox_to_anchor=(1, 1), loc="upper left", markerscale=2, fontsize=8
        )


def _confusion(figure: Figure, judged: Judged, review: Review) -> None:
    classes = review.classes
    counts = judged.confusion(len(classes))
    low, high = judged.interval
    title = f"{review.name}: {judged.top1:.1f}% of {judged.what} correct (95% interval {low:.1f} to {high:.1f}%)"
    axes = _titled(
        figure, title, "Each row is a true class, each column a predicted one. Correct predictions are on the diagonal."
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= _NAMES_UP_TO:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= _COUNTS_UP_TO:
        _write_counts(axes, counts, shares)


def _write_counts(axes: Axes, counts: Integers, shares: Floats) -> None:
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=8, color=colour)


def _reliability(figure: Figure, judged: Judged, review: Review) -> None:
    found = judged.reliability
    axes = _titled(figure, f"{review.name}: how far confidence can be trusted", review.calibration.describe())
    axes.plot([0, 100], [0, 100], "--", color="#999999", linewidth=1, label="confidence equal to accuracy")
    right = np.rint(found.accuracy * found.counts).astype(np.int64)
    ends = np.array([wilson(int(r), int(count)) for r, count in zip(right, found.counts)])
    x, y = 100 * found.confidence, 100 * found.accuracy
    label = f"{judged.what}, by confidence, with 95% intervals"
    axes.errorbar(x, y, abs(ends.T - y), fmt="o", color=PALETTE[0], capsize=3, label=label)
    for place, count in zip(zip(x, y), found.counts):
        axes.annotate(f"{count:,}", place, (6, -11), textcoords="offset points", fontsize=8, color="#555555")
    axes.set(xlabel="confidence, %", ylabel="correct, %", xlim=(0, 104), ylim=(0, 104))
    axes.legend(frameon=False, loc="upper left")
    axes.text(103, 2, f"mean distance {100 * found.error:.1f} points", ha="right", color="#555555")
