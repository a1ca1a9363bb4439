"""Run folders and the files in them: recipe.yaml, metrics.csv, summary.json, checkpoints/, perhaps unreadable.csv."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tapetum.recipe.files import RECIPE
from tapetum.recipe.recipe import Recipe, dump_recipe, load_recipe
from tapetum.runs.places import GIVEN, with_own_copies
from tapetum.system.files import RESUME, begins_with, only_one, owned, write_text, writing
from tapetum.system.launcher import process_rank

SUMMARY = "summary.json"
UNREADABLE = "unreadable.csv"
FOLDS = "folds"
"""Name of the folder for the short runs that cross-validation makes; each is a run folder."""
LOCK = "run.lock"
"""Name of the file that tells which process is writing the run; that of a killed one stays, but no longer counts."""
_PARTIAL = ".partial"


@contextmanager
def new_run_folder(path: str | Path) -> Iterator[Path]:
    """Make an empty run folder. It is removed again if the `with` block fails while the folder is still empty.

    Raises:
        ValueError: the folder is not empty (it is then left untouched) or cannot be created.
    """
    folder = Path(path)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a new folder as --output.")
    if folder.is_dir() and not all(map(_is_left_over, folder.iterdir())):
        go_on = f"continue the run with `tapetum resume {folder}`, or " if (folder / RECIPE).is_file() else ""
        raise ValueError(f"{folder} is not empty: {go_on}give another --output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"the folder {folder} cannot be created ({reason}): give another --output.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} is not writable: change its permissions or give another --output.")
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # the folder is not empty
            for place in made:
                place.rmdir()
        raise


def _is_left_over(path: Path) -> bool:
    """Whether a run that was killed before it began may have left a file: its recipe gets its name last."""
    if path.name == SUMMARY:
        return begins_with(path, b'{\n  "command": ')  # the user may have one of another program
    return path.name in (UNREADABLE, GIVEN, LOCK) or path.name.endswith(_PARTIAL)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other processes from training the same run meanwhile. Of one run's processes, rank 0 holds the lock.

    Raises:
        ValueError: another process is writing the run (the message names it), or the folder is not writable.
    """
    with owned(folder / LOCK) if process_rank() == 0 else nullcontext():
        yield


def open_run_folder(path: str | Path) -> tuple[Path, Recipe]:
    """Open a run folder; returns its path and its resolved recipe.

    Raises:
        ValueError: it is not a run folder.
    """
    folder = Path(path)
    if not (folder / RECIPE).is_file():
        if (folder.parent / "jobs" / f"{folder.name}.yaml").is_file():
            raise ValueError(f"{folder} has been submitted and has not begun: wait for its job.")
        raise ValueError(f"{folder} is no run folder (it has no {RECIPE}): give the --output of an earlier run.")
    return folder, with_own_copies(folder, load_recipe(folder / RECIPE))


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe, whole or not at all."""
    write_text(folder / RECIPE, dump_recipe(recipe))


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json, whole or not at all."""
    write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n", RESUME)


def update_summary(folder: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set entries of summary.json; those that other processes have set meanwhile stay. Returns all of it."""
    with writing(folder / SUMMARY, RESUME), only_one(folder / RECIPE):
        summary = {**read_summary(folder), **changes}
        write_summary(folder, summary)
    return summary


def read_summary(folder: Path) -> dict[str, Any]:
    """Read summary.json; it holds at most the command if the run has not finished.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / SUMMARY
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON object ({error}): delete it, and it is written again.") from error


def environment() -> dict[str, Any]:
    """Return versions, the kind of machine and peak memory so far, for a summary."""
    return {
        "peak_memory_mb": _peak_memory_mb(),
        "versions": {
            "tapetum": version("tapetum"),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "machine": {
            "architecture": platform.machine(),
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _peak_memory_mb() -> int | None:
    """This process's; None on Windows, which does not tell it through Python."""
    if sys.platform == "win32":
        return None
    import resource

    # In kilobytes on Linux and in bytes on macOS.
    scale = 1024 if sys.platform == "darwin" else 1
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / scale)


def command() -> str:
    """Return the command line that started this process."""
    name = Path(sys.argv[0]).name
    program = "tapetum" if name == "__main__.py" else name  # as `python -m tapetum` calls it
    return shlex.join([program, *sys.argv[1:]])
