"""Injects faults into the real program, and counts how they end.

    python benchmarks/faults.py --fault kill [--verbs train,predict] [--methods paws] [--processes 1] [--count 10]
        [--seed 0] [--scratch DIR] --json docs/results/reliability/kill.json

Each command is run undisturbed twice, which tells what it leaves behind; then `--count` times with a fault, at moments
that the seed decides (without `--count`: at every event there is). After a fault, no file may be cut under its final
name, and there is one sentence or the command goes on. Then the same command, or `resume`, is run without a fault:
weights and tables must be the same to the bit, and nothing else may be left. The file is written after every few
injections, and a later call adds what is missing; `--again` repeats those that failed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL
from typing import Any

from faults_cases import Case, all_cases
from faults_judge import allow_writing, bring_back, difference, fresh_copy, parts_under_final_names, snapshot, wrong_end
from faults_kinds import FAULTS, Fault, command_of, moments
from faults_place import Place, Reference
from faults_processes import OUTSIDE, Ended, Strike, warm_up

OVER = "was over"
"""Outcome if the command ended before its moment came: this is no injection."""
GOOD = ("goes on", "goes on and says so", "ended", "saved", OVER)
_WRITTEN_EVERY = 20
_TOLD = re.compile(
    "(?i)cannot be read|could not be read|cut short|skipped|left out|unreadable|lacks rows|NaN|again|restored"
)

Row = dict[str, Any]


def inject(place: Place, case: Case, fault: Fault, reference: Reference, moment: float) -> Row:
    """Strike a command once, and tell how it ended and what became of it."""
    fresh_copy(reference.template, place.work)
    if fault.disk is not None:
        place.set_room(int(moment))
    strike = _at(fault, reference, moment)
    ended = place.run(command_of(fault, case, case.command), strike, case.processes)
    if fault.disk is not None:
        place.set_room(None)
    allow_writing(place.work)
    outcome = OVER if ended.code == OUTSIDE else wrong_end(ended, fault.expected)
    goes_on_without = fault.takes_input and ended.code == 0  # and so ends with other, whole files
    if not fault.takes_input and (parts := parts_under_final_names(place.work, (reference.before, reference.after))):
        outcome = outcome or f"not whole: {', '.join(parts[:3])}"
    where = ended.events[moment - 1] if isinstance(strike.due, int) and len(ended.events) >= moment else ""
    if fault.takes_input:
        name = where.partition(" ")[2]
        bring_back(reference.template, place.work, name, reference.after)
        # What is cached is made again when it is needed, and that of a damaged folder is not that of a whole one.
        reference = replace(reference, after=_without_cache(reference.after))
        if name not in reference.before:  # what only this file knew, such as the first command, is lost with it
            reference = replace(reference, changing=reference.changing | {name})
            if ended.code:  # as the sentence says
                (place.work / name).unlink(missing_ok=True)
    wrong = _wrong(place, fault, reference)
    if wrong and goes_on_without:
        outcome = outcome or ("goes on and says so" if _TOLD.search(ended.output + ended.errors) else "says nothing")
        fresh_copy(reference.template, place.work)  # without the fault it must do what it should
    elif wrong and ended.code == 0:
        outcome = outcome or wrong
    then = "same" if not wrong else _again(place, case, fault, reference)
    about = {"verb": case.verb, "method": case.method, "processes": case.processes, "moment": moment, "where": where}
    code = ended.codes[strike.rank] if strike.alone else ended.code
    outcome = outcome or (_good(ended) if _is_struck(ended, strike) else OVER)
    return about | {"code": code, "outcome": outcome, "then": then, "seconds": round(ended.seconds, 2)}


def _is_struck(ended: Ended, strike: Strike) -> bool:
    if strike.seconds is not None:
        return ended.struck and (strike.number != SIGKILL or ended.code != 0)
    return not isinstance(strike.due, int) or len(ended.events) >= strike.due


def _at(fault: Fault, reference: Reference, moment: float) -> Strike:
    if fault.strike.lines is not None:
        return replace(fault.strike, lines=int(moment) - 1)
    if fault.disk is not None:
        return fault.strike
    if isinstance(moment, float):
        return replace(fault.strike, seconds=moment * reference.seconds)
    return replace(fault.strike, due=moment)


def _good(ended: Ended) -> str:
    if ended.code == 0:
        return "goes on"
    return "saved" if "Saved step" in ended.errors else "ended"


def _again(place: Place, case: Case, fault: Fault, reference: Reference) -> str:
    """Run the command again, or resume the run, and compare what there is with what should be."""
    command = case.again(place.work)
    command = command_of(fault, case, command) if command == case.command else command
    again = place.run(command, None, case.processes)
    if again.code and not _is_complete(again):
        said = (again.errors.strip().splitlines() or ["nothing is said"])[-1]
        return f"then {' '.join(command[:2])} fails: {said[:200]}"
    return _wrong(place, fault, reference) or "same"


def _wrong(place: Place, fault: Fault, reference: Reference) -> str:
    found = snapshot(place.work)
    return difference(_without_cache(found) if fault.takes_input else found, reference.after, reference.changing)


def _without_cache(files: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if not name.startswith("cache/")}


def _is_complete(ended: Ended) -> bool:
    """Whether a command refuses because what it writes is there: the fault came when all was written."""
    return ended.code == 2 and any(said in ended.errors for said in ("exists already", "is not empty"))


def chosen_cases(fault: Fault, given: argparse.Namespace) -> Iterator[Case]:
    """The commands that were asked for, and that the fault can strike."""
    for case in all_cases():
        if (
            fault.of(case)
            and (not given.verbs or case.verb in given.verbs.split(","))
            and (not given.methods or case.method in given.methods.split(","))
            and str(case.processes) in given.processes.split(",")
        ):
            yield case


def read(path: Path, name: str, seed: int) -> dict[str, Any]:
    """What earlier calls have found."""
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if (found["fault"], found["seed"]) != (name, seed):
            raise SystemExit(
                f"faults: error: {path} is of {found['fault']}, seed {found['seed']}: name another --json."
            )
        return found
    return {"section": "faults", "fault": name, "about": FAULTS[name].about, "seed": seed, "injections": []}


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the findings, a line for each injection."""
    from tapetum.system.files import write_text

    head = json.dumps({key: value for key, value in found.items() if key != "injections"}, indent=1)
    rows = ",\n  ".join(json.dumps(row) for row in found["injections"])
    write_text(path, f'{head[:-2]},\n "injections": [\n  {rows}\n ]\n}}\n')


def campaign(place: Place, name: str, cases: Sequence[Case], count: int | None, seed: int, path: Path | None) -> Any:
    """Strike every case, and keep what is found; returns all that is known."""
    fault = FAULTS[name]
    found = {"injections": []} if path is None else read(path, name, seed)
    done = {(row["case"], row["moment"]) for row in found["injections"]}
    for case in cases:
        try:
            reference = place.reference(case, fault)
        except RuntimeError as error:
            print(f"faults: {error}", flush=True)
            continue
        due = list(range(reference.pages)) if fault.disk else moments(fault, name, case, reference.ended, count, seed)
        if fault.disk and count is not None:
            due = due[:: max(1, len(due) // count)]
        for number, moment in enumerate(due, start=1):
            if (case.name, moment) in done:
                continue
            row = {"case": case.name} | inject(place, case, fault, reference, moment)
            found["injections"].append(row)
            bad = row["outcome"] not in GOOD or row["then"] != "same"
            if path is not None and (bad or number % _WRITTEN_EVERY == 0):
                write(path, found)
            if bad:
                print(json.dumps(row), flush=True)
        if path is not None:
            write(path, found)
        print(f"{case.name}: {len(due)} moments", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", required=True, choices=FAULTS)
    parser.add_argument("--verbs", help="some, divided by commas; all, if left out")
    parser.add_argument("--methods", help="some, divided by commas; all, if left out")
    parser.add_argument("--processes", default="1", help="1, 4 or 1,4")
    parser.add_argument("--count", type=int, help="injections into each command; every event, if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="a folder, best in memory; a temporary one, if left out")
    parser.add_argument("--again", action="store_true", help="repeat those that failed")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    fault = FAULTS[given.fault]
    if given.again and given.json.is_file():
        found = read(given.json, given.fault, given.seed)
        found["injections"] = [r for r in found["injections"] if r["outcome"] in GOOD and r["then"] == "same"]
        write(given.json, found)
    warm_up()
    with tempfile.TemporaryDirectory(dir=given.scratch, ignore_cleanup_errors=True) as folder:
        place = Place(Path(folder).resolve(), fault.disk)
        try:
            cases = list(chosen_cases(fault, given))
            found = campaign(place, given.fault, cases, given.count, given.seed, given.json)
        finally:
            place.close()
    rows = [row for row in found["injections"] if row["outcome"] != OVER]
    failed = [row for row in rows if row["outcome"] not in GOOD or row["then"] != "same"]
    print(f"{len(rows)} injections, of which {len(failed)} ended otherwise than promised.")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
