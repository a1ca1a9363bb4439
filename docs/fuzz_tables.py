"""What hostile files and requests did, as a table of Markdown: a section of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import ABSENT, Result, table

INTRODUCTION = """## Strangers' files

Valid files of every kind that strangers send were changed at random, bit by bit and by what harms readers, and read by
the functions behind the commands; *special* ones were made by hand: bombs, pipes, links, headers that lie. Each ended
in one of two ways: it was read (*accepted*), or *refused* in one sentence that names the file, with exit code 2. Any
other exception, a sentence without a name, more than {seconds:g} seconds of computing (or a minute in all), more than
{memory:,} MB beyond what the process had, a crash, and a program, code, connection or file that no reader needs count
as failures. *Failures before* are those of the readers before any was mended, on inputs made in the same way (not of
checkpoints, whose format is newer). *Starved* inputs were refused because they asked for more memory than that.
[SECURITY.md](https://github.com/tapetum/tapetum/blob/main/SECURITY.md) says what is promised; `benchmarks/fuzz.py`
counted, with seed {seed}.
"""
GUIDED_INTRODUCTION = """### Guided by what they reach

The same readers, {seconds} seconds for each kind, with inputs that atheris (libFuzzer for Python) chose: what reaches
new places in Tapetum's code is kept and changed further (`benchmarks/fuzz.py --guided {seconds}`). *Places* are edges
between lines, of the code that any kind loads. Inputs for Keras are few: each is read by a process of its own.
"""
NAMES = FUZZ, BEFORE, GUIDED = "fuzz", "fuzz_before", "fuzz_guided"
"""Names of the files in docs/results/reliability: what was found; before anything was mended; guided by coverage."""


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
    page = f"{introduction}\n{table(heads, rows, left=(0,))}"
    return f"{page}\n{_guided(found[GUIDED])}" if GUIDED in found else page


def _guided(found: Result) -> str:
    rows = []
    for kind, one in found["kinds"].items():
        cells = [f"{one[key]:,}" for key in ("inputs", "reached_by_valid", "reached")]
        rows.append([kind.replace("_", " "), *cells, f"**{sum(one['failures'].values())}**"])
    total = sum(one["inputs"] for one in found["kinds"].values())
    failed = sum(sum(one["failures"].values()) for one in found["kinds"].values())
    rows.append(["all", f"{total:,}", ABSENT, ABSENT, f"**{failed}**"])
    heads = ["kind", "inputs", "places reached by valid files", "by all", "failures"]
    return GUIDED_INTRODUCTION.format(seconds=found["guided_seconds"]) + "\n" + table(heads, rows, left=(0,))


def _failures(one: Result) -> str:
    return ", ".join(f"{count:,} {fate}" for fate, count in one["failures"].items()) or "0"


def _all(kinds: Mapping[str, Result]) -> str:
    return f"{sum(sum(one['failures'].values()) for one in kinds.values()):,}" if kinds else ABSENT
