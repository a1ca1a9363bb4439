"""Long runs and large pools, as a table of Markdown: a section of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from run_tables import ABSENT, Result, table

INTRODUCTION = """## Long and large

`tapetum` itself was run, and looked at every second, together with its child processes, by `benchmarks/endurance.py`.
*Memory* is the greatest proportional set size of all of them, *slope* how much it grew in an hour, after the first
quarter of the time, with its standard error, from the means of twelve stretches; a short command has none. *Handles*
(open files) and *threads* are the least and the most of all processes together after that quarter. Other programs
shared the cores, so the seconds are no more than an upper bound.
"""


def long(found: Mapping[str, Result]) -> str:
    """A line for each command that was watched."""
    rows = [_row(name, row) for name, result in found.items() for row in result["rows"]]
    return table(["what", "seconds", "memory, MB", "slope, MB an hour", "handles", "threads"], rows, left=(0,))


def _row(name: str, row: Result) -> list[str]:
    slope = f"{row['mb_per_hour']:+.1f} ± {row['standard_error']:.1f}" if "mb_per_hour" in row else ABSENT
    ranges = (_range(row["handles"]), _range(row["threads"]))
    return [
        f"[{row['what']}](results/reliability/{name}.json)",
        f"{row['seconds']:,.0f}",
        f"{row['peak_mb']:,}",
        slope,
        *ranges,
    ]


def _range(ends: Sequence[int]) -> str:
    return f"{ends[0]}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
