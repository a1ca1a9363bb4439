"""The plot of docs/speedrun.md: accuracy over minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from run_tables import Result
from speedrun_runs import GOALS, PAWS_TF, eligible, minutes, num_labels, title

COLOURS = {50_000: "#808080", 4000: "#4269d0", 250: "#e07a1f", 40: "#3c8d4b"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 56, 150, 16, 48
SHORTEST, LONGEST, LOWEST, HIGHEST = 1.0, 120.0, 30.0, 95.0


def _place(took: float, top1: float) -> tuple[float, float]:
    across = math.log(min(max(took, SHORTEST), LONGEST) / SHORTEST) / math.log(LONGEST / SHORTEST)
    up = (top1 - LOWEST) / (HIGHEST - LOWEST)
    return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def plot(found: Mapping[str, Result]) -> str:
    """An SVG: runs as dots (supervised ones hollow), goals as crosses, and the TensorFlow port's point."""
    parts = []
    for top1 in range(int(LOWEST), int(HIGHEST) + 1, 10):
        x, y = _place(SHORTEST, top1)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{WIDTH - RIGHT}" stroke="#8884"/>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{top1}</text>')
    for took in (1, 2, 5, 10, 20, 45, 90):
        x, _ = _place(took, LOWEST)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{took}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">minutes at 0.4 TFLOP/s</text>')
    parts.append(f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">test top-1, %</text>')
    for labels, goals in GOALS.items():
        for took, top1 in goals.items():
            x, y = _place(took, top1)
            parts.append(f'<path d="M{x - 5:.1f} {y:.1f}h10m-5 -5v10" stroke="{COLOURS[labels]}" stroke-width="1.5"/>')
    for result in eligible(list(found.values())):
        x, y = _place(minutes(result), result["summary"]["test_top1"])
        colour = COLOURS[num_labels(result)]
        fill = "none" if result["recipe"]["method"]["kind"] == "supervised" else colour
        what = f"{title(result)}: {result['summary']['test_top1']:.2f}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="1.5">'
            f"<title>{what}</title></circle>"
        )
    x, y = _place(*PAWS_TF)
    parts.append(f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z" fill="{COLOURS[4000]}" opacity="0.6"/>')
    parts.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}">PAWS-TF, on a V100</text>')
    present = {num_labels(result) for result in eligible(list(found.values()))}
    colours = {labels: colour for labels, colour in COLOURS.items() if labels in present}
    for i, (labels, colour) in enumerate(colours.items()):
        y = TOP + 8 + 20 * i
        parts.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{y}" r="4.5" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 26}" y="{y + 4}">{labels:,} labels</text>')
    for i, text in enumerate(("hollow: supervised", "cross: goal")):
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{TOP + 12 + 20 * len(colours) + 18 * i}">{text}</text>')
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#777"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>'
    return head + "\n".join(["", *parts, "</svg>", ""])
