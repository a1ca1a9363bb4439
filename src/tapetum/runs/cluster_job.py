"""A run as a cluster job. The job's own process only waits for the training, so nothing here loads torch."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tapetum.system.interruption import STOPPED

PATIENCE = 90.0
"""Seconds that a run has to finish its step and save. The cluster gives 120, and requeueing takes some of them."""


class Training:
    """`tapetum train` in a separate process, or `tapetum resume` if the run has already begun.

    Args:
        recipe: the recipe file.
        run: the run folder.
        plugins: modules to import first.
    """

    def __init__(self, recipe: Path, run: Path, plugins: tuple[str, ...]) -> None:
        self.recipe, self.run, self.plugins = recipe, run, plugins
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> dict[str, Any]:
        """Train to the end; returns the run's summary.

        Raises:
            RuntimeError: the command failed.
            SystemExit: the run was stopped and has saved.
        """
        from submitit import JobEnvironment

        words = ["train", str(self.recipe), "--output", str(self.run)]
        if (self.run / "recipe.yaml").is_file():
            words = ["resume", str(self.run)]
        words += [word for plugin in self.plugins for word in ("--plugin", plugin)]
        command = [sys.executable, "-P", "-m", "tapetum", *words]
        # Slurm's warning signal also reaches processes that a task has started; only `checkpoint` should react to it.
        warning = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        self._process = subprocess.Popen(command, preexec_fn=partial(signal.signal, warning, signal.SIG_IGN))
        try:
            code = self._process.wait()
        finally:
            self._stop()
        if code == STOPPED:
            # If another rank exited with an error, that would end rank 0 before it has requeued the job.
            sys.exit(code if JobEnvironment().global_rank == 0 else 0)
        if code != 0:
            raise RuntimeError(f"tapetum {words[0]} ended with exit code {code}: see its output above.")
        return dict(json.loads((self.run / "summary.json").read_text(encoding="utf-8")))

    def checkpoint(self) -> Any:
        """Stop and save; returns what the job does once it is requeued. submitit calls this in rank 0."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        return DelayedSubmission(Training(self.recipe, self.run, self.plugins))

    def _stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        # A signal may have interrupted Popen's own `wait`, which then holds its lock: ask the system instead.
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._process.pid, signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE
            while os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                if time.monotonic() > deadline:
                    # Checkpoints are complete at any moment, and a job that is late is not requeued.
                    os.kill(self._process.pid, signal.SIGKILL)
                time.sleep(0.05)
