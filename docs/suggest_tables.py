"""Chosen against random labels: a table of Markdown, and a picture as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from run_tables import ABSENT, DATA_SETS, METHODS, Result, table

INTRODUCTION = """## Which images to label?

Each way of [tapetum suggest](verbs/suggest.md) chose the images to label, draw after draw; the second number of labels
holds the first, and the choice of the others knew these. Ways that need labels took their first ones from `typiclust`,
and so does the default, which goes on with `doubt`. A fifth of the training images, another one in each draw, judged,
and could not be chosen; no test image was used. Top-1 in percent, mean and standard deviation over draws, by soft
nearest neighbours and by logistic regression on the fixed embedding of a run that used no label, and by training PAWS
with these labels: in brackets minus random labels, and in how many draws it was more. *Classes* is how many classes had
a label at all. Those of the photographs are two: WordNet says whether they show an animal. `benchmarks/suggest.py`
wrote the [files](results/suggest).

![For each way a dot a draw: top-1 by soft nearest neighbours, minus random labels in the same draw](images/suggest.svg)
"""
JUDGES = {"soft_nn": "soft-NN", "linear": "logistic regression", "paws": "PAWS"}
RANDOM = "random"
_WIDTH, _NAME, _ROW, _TOP, _BOTTOM, _GAP = 720, 190, 22, 34, 34, 12
_STYLE = (
    "text{font:12px sans-serif;fill:#555}.grid{stroke:#ccc;stroke-width:1}.zero{stroke:#777;stroke-width:1.5}"
    ".dot{fill:#4269d0;fill-opacity:.55}.mean{stroke:#ff725c;stroke-width:3}.head{font-weight:bold}"
)


def suggest(found: Mapping[str, Result]) -> str:
    """A line for each way and number of labels."""
    rows = []
    for name, result in found.items():
        run = f"{METHODS.get(result['embedding'], result['embedding'])}, {result['embedding_steps']:,} steps"
        data = DATA_SETS.get(result["data"], result["data"])
        choice = f"{result['pool']:,} to choose from, {result['judges']:,} judge; embedding of {run}"
        link = f"[{name}](results/suggest/{name}.json): {data}, {choice}"
        for count, way, cells in groups(result):
            classes = f"{mean(cell['classes'] for cell in cells):.1f} of {result['num_classes']}"
            judged = [_cell(cells, gains(result, count, way, judge), judge) for judge in JUDGES]
            seconds = f"{mean(cell['cpu_seconds'] for cell in cells):.1f}"
            rows.append([link, str(count), f"`{way}`", classes, *judged, seconds])
    heads = ["measured", "labels", "way", "classes", *(f"top-1, {judge}" for judge in JUDGES.values()), "CPU seconds"]
    return table(heads, rows, left=(0, 2))


def groups(result: Result) -> list[tuple[int, str, list[Result]]]:
    """The draws of each number of labels and way, in the order of the file, without ways that did what another did."""
    keys = dict.fromkeys((cell["labels"], cell["way"]) for cell in result["cells"])
    found = [(n, way, [c for c in result["cells"] if (c["labels"], c["way"]) == (n, way)]) for n, way in keys]
    reached = [(n, [[cell.get(judge) for judge in JUDGES] for cell in cells]) for n, _, cells in found]
    return [group for place, group in enumerate(found) if reached[place] not in reached[:place]]


def gains(result: Result, count: int, way: str, judge: str) -> list[float]:
    """What each draw reached minus what random labels reached in it."""
    of = {name: cells for n, name, cells in groups(result) if n == count}
    random = {cell["draw"]: cell[judge] for cell in of.get(RANDOM, []) if judge in cell}
    mine = [cell for cell in of[way] if judge in cell and cell["draw"] in random]
    return [cell[judge] - random[cell["draw"]] for cell in mine]


def _cell(cells: Sequence[Result], above: Sequence[float], judge: str) -> str:
    values = [cell[judge] for cell in cells if judge in cell]
    if not values:
        return ABSENT
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    if cells[0]["way"] == RANDOM or not above:
        return f"{mean(values):.2f}{spread}"
    return f"{mean(values):.2f}{spread} (**{mean(above):+.2f}**, {sum(a > 0 for a in above)} of {len(above)})"


def picture(found: Mapping[str, Result]) -> str:
    """Top-1 by soft nearest neighbours minus that of random labels, a row for each way, a dot for each draw; as SVG."""
    panels = []
    for name, result in found.items():
        for count in dict.fromkeys(cell["labels"] for cell in result["cells"]):
            ways = [way for n, way, _ in groups(result) if n == count and way != RANDOM]
            panels.append((f"{name}, {count} labels", {w: gains(result, count, w, "soft_nn") for w in ways}))
    values = [value for _, rows in panels for row in rows.values() for value in row] or [0.0]
    low, high = min(0.0, *values), max(0.0, *values)
    unit = max(1, round((high - low) / 8))
    low, high = unit * (low // unit), unit * -(-high // unit)
    scale = (_WIDTH - _NAME - 2 * _GAP) / ((high - low) or 1)

    def x(value: float) -> str:
        return f"{_NAME + _GAP + (value - low) * scale:.1f}"

    parts, top = [], 0
    for title, rows in panels:
        bottom = top + _TOP + _ROW * len(rows)
        parts.append(f'<text class="head" x="{_GAP}" y="{top + 18}">{title}: points above random labels</text>')
        for tick in range(int(low), int(high) + 1, unit):
            kind = "grid" if tick else "zero"
            parts.append(f'<path class="{kind}" d="M{x(tick)} {top + _TOP - 6}V{bottom}"/>')
            parts.append(f'<text x="{x(tick)}" y="{bottom + 16}" text-anchor="middle">{tick:+d}</text>')
        for place, (way, above) in enumerate(rows.items()):
            y = top + _TOP + _ROW * place + _ROW / 2 - 3
            parts.append(f'<text x="{_NAME}" y="{y + 4}" text-anchor="end">{way}</text>')
            parts += [f'<circle class="dot" cx="{x(value)}" cy="{y}" r="5"/>' for value in above]
            parts += [f'<path class="mean" d="M{x(mean(above))} {y - 8}v16"/>'] if above else []
        top = bottom + _BOTTOM
    size = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    white = f'<rect width="{_WIDTH}" height="{top}" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>{white}{"".join(parts)}</svg>\n'
