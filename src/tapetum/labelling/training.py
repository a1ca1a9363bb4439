"""Training from the page: each run is a process that outlives it, followed by `predict`, `suggest` and `review`.

Before there are labels, `suggest` alone trains a network without them and chooses what to ask first.

A run is made of files in one folder, numbered from 001: `001.json` tells what runs, `001.labels.csv` is the copy of the
labels that the run trains on (a run whose labels change could not be resumed exactly), `001/` is the run folder,
`001.log` is what the processes said; `001.predictions.csv`, `001.suggestions.csv` and `001.review/` are the results.
Nothing else is remembered, so a page that is started again finds everything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tapetum.labelling.answers import Answers
from tapetum.labelling.pictures import Pool
from tapetum.labelling.processes import Process, ask_to_stop, complaint, is_alive, last_words, start
from tapetum.labelling.progress import read_progress, read_summary
from tapetum.recipe.files import RECIPE
from tapetum.recipe.yaml_with_lines import read_yaml
from tapetum.system.files import only_one, write_text

UNITS = ("minutes", "epochs", "steps")
CHOOSE = "choose"
"""Phase of a training without labels, and of choosing by it what to ask first."""
_ORDER = ("fit", "predict", "suggest", "review")
RUNNING = (CHOOSE, *_ORDER)
"""Phases in which a process runs; the others are "stopped", "failed" and "done"."""
_SUGGESTED = "100"
_AGAIN = "try again"


@dataclass(frozen=True)
class Job:
    """A run and the process that works on it."""

    number: int
    run: str
    phase: str
    process: Process
    began: float
    """When it was started, in seconds since 1970."""
    counts: Mapping[str, int]
    """Images of each class that it trains on; empty if the run was there before."""
    command: tuple[str, ...] = ()
    """How its training was started."""
    is_stopping: bool = False
    """Whether somebody asked to stop what runs."""

    @property
    def chooses(self) -> bool:
        """Whether it only chooses what to ask first."""
        return self.command[:1] == ("suggest",)


class Training:
    """The runs of one label file.

    Args:
        folder: where their files are.
        pool: the images.
        answers: the labels.
    """

    def __init__(self, folder: Path, pool: Pool, answers: Answers) -> None:
        self.folder, self._pool, self._answers = folder, pool, answers

    def jobs(self) -> list[Job]:
        """Return all runs, the oldest first."""
        found = []
        for path in sorted(p for p in self.folder.glob("*.json") if p.stem.isdigit()):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                content["process"], content["command"] = Process(*content["process"]), tuple(content["command"])
                found.append(Job(**content))
                _check(found[-1])
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
                raise ValueError(f"{path} is not what the page wrote there: delete it.") from error
        return found

    def file(self, job: Job, name: str) -> Path:
        """Return the path of a job's file, e.g. `predictions.csv`."""
        return self.folder / f"{job.number:03}.{name}"

    def newest(self, name: str) -> Path | None:
        """Return the file of this name of the latest run that has one."""
        paths = (self.file(job, name) for job in reversed(self.jobs()))
        return next((path for path in paths if path.exists()), None)

    def start(self, unit: str, length: float) -> None:
        """Train on the labels as they are now.

        Args:
            unit: minutes, epochs or steps.
            length: how many.

        Raises:
            ValueError: a run is being trained already, there are fewer than two classes, or the length is not positive.
        """
        if unit not in UNITS or not 0 < length < 1e9:
            raise ValueError(f"the length is {length:g} {unit}: give a positive number of minutes, epochs or steps.")
        with self._alone():
            job = self._next("fit")
            counts = self._answers.copy(self.file(job, "labels.csv"))
            if len(counts) < 2:
                raise ValueError("a classifier needs images of at least two classes: label some of another class.")
            count = f"{length:g}" if unit != "steps" else str(int(length))
            command = self._fit(job, unit, count)
            self._run(replace(job, counts=counts, command=tuple(command)), command)

    def choose(self, minutes: float) -> None:
        """Train without labels, and choose images of all kinds to ask first.

        Raises:
            ValueError: a run is being trained already, or the minutes are not positive.
        """
        if not 0 < minutes < 1e9:
            raise ValueError(f"the length is {minutes:g} minutes: give a positive number.")
        with self._alone():
            job = self._next(CHOOSE)
            self._answers.copy(self.file(job, "labels.csv"))
            run = self.file(job, "suggestions_run")  # where `suggest` trains
            command = self._choose(job, f"{minutes:g}")
            self._run(replace(job, run=str(run), command=tuple(command)), command)

    def _choose(self, job: Job, minutes: str) -> list[str]:
        command = ["suggest", self._pool.images, "--labels", str(self.file(job, "labels.csv"))]
        table = str(self.file(job, "suggestions.csv"))
        return [*command, f"--count={_SUGGESTED}", "--minutes", minutes, "--output", table]

    def _next(self, phase: str) -> Job:
        """Return the job after the last one, which must be over."""
        jobs = self.jobs()
        if jobs and jobs[-1].phase in RUNNING:
            raise ValueError(f"run {jobs[-1].number:03} is not finished: wait for its end, or stop it.")
        number = jobs[-1].number + 1 if jobs else 1
        return Job(number, str(self.folder / f"{number:03}"), phase, Process(0, ""), time.time(), {})

    def _fit(self, job: Job, unit: str, count: str) -> list[str]:
        command = ["fit", "--images", self._pool.images, "--labels", str(self.file(job, "labels.csv"))]
        return [*command, f"--{unit}", count, "--output", job.run]

    def adopt(self, run: Path) -> None:
        """Predict and suggest by a run that was trained elsewhere, unless that is done already."""
        with self._alone():
            jobs = self.jobs()
            if any(Path(job.run) == run for job in jobs):
                return
            if jobs and jobs[-1].phase in RUNNING:
                raise ValueError(
                    f"run {jobs[-1].number:03} is not finished: start without --run, and wait for its end."
                )
            number = jobs[-1].number + 1 if jobs else 1
            self._follow(Job(number, str(run), "fit", Process(0, ""), time.time(), {}))

    def stop(self) -> None:
        """Ask what runs to save and stop."""
        with self._alone():
            for job in self.jobs()[-1:]:
                if job.phase in RUNNING:
                    self._write(replace(job, is_stopping=True))
                    ask_to_stop(job.process)

    def resume(self) -> None:
        """Continue the last run.

        Raises:
            ValueError: it was neither stopped nor failed.
        """
        with self._alone():
            job = next(iter(self.jobs()[-1:]), None)
            if job is None or job.phase not in ("stopped", "failed"):
                raise ValueError("no run was stopped: start one.")
            if job.chooses:
                self._run(replace(job, phase=CHOOSE), self._choose(job, _length_of(job)[1]))
            elif read_summary(Path(job.run)):
                self._follow(replace(job, phase="fit", is_stopping=False))
            elif (Path(job.run) / RECIPE).is_file():
                self._run(replace(job, phase="fit"), ["resume", job.run, *self._moved(job, "images", "labels")])
            else:  # stopped before it began
                self._run(replace(job, phase="fit"), self._fit(job, *_length_of(job)))

    def tick(self) -> None:
        """Where a process has ended, start what follows."""
        job = next(iter(self.jobs()[-1:]), None)
        if job is None or job.phase not in RUNNING or is_alive(job.process):
            return
        with self._alone():
            if self.jobs()[-1] == job:  # another page has not been faster
                self._follow(job)

    def state(self) -> dict[str, Any] | None:
        """Tell phase, progress and last words of the last run; None if there is none."""
        job = next(iter(self.jobs()[-1:]), None)
        if job is None:
            return None
        progress = read_progress(Path(job.run), job.counts)
        told = complaint(self.file(job, "log")) if job.phase == "failed" else None
        said = last_words(self.file(job, "log"))[-1:]
        return {
            "run": job.run,
            "number": job.number,
            "phase": job.phase,
            "chooses": job.chooses,
            "seconds": round(time.time() - job.began),
            "said": told or "".join(said),
            **progress,
        }

    def finished(self) -> list[dict[str, Any]]:
        """Tell labels and expected accuracy of every finished run, the oldest first."""
        found = []
        for job in self.jobs():
            summary = read_summary(Path(job.run))
            if summary and not job.chooses:
                by_folds, held = summary.get("folds_top1"), summary.get("heldout_top1")
                ends = summary.get("heldout_interval") if held is not None else summary.get("folds_interval")
                found.append(
                    {
                        "number": job.number,
                        "run": job.run,
                        "labels": sum(job.counts.values()) or summary.get("num_labels"),
                        "top1": by_folds if held is None else held,
                        "interval": ends,
                    }
                )
        return found

    def _follow(self, job: Job) -> None:
        """Start what comes after the phase of a job whose process has ended."""
        result = self.file(job, "suggestions.csv" if job.chooses else "predictions.csv")
        is_done = bool(read_summary(Path(job.run))) if job.phase == "fit" else result.exists()
        following = () if job.chooses else _ORDER[_ORDER.index(job.phase) + 1 :][:1]
        if not is_done:
            self._write(replace(job, phase="failed" if complaint(self.file(job, "log")) else "stopped"))
        elif job.is_stopping or not following:
            self._write(replace(job, phase="done" if result.exists() else "stopped"))
        else:
            labels, suggestions = str(self._answers.path), str(self.file(job, "suggestions.csv"))
            words = {
                "predict": ["predict", job.run, self._pool.images, "--output", str(result)],
                "suggest": ["suggest", job.run, "--count", _SUGGESTED, "--labels", labels, "--output", suggestions],
                "review": ["review", job.run, "--output", str(self.file(job, "review"))],
            }[following[0]]
            places = ("images",) if following[0] == "suggest" else ("images", "labels")
            self._run(replace(job, phase=following[0]), [*words, *self._moved(job, *places)])

    def _moved(self, job: Job, *places: str) -> list[str]:
        """Return options that say where a run's images and labels are now, if nothing is where its recipe has them."""
        now = {"images": self._pool.images, "labels": str(self.file(job, "labels.csv"))}
        try:
            data = read_yaml((Path(job.run) / RECIPE).read_text(encoding="utf-8"), str).plain()["data"]
            lost = [name for name in places if data.get(name) and not Path(data[name]).exists()]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return []  # the command will say what is wrong
        return [word for name in lost if Path(now[name]).exists() for word in (f"--{name}", now[name])]

    def _run(self, job: Job, words: list[str]) -> None:
        self._write(replace(job, process=start(words, self.file(job, "log")), is_stopping=False))

    def _write(self, job: Job) -> None:
        write_text(self.file(job, "json"), json.dumps(asdict(job), indent=1) + "\n", _AGAIN)

    def _alone(self) -> AbstractContextManager[bool]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return only_one(self.folder / "lock")


def _check(job: Job) -> None:
    """Refuse a note that the page did not write: its words become those of a command line."""
    phases = (*RUNNING, "stopped", "failed", "done")
    if not Path(job.run).is_absolute() or job.phase not in phases or type(job.number) is not int:
        raise ValueError("no note of a run")
    if job.command:
        _length_of(job)


def _length_of(job: Job) -> tuple[str, str]:
    """Return unit and count of a training's command."""
    unit, count = job.command[5:7] if len(job.command) == 9 else ("", "0")  # of either command
    unit = str(unit).removeprefix("--")
    if unit not in UNITS or not 0 < float(count) < 1e9:
        raise ValueError("no command of the page")
    return unit, count
