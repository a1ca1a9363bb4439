"""`tapetum submit`: train as jobs of a cluster, which resume exactly after a time limit or preemption."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tapetum.methods.registry import load_plugins
from tapetum.recipe.recipe import Recipe, dump_recipe, load_recipe
from tapetum.runs.cluster_job import Training
from tapetum.runs.run_folder import new_run_folder
from tapetum.system.files import write_text

JOBS = "jobs"
"""Folder next to the runs, with what was submitted and the logs of the jobs."""
_DAY = 24 * 60
_SHORTEST = 3  # minutes
_SECONDS_TO_SAVE = 120
_REQUEUES = 1000
"""How often a job may reach its time limit; it makes progress each time."""


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
    """Train recipes as jobs of a cluster: one job per recipe, together a job array.

    A job that reaches its time limit or is preempted saves its step, returns to the queue and continues from there; it
    ends with the same bits as an uninterrupted run.

    Args:
        recipes: names of shipped recipes or paths of YAML files. Words that contain = are values to set.
        output: a folder for the run folders, which are named after the recipes; logs go into its `jobs`.
        overrides: `key.path=value` each, for all recipes.
        cluster: slurm, or local for processes on this machine.
        partition: the Slurm partition.
        nodes: machines per job.
        processes: processes per machine; None for one per GPU or, without `gpus`, what the recipe says.
        gpus: GPUs per machine.
        cpus: CPUs per process.
        hours, minutes: time limit, after which a job returns to the queue; 24 hours if neither is given.
        plugins: modules to import first; they register methods.

    Returns:
        submitit's jobs, in the order of the recipes; `job.results()[0]` waits for the run's summary.

    Raises:
        ValueError: a faulty recipe, a folder that is not empty or already waits for a job, no submitit, no Slurm, or
            one that does not take the jobs.

    Example:
        >>> import tapetum
        >>> jobs = tapetum.submit("paws_digits", "runs", cluster="local")  # doctest: +SKIP
    """
    given = [str(word) for word in ([recipes] if isinstance(recipes, str | Path) else recipes)]
    if gpus is not None and processes is not None and gpus != processes:
        raise ValueError(f"gpus is {gpus} and processes {processes}: give one of them, as each GPU runs one process.")
    here = gpus or processes
    if nodes > 1 and here is None:
        raise ValueError(f"nodes is {nodes}: set gpus or processes, the number of processes per machine.")
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
        # On a local machine, a recipe for several devices starts its own processes.
        tasks_per_node=here if here and cluster == "slurm" else 1,
        gpus_per_node=gpus,
        cpus_per_task=cpus,
        stderr_to_stdout=True,
        slurm_partition=partition,
        slurm_signal_delay_s=_SECONDS_TO_SAVE,
        # In some versions of Slurm, srun does not inherit the CPU count from sbatch.
        slurm_srun_args=["--kill-on-bad-exit", *([f"--cpus-per-task={cpus}"] if cpus else [])],
    )
    with _prepared(settings, Path(output), plugins) as trainings:
        jobs = _submitted(executor, trainings)
    for job, training in zip(jobs, trainings):
        print(f"Job {job.job_id} trains {training.run}; its log is {os.path.relpath(job.paths.stdout)}")
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
            "there is no srun on this machine: submit from a machine of the cluster, or use cluster local."
        ) from error


def _settings(recipes: Sequence[str], values: Sequence[str], plugins: Sequence[str]) -> dict[str, Recipe]:
    """Return recipes by the names of their runs; all are read before anything is submitted."""
    if not recipes:
        raise ValueError("no recipe is given: name one or several; `tapetum recipes` lists the shipped ones.")
    load_plugins(plugins)
    names = [Path(recipe).stem for recipe in recipes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two recipes are called {twice[0]}, and their runs would be too: submit them to two folders.")
    return {name: load_recipe(recipe, values) for name, recipe in zip(names, recipes)}


@contextmanager
def _prepared(settings: Mapping[str, Recipe], output: Path, plugins: Sequence[str]) -> Iterator[list[Training]]:
    """Save the recipes as submitted, so that the jobs train them even if the original files change.

    They are removed again if the `with` block fails, so that the same can be submitted anew.
    """
    trainings = [Training(output / JOBS / f"{name}.yaml", output / name, tuple(plugins)) for name in settings]
    for training in trainings:
        if training.recipe.exists():  # two jobs would train into one folder
            raise ValueError(
                f"{training.recipe} says that {training.run.name} was submitted to {output} before: give another "
                "--output, or, if that job ended without training, delete the file."
            )
    with ExitStack() as folders:
        for training in trainings:
            folders.enter_context(new_run_folder(training.run))
        try:
            for training, recipe in zip(trainings, settings.values(), strict=True):
                write_text(training.recipe, dump_recipe(recipe))
            yield trainings
        except BaseException:
            for training in trainings:
                training.recipe.unlink(missing_ok=True)
            raise


def _submitted(executor: Any, trainings: Sequence[Training]) -> list[Any]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with executor.batch():
            return [executor.submit(training) for training in trainings]
    except (FailedJobError, FailedSubmissionError) as error:
        said = "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or "it does not say why"
        raise ValueError(
            f"the cluster did not take the jobs ({said}): change what they ask for, such as --partition, and submit "
            "again."
        ) from error
