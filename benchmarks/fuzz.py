"""Does Tapetum end well, whatever strangers send? Changes valid files at random, and reads them by its own functions.

    python benchmarks/fuzz.py [--kind images labels ...] [--count 1000] [--seed 0] [--keep DIR] [--json FILE]
    python benchmarks/fuzz.py --kind special
    python benchmarks/fuzz.py --kind labels --guided 60        # needs atheris: guided by coverage, so many seconds each

Each input ends in one of two ways: it is read, or refused in one sentence that names the file. Counted as failures are
any other exception, a sentence without a name, more than 10 seconds of computing, more than 2 GiB of memory, the end of
the process by a signal, and whatever an audit hook sees that no reader has to do: run a program or code, connect to
something, or write elsewhere than into its own folder. An input is decided by seed, kind and number, and failing ones
are kept in --keep. Inputs are read in child processes of one that has loaded everything; `docs/reliability.md` has the
figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from fuzz_child import FAILURES, MEMORY, SECONDS, Outcome, run
from fuzz_guided import guide
from fuzz_mutations import mutated
from fuzz_readers import READERS, judged, make_pool
from fuzz_seeds import SEEDS
from fuzz_special import CASES
from fuzz_weights import Seed, resealed
from side_by_side import machine

SPECIAL = "special"
KINDS = (*SEEDS, SPECIAL)


@cache
def seeds_of(kind: str) -> list[Seed]:
    """The valid inputs of a kind."""
    return SEEDS[kind][0]()


def make_input(kind: str, seed: int, number: int) -> Seed:
    """Change a valid input; the first ones stay as they are."""
    seeds, tokens = seeds_of(kind), SEEDS[kind][1]
    if number < len(seeds):
        return seeds[number]
    rng = random.Random(f"{seed} {kind} {number}")
    chosen = rng.choice(seeds)
    name = rng.choice([name for name in chosen.files if name not in chosen.kept])
    others = [content for seed in seeds for content in seed.files.values()]
    change = partial(mutated, rng=rng, others=others, tokens=tokens)
    content = chosen.files[name]
    changed = resealed(content, change) if kind == "checkpoints" and number % 2 else change(content)
    return chosen._replace(files={**chosen.files, name: changed})


def write(made: Seed, folder: Path) -> None:
    """Write the files of an input."""
    for name, content in made.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def fuzz(kind: str, count: int, seed: int, scratch: Path, keep: Path | None = None) -> list[Outcome]:
    """Read many inputs of a kind.

    Args:
        scratch: an empty folder.
        keep: where failing inputs are kept.
    """
    os.environ["TAPETUM_CACHE"] = str(scratch / "cache")
    pool = make_pool(scratch / "pool")
    cases = list(CASES.items())

    def prepare(number: int) -> tuple[Callable[[], tuple[str, str, bool]], Callable[[], None]]:
        folder = scratch / f"input{number}"
        folder.mkdir()
        if kind == SPECIAL:
            read, names = cases[number][1](folder), ()
        else:
            made = make_input(kind, seed, number)
            write(made, folder)
            names = (folder.name, *(Path(name).name for name in made.files))
            read = partial(READERS[kind], folder / made.entry)
        return partial(judged, lambda: read(pool), names), partial(shutil.rmtree, folder, ignore_errors=True)

    for warm in SEEDS if kind == SPECIAL else (kind,):  # loads what is loaded late
        for number, made in enumerate(seeds_of(warm)):
            write(made, scratch / f"{warm}{number}")
            judged(partial(READERS[warm], scratch / f"{warm}{number}" / made.entry, pool), ())
    outcomes = []
    for outcome in run(range(len(cases) if kind == SPECIAL else count), prepare, scratch):
        outcomes.append(outcome)
        if outcome.fate in FAILURES:
            what = cases[outcome.number][0] if kind == SPECIAL else f"{kind} {outcome.number}"
            print(f"{what}: {outcome.fate}: {outcome.said[:300]}", file=sys.stderr)
            if keep is not None and kind != SPECIAL:
                write(make_input(kind, seed, outcome.number), keep / f"{kind}-{outcome.number}")
    return outcomes


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """The figures of one kind."""
    fates = Counter(outcome.fate for outcome in outcomes)
    return {
        "inputs": len(outcomes),
        "accepted": fates["accepted"],
        "refused": fates["refused"],
        "failures": {fate: fates[fate] for fate in FAILURES if fates[fate]},
        "starved": sum(outcome.starved for outcome in outcomes),
        "slowest_seconds": round(max(outcome.seconds for outcome in outcomes), 2),
        "largest_memory_mb": round(max(outcome.memory for outcome in outcomes) / 2**20),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--count", type=int, default=700, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--guided", type=int, metavar="SECONDS", help="let atheris choose the inputs")
    return parser.parse_args()


def main() -> None:
    """Read inputs of all kinds, print a line for each, and end with code 1 if anything failed."""
    options = _arguments()
    if options.guided:
        options.kind = [kind for kind in options.kind if kind != SPECIAL]  # nobody changes these
    warnings.simplefilter("ignore")  # of libraries, about damaged files
    torch.set_num_threads(1)  # threads would not outlive a fork
    found = {}
    for kind in options.kind:
        if options.guided:
            found[kind] = guide(kind, options.guided, options.keep)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                found[kind] = summary(fuzz(kind, options.count, options.seed, Path(scratch), options.keep))
        print(kind, json.dumps(found[kind]), flush=True)
    result = {"seed": options.seed, "limits": {"seconds": SECONDS, "memory_mb": MEMORY // 2**20}}
    result |= {"section": "guided", "guided_seconds": options.guided} if options.guided else {"section": "fuzz"}
    result |= {"machine": machine(), "kinds": found}
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(one["failures"] for one in found.values()))


if __name__ == "__main__":
    main()
