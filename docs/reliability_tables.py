"""What was tried to break, as tables of Markdown: a function for each section of docs/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import fuzz_tables
import long_tables
import many_tables
from run_tables import ABSENT, METHODS, Result, table

INTRODUCTION = """# Reliability

Made by `make docs` from the files in [results/reliability](results/reliability); do not edit. What happens to a run, or
to a table, if the machine, the disk, the network or a person gets in its way: counted, on the real program.
"""
FAULTS_INTRODUCTION = """## Faults

Each line is one kind of fault, injected into the command line itself; nothing of Tapetum is replaced by a stand-in.

- *Injections*: how often, into how many commands (a verb with a method and a number of processes).
- How the command ended: it *went on* to its result; or it *saved* a checkpoint first; or it *ended* with one sentence
  and one of the [exit codes](#exit-codes), or by the signal itself. No command may end by a traceback or hang, and
  right after the fault no file may be incomplete under its final name.
- *Same after*: then the same command, or `tapetum resume`, was run again without a fault. Weights, optimizer state,
  metrics and tables must equal those of an undisturbed run to the bit, and nothing else may be left: no temporary file,
  no lock. Excepted are times, and the files that differ between two undisturbed runs.
- *Failed*: what did not hold.
"""
FAULTS_METHOD = """### How it was taken

`benchmarks/faults.py --fault NAME --json FILE` runs each command undisturbed twice, and then once for each moment.
Moments are drawn from a seed, which each file names, evenly over the command. Half of the moments of `kill` and of
signals are a share of the undisturbed command's seconds; all others are events: the n-th time that a file is opened for
writing, written to, synced, renamed or removed (a kill in a write leaves half of it), or the n-th batch. `disk_full`
and `inodes_full` are real disks, in memory, that have room for so many pages or files more, from none to enough. Images
are 10x10 pixels, networks have four channels, and a training takes eight steps and saves every three. A command is a
process of its own that was forked from one that has imported torch, which makes thousands of starts possible; four
processes find each other as torchrun's do.
"""
FINDINGS_INTRODUCTION = """### What failed before it was mended
"""
FINDINGS: Sequence[tuple[str, str, str]] = (
    (
        "a terminal closes (SIGHUP)",
        "the training ended at once, and its steps since the last checkpoint were lost",
        "it ends as after Ctrl-C: the step is finished and saved; under `nohup` it goes on",
    ),
    (
        "nobody reads standard error any more",
        "a line of progress ended the training",
        "the line is left out, and the training goes on",
    ),
    (
        "a loader worker is killed",
        "torch's traceback, raised by a handler of signals in the midst of anything, even of saving",
        "one sentence within five seconds, exit code 1, and `tapetum resume` goes on from the last checkpoint",
    ),
    (
        "`cluster` is killed after its table got its name",
        "its lock file stayed, and the same command refused in words that hid that all was done",
        "the next command takes the lock away, and says which folder exists already",
    ),
    (
        "the disk is full when a lock file is written",
        "the command ended by `[Errno 28]`, which names no file and no way out",
        "the sentence names the file and asks for room",
    ),
    (
        "100,000 labelled images, a fifth of them held out",
        "the last evaluation held numbers for all pairs of held-out and other labels at once",
        "so many pairs at a time are compared, with the same result",
    ),
    (
        "predictions from 100,000 labelled images by a classifier",
        "each part's similarities stayed in memory until the last one was done",
        "each part lets go of them: the table above",
    ),
    (
        "a damaged `.h5` file of Keras",
        "HDF5 ended the process, by a segmentation fault, or never came back",
        "HDF5 reads it in a process of its own; its death, or five seconds of computing, becomes one sentence",
    ),
    (
        "`metrics.csv` is cut while a training writes to it",
        "the rows were lost, and nothing was said unless a new column came later",
        "it is told of once, at the latest at the end",
    ),
    (
        "a checkpoint is damaged",
        "`resume` could not tell changed bits from a file that was cut, and read weights with a flipped bit",
        "each has a checksum; the checkpoint before it is used, and said",
    ),
)
"""Fault, what happened, what was changed."""
EXIT_CODES = """### Exit codes

| code | after |
|---:|---|
| 0 | success |
| 1 | a process of the run was lost, or nobody reads standard output any more |
| 2 | wrong input, or a disk or file that refuses: one sentence names it and says what to do |
| 130 | Ctrl-C, SIGTERM or SIGHUP: `train`, `resume`, `fit` and `finetune` finish their step and save it |
| -N | signal N ended the process; shells show 128 + N |
"""


def faults(found: Mapping[str, Result]) -> str:
    """A line for each kind of fault, and the kills by verb and method."""
    rows = []
    for name, result in found.items():
        injections = _injected(result)
        ends = Counter(row["outcome"] for row in injections)
        went_on = ends["goes on"] + ends["goes on and says so"]
        failed = [row for row in injections if not is_good(row)]
        rows.append(
            [
                f"[{result['fault']}](results/reliability/{name}.json)",
                result["about"],
                f"{len(injections):,}",
                str(len({row["case"] for row in injections})),
                *(f"{count:,}" if count else ABSENT for count in (went_on, ends["saved"], ends["ended"])),
                f"{sum(row['then'] == 'same' for row in injections):,}",
                f"**{len(failed)}**",
            ]
        )
    total = f"{sum(len(_injected(result)) for result in found.values()):,}"
    heads = ["fault", "what it does", "injections", "commands", "went on", "saved", "ended", "same after", "failed"]
    parts = [table(heads, rows, left=(0, 1)), f"In all, {total} injections.\n"]
    kills = [row for result in found.values() if result["fault"] == "kill" for row in _injected(result)]
    parts += ["### Kills by command\n", _by_command(kills)] if kills else []
    parts += [FAULTS_METHOD, EXIT_CODES]
    if FINDINGS:
        parts += [FINDINGS_INTRODUCTION, table(["fault", "what happened", "now"], FINDINGS, left=(0, 1, 2))]
    return "\n".join(parts)


def _injected(result: Result) -> list[Result]:
    """Those whose moment came before the command had ended."""
    return [row for row in result["injections"] if row["outcome"] != "was over"]


def is_good(row: Result) -> bool:
    """Whether an injection ended as promised."""
    return row["then"] == "same" and row["outcome"] in ("goes on", "goes on and says so", "saved", "ended")


def _by_command(injections: Sequence[Result]) -> str:
    """Injections, and those that failed, of each verb (down) and method (across)."""
    verbs = list(dict.fromkeys((row["verb"], row["processes"]) for row in injections))
    methods = list(dict.fromkeys(row["method"] for row in injections))
    rows = []
    for verb, processes in verbs:
        cells = []
        for method in methods:
            ours = [r for r in injections if (r["verb"], r["processes"], r["method"]) == (verb, processes, method)]
            failed = sum(not is_good(row) for row in ours)
            cells.append((f"{len(ours)}" + (f" ({failed} failed)" if failed else "")) if ours else ABSENT)
        rows.append([f"`{verb.replace('_', '-')}`", str(processes), *cells])
    return table(["verb", "processes", *(METHODS.get(m, m) or "none" for m in methods)], rows, left=(0,))


SECTIONS = {
    "faults": (FAULTS_INTRODUCTION, faults),
    "long": (long_tables.INTRODUCTION, long_tables.long),
    "many": (many_tables.INTRODUCTION, many_tables.many),  # benchmarks/many_predict.py
    "two_nodes": (many_tables.NODES_INTRODUCTION, many_tables.two_nodes),  # benchmarks/two_nodes.py
}
"""Value of "section" in a file -> introduction and table; in the order of the page."""


def render(found: Mapping[str, Result]) -> str:
    """The page, as Markdown; `found` has the content of each file by its name."""
    parts = [INTRODUCTION]
    for section, (introduction, tables) in SECTIONS.items():
        ours = {name: result for name, result in found.items() if result.get("section") == section}
        parts += [introduction, tables(ours)] if ours else []
    strangers = fuzz_tables.fuzz({name: found[name] for name in fuzz_tables.NAMES if name in found})
    return "\n".join([*parts, strangers] if strangers else parts)
