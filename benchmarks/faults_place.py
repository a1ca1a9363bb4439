"""Where commands are struck: a folder like the one that the command begins in, and what it does there undisturbed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from faults_cases import Case, write_data
from faults_judge import Snapshot, fresh_copy, snapshot
from faults_kinds import PAGE, Fault, command_of
from faults_processes import Ended, Strike, run
from faults_strikes import die, nothing

_ROOM = 64 * 2**20
_FILES = 100_000


@dataclass(frozen=True)
class Reference:
    """What a command does if nothing disturbs it."""

    template: Path
    before: Snapshot
    after: Snapshot
    changing: frozenset[str]
    """Files that differ between two undisturbed runs."""
    ended: Ended
    seconds: float
    """How long it takes, at its fastest."""
    pages: int
    """Room it needs beyond what is there before: pages, or files, of a small disk."""


class Place:
    """Folders in which commands are struck.

    Args:
        scratch: a folder for templates, logs and the work; the work is on a disk of its own if faults fill that.
        disk: "size" or "nr_inodes" for a disk of its own, whose room can be changed.
    """

    def __init__(self, scratch: Path, disk: str | None = None) -> None:
        self.work, self.logs, self._templates = (scratch / name for name in ("work", "logs", "templates"))
        self._disk = disk
        for folder in (self.work, self.logs, self._templates):
            folder.mkdir(parents=True, exist_ok=True)
        if disk is not None:
            _mount(self.work)

    def close(self) -> None:
        if self._disk is not None:
            subprocess.run(["umount", str(self.work)], check=True)

    def run(self, command: Sequence[str], strike: Strike | None, processes: int) -> Ended:
        """Run a command in the work folder as it is."""
        return run(command, self.work, self.logs, strike, processes)

    def set_room(self, pages: int | None) -> None:
        """Leave room for so many pages (or files) beyond what is there; None for plenty."""
        room = {"size": _ROOM, "nr_inodes": _FILES}
        if pages is not None and self._disk is not None:
            room[self._disk] = self._used() + pages * (PAGE if self._disk == "size" else 1)
        _mount(self.work, remount=True, **room)

    def _used(self) -> int:
        disk = os.statvfs(self.work)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize if self._disk == "size" else disk.f_files - disk.f_ffree

    def reference(self, case: Case, fault: Fault) -> Reference:
        """Run a command undisturbed, twice.

        Raises:
            RuntimeError: it fails.
        """
        template = self._template(case)
        command = command_of(fault, case, case.command)
        ends, snapshots = [], []
        for _ in range(2):
            fresh_copy(template, self.work)
            ends.append(self.run(command, replace(fault.strike, act=nothing, prepare=None, lines=None), case.processes))
            if ends[-1].code:
                raise RuntimeError(f"{case.name} fails undisturbed: {ends[-1].errors}")
            snapshots.append(snapshot(self.work))
        changing = frozenset(name for name in snapshots[0] if snapshots[0][name] != snapshots[1].get(name))
        pages = 0 if fault.disk is None else self._pages(case, template)
        return Reference(
            template, snapshot(template), snapshots[1], changing, ends[1], min(end.seconds for end in ends), pages
        )

    def _pages(self, case: Case, template: Path) -> int:
        """Find by bisection how much room the command needs."""
        enough, short = 1, 0
        while not self._fits(case, template, enough):
            short, enough = enough, 2 * enough
        while enough - short > 1:
            middle = (enough + short) // 2
            if self._fits(case, template, middle):
                enough = middle
            else:
                short = middle
        return enough

    def _fits(self, case: Case, template: Path, pages: int) -> bool:
        self.set_room(None)
        fresh_copy(template, self.work)
        self.set_room(pages)
        ended = self.run(case.command, None, case.processes)
        self.set_room(None)
        return ended.code == 0

    def _template(self, case: Case) -> Path:
        """The folder as it is before the command, made once for all commands that begin alike."""
        key = "-".join(["", *(f"{'-'.join(begin.command)}-{begin.until}" for begin in case.begins)])
        folder = self._templates / f"{case.processes}{key.replace('/', '_')}"
        if not folder.exists():
            fresh_copy(_nowhere(self._templates), self.work)
            write_data(self.work)
            for begin in case.begins:
                ended = self.run(begin.command, begin.until and Strike(die, due=begin.until), case.processes)
                assert (ended.code != 0) == (begin.until is not None), ended.errors
            shutil.copytree(self.work, folder)
        return folder


def _nowhere(folder: Path) -> Path:
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    return empty


def _mount(folder: Path, remount: bool = False, size: int = _ROOM, nr_inodes: int = _FILES) -> None:
    options = f"{'remount,' if remount else ''}size={size},nr_inodes={nr_inodes}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
