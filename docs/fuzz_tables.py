"""What hostile files and requests did, as a table of Markdown: a section of docs/reliability.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from run_tables import ABSENT, Result, table

INTRODUCTION = """## Strangers' files

Valid files of every kind that strangers send were changed at random, bit by bit and by what harms readers, and read by
the functions behind the commands; *special* ones were made by hand: bombs, pipes, links, headers that lie. Each ended
in one of two ways: it was read (*accepted*), or *refused* in one sentence that names the file, with exit code 2. Any
other exception, a sentence without a name, more than {seconds:g} seconds, more than {memory:,} MB beyond what the
process had, a crash, and a program, code, connection or file that no reader needs count as failures. *Before* are those
of the same inputs before the readers were mended. *Starved* inputs were refused because they asked for more memory than
that. [SECURITY.md](https://github.com/tapetum/tapetum/blob/main/SECURITY.md) says what is promised;
`benchmarks/fuzz.py` counted, with seed {seed}.
"""
FUZZ, BEFORE = "fuzz", "fuzz_before"
"""Names of the files in docs/results/reliability: what was found, and what was found before anything was mended."""


def fuzz(found: Mapping[str, Result]) -> str:
    """The section, from the files in docs/results/reliability by their names; "" if nothing was counted."""
    if FUZZ not in found:
        return ""
    now, before = found[FUZZ], found.get(BEFORE, {"kinds": {}})["kinds"]
    rows = []
    for kind, one in now["kinds"].items():
        counts = [f"{one[key]:,}" for key in ("inputs", "accepted", "refused", "starved")]
        earlier = _failures(before[kind]) if kind in before else ABSENT
        cells = [kind.replace("_", " "), *counts, earlier, f"**{sum(one['failures'].values())}**"]
        rows.append([*cells, f"{one['slowest_seconds']:.2f}", f"{one['largest_memory_mb']:,}"])
    totals = [
        f"{sum(one[key] for one in now['kinds'].values()):,}" for key in ("inputs", "accepted", "refused", "starved")
    ]
    failed = sum(sum(one["failures"].values()) for one in now["kinds"].values())
    rows.append(["all", *totals, _all(before), f"**{failed}**", ABSENT, ABSENT])
    heads = [
        "kind",
        "inputs",
        "accepted",
        "refused",
        "starved",
        "failures before",
        "failures",
        "slowest, s",
        "memory, MB",
    ]
    limits = now["limits"]
    introduction = INTRODUCTION.format(seconds=limits["seconds"], memory=limits["memory_mb"], seed=now["seed"])
    return f"{introduction}\n{table(heads, rows, left=(0,))}"


def read(folder: Path) -> dict[str, Result]:
    """The two files in docs/results/reliability that this section is made from, by their names."""
    paths = [folder / f"{name}.json" for name in (FUZZ, BEFORE)]
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()}


def _failures(one: Result) -> str:
    return ", ".join(f"{count:,} {fate}" for fate, count in one["failures"].items()) or "0"


def _all(kinds: Mapping[str, Result]) -> str:
    return f"{sum(sum(one['failures'].values()) for one in kinds.values()):,}" if kinds else ABSENT
