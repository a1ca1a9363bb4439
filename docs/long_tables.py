"""Long runs and large pools, as a table of Markdown: a section of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from run_tables import ABSENT, Result, table

INTRODUCTION = """## Long and large

`benchmarks/endurance.py` ran `tapetum` itself, and looked at it and its child processes every few seconds.
*Memory* is the greatest proportional set size of all of them. *Slope* is how much their anonymous memory, which is from
no file, grew in an hour, by least squares with its standard error, from the means of twelve stretches, because
neighbouring looks are not independent; from the second that is given, so that the beginning does not count. It was
*highest first* in the second that is given: with a leak, that is at the end. A command that does one thing after the
other has no slope. *Handles* (open files) and *threads* are the least and the most of all processes together after the
first quarter of the time. Other programs shared the cores, so *seconds* are an upper bound; *processor* are the seconds
that the command itself computed.
"""


def long(found: Mapping[str, Result]) -> str:
    """A line for each command that was watched."""
    rows = [_row(name, row) for name, result in found.items() for row in result["rows"]]
    heads = ["what", "seconds", "processor", "memory, MB", "slope, MB an hour", "highest first", "handles", "threads"]
    return table(heads, rows, left=(0,))


def _row(name: str, row: Result) -> list[str]:
    slope = highest = ABSENT
    if "mb_per_hour" in row:
        slope = f"{row['mb_per_hour']:+.1f} ± {row['standard_error']:.1f} (from {row['slope_from']:,} s)"
        highest = f"{row['highest_at']:,} s"
        if row["what"].endswith(" predictions"):
            a_second = int(row["what"].split()[0].replace(",", "")) / row["seconds"]
            slope += f": {row['mb_per_hour'] * 1e6 / 3600 / a_second:.0f} bytes an image"
    ranges = (highest, _range(row["handles"]), _range(row["threads"]))
    return [
        f"[{row['what']}](results/reliability/{name}.json)",
        f"{row['seconds']:,.0f}",
        ABSENT if row["processor_seconds"] is None else f"{row['processor_seconds']:,.0f}",
        f"{row['peak_mb']:,}",
        slope,
        *ranges,
    ]


def _range(ends: Sequence[int]) -> str:
    return f"{ends[0]}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
