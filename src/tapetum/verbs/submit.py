"""`tapetum submit`: runs as jobs of a cluster, taken up exactly after its time limit or when others go first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tapetum.methods.registry import load_plugins
from tapetum.recipe.recipe import Recipe, dump_recipe, load_recipe
from tapetum.runs.cluster_job import Training
from tapetum.runs.run_folder import new_run_folder

JOBS = "jobs"
"""Folder beside the runs: what was submitted, and what the jobs said."""
_DAY = 24 * 60
_SHORTEST = 3  # minutes
_SECONDS_TO_SAVE = 120
_REQUEUES = 1000
"""How often a job may reach its time limit; each time is progress."""


def submit(
    recipes: str | Path | Sequence[str | Path],
    output: str | Path,
    overrides: Sequence[str] = (),
    *,
    cluster: str = "slurm",
    partition: str | None = None,
    nodes: int = 1,
    processes: int | None = None,
    gpus: int | None = None,
    cpus: int | None = None,
    hours: float | None = None,
    minutes: int | None = None,
    plugins: Sequence[str] = (),
) -> list[Any]:
    """Train recipes as jobs of a cluster: one job each, together a job array.

    A job that reaches its time limit, or has to make room, saves its step, waits in the queue again and goes on from
    there, to the bits of a run that was left alone.

    Args:
        recipes: names of shipped recipes or paths of YAML files. Words with = in them are values to set.
        output: folder whose subfolders, named after the recipes, become the run folders; logs go into its `jobs`.
        overrides: `key.path=value` each, for all recipes.
        cluster: slurm, or local for processes on this machine.
        partition: of Slurm.
        nodes: machines for each job.
        processes: on each machine; None takes one for each GPU, or else what the recipe says.
        gpus: on each machine.
        cpus: for each process.
        hours, minutes: time limit of a job before it waits in the queue again; 24 hours if neither is given.
        plugins: modules to import first, which register methods.

    Returns:
        submitit's jobs, in the order of the recipes; `job.results()[0]` waits for the run's summary.

    Raises:
        ValueError: a bad recipe, a folder that is not empty or waits for a job already, no submitit or no Slurm.

    Example:
        >>> import tapetum
        >>> jobs = tapetum.submit("paws_digits", "runs", cluster="local")  # doctest: +SKIP
    """
    given = [str(word) for word in ([recipes] if isinstance(recipes, str | Path) else recipes)]
    if gpus is not None and processes is not None and gpus != processes:
        raise ValueError(f"gpus is {gpus} and processes {processes}: give one of them, as each GPU takes one process.")
    here = gpus or processes
    if nodes > 1 and here is None:
        raise ValueError(f"nodes is {nodes}: say with gpus or processes how many processes each of them runs.")
    limit = _DAY if hours is None and minutes is None else round(60 * (hours or 0)) + (minutes or 0)
    if limit < _SHORTEST:
        raise ValueError(f"the time limit is {limit} minutes: give {_SHORTEST} or more, two of which are for saving.")
    values = [*(word for word in given if "=" in word), *overrides]
    values += [f"runtime.devices={nodes * here}"] if here else []
    settings = _settings([word for word in given if "=" not in word], values, plugins)
    executor = _executor(Path(output) / JOBS, cluster)
    executor.update_parameters(
        name="tapetum",
        timeout_min=limit,
        nodes=nodes,
        # Without a cluster's tasks, a recipe for several devices starts its own processes.
        tasks_per_node=here if here and cluster == "slurm" else 1,
        gpus_per_node=gpus,
        cpus_per_task=cpus,
        stderr_to_stdout=True,
        slurm_partition=partition,
        slurm_signal_delay_s=_SECONDS_TO_SAVE,
        # What sbatch is told of CPUs, srun does not take over in every version of Slurm.
        slurm_srun_args=["--kill-on-bad-exit", *([f"--cpus-per-task={cpus}"] if cpus else [])],
    )
    trainings = [_prepare(name, recipe, Path(output), plugins) for name, recipe in settings.items()]
    with executor.batch():
        jobs = [executor.submit(training) for training in trainings]
    for job, training in zip(jobs, trainings):
        print(f"Job {job.job_id} trains {training.run}; what it says goes to {os.path.relpath(job.paths.stdout)}")
    print(f"Next, while it trains: tapetum doctor {trainings[0].run}")
    return jobs


def _executor(folder: Path, cluster: str) -> Any:
    if cluster not in ("slurm", "local"):
        raise ValueError(f"cluster is {cluster}: use slurm, or local for processes on this machine.")
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise ValueError("submit needs the package submitit: pip install 'tapetum[slurm]'.") from error
    try:
        return AutoExecutor(folder, cluster, **{f"{cluster}_max_num_timeout": _REQUEUES})
    except RuntimeError as error:
        raise ValueError(
            "there is no srun on this machine: submit from one of the cluster, or with cluster local."
        ) from error


def _settings(recipes: Sequence[str], values: Sequence[str], plugins: Sequence[str]) -> dict[str, Recipe]:
    """Recipes by the names of their runs, all of them read before anything is submitted."""
    if not recipes:
        raise ValueError("no recipe is given: name one or several; `tapetum recipes` lists those that there are.")
    load_plugins(plugins)
    names = [Path(recipe).stem for recipe in recipes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two recipes are called {twice[0]}, and so would be their runs: submit them to two folders.")
    return {name: load_recipe(recipe, values) for name, recipe in zip(names, recipes)}


def _prepare(name: str, recipe: Recipe, output: Path, plugins: Sequence[str]) -> Training:
    """Writes down what is submitted, so that the job trains this whatever becomes of the file that it came from."""
    path = output / JOBS / f"{name}.yaml"
    if path.exists():  # two jobs would train into one folder
        raise ValueError(
            f"{path} says that {name} was submitted to {output} before: give another --output, or, if that job is "
            "over and trained nothing, delete the file."
        )
    with new_run_folder(output / name) as run:
        path.parent.mkdir(exist_ok=True)
        path.write_text(dump_recipe(recipe), encoding="utf-8")
    return Training(path, run, tuple(plugins))
