"""Processes started by torchrun, by srun or by the recipe: one training, one output, one resumption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tapetum.recipe.recipe import load_recipe

LAUNCHERS = ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "RANK", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
TAPETUM = (sys.executable, "-m", "tapetum")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tapetum")
SLURM = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_NODEID": "0",
    "SLURM_JOB_ID": str(os.getpid()),
    "SLURM_STEP_ID": "0",
}
TRAIN = ("train", "colours.yaml", "--output")


def start(words: tuple[str, ...], **variables: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHERS} | variables
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env=environment, start_new_session=True, **pipes)


def end(*processes: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Output and errors of all of them together."""
    said = [process.communicate(timeout=300) for process in processes]
    for process, (_, error) in zip(processes, said):
        assert process.returncode == code, error
    return "".join(out for out, _ in said), "".join(error for _, error in said)


def as_tasks(*words: str, code: int = 0) -> tuple[str, str]:
    """Two processes, each told by srun's variables which one it is."""
    tasks = [start((*TAPETUM, *words), SLURM_PROCID=f"{i}", SLURM_LOCALID=f"{i}", **SLURM) for i in range(2)]
    return end(*tasks, code=code)


@pytest.fixture
def reference(recipe):
    """The processes that a recipe for two devices starts itself."""
    process = start((*TAPETUM, *TRAIN, "own", "runtime.devices=2"))
    yield process
    with suppress(ProcessLookupError):  # its further process goes, too
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def last(run: str, step: int = 6) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    arrays = load_file(Path(run) / f"checkpoints/step-{step:08d}.safetensors")
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.slow
def test_launchers_train_as_a_recipe_for_two_devices(reference):
    """Their number of processes counts, is written into the run's recipe, and another launcher goes on with it."""
    out, error = end(start((*TORCHRUN, *TRAIN, "torchrun")))
    assert out.count("Trained 6 steps") == out.count("Next: tapetum report") == 1
    for line in ("in the 2 processes that torchrun started, in place of runtime.devices=1", "pool: ", "step 6/6"):
        assert error.count(line) == 1, error
    end(reference)
    assert last("own") == last("torchrun")
    assert load_recipe("torchrun/recipe.yaml").runtime.devices == 2
    Path("torchrun/checkpoints/step-00000006.safetensors").unlink()
    out, error = as_tasks("resume", "torchrun")
    assert out.count("Trained 6 steps") == error.count("step 6/6") == 1
    assert last("own") == last("torchrun")


@pytest.mark.slow
def test_what_srun_trained_goes_on_without_it(reference):
    out, error = as_tasks(*TRAIN, "srun")
    assert out.count("Trained 6 steps") == 1
    assert error.count("2 processes that srun started") == error.count("pool: ") == error.count("step 6/6") == 1
    end(reference)
    assert last("own") == last("srun")
    Path("srun/checkpoints/step-00000006.safetensors").unlink()
    end(start((*TAPETUM, "resume", "srun")))
    assert last("own") == last("srun")


def test_an_error_of_all_processes_is_said_once(recipe):
    _, error = end(start((*TORCHRUN, *TRAIN, "run", "data.images=nowhere")), code=1)
    assert error.count("tapetum: error: there is nothing at nowhere") == 1
    assert "src/tapetum" not in error  # torchrun has a traceback of its own; none is of our code


@pytest.mark.slow
def test_an_error_of_all_processes_is_said_once_without_a_launcher(recipe):
    _, error = end(start((*TAPETUM, *TRAIN, "other", "data.images=nowhere", "runtime.devices=2")), code=2)
    assert error.count("tapetum: error: there is nothing at nowhere") == 1


@pytest.mark.slow
def test_an_error_of_one_process_is_said(recipe):
    """The second task cannot read what the first one can; the first one says no more than that it was left."""
    words = (*TAPETUM, *TRAIN, "run", "data.images=colours.npz")
    tasks = [start(words, SLURM_PROCID=f"{i}", SLURM_LOCALID=f"{i}", **SLURM) for i in range(1)]
    tasks.append(start((*words, "data.images=nowhere"), SLURM_PROCID="1", SLURM_LOCALID="1", **SLURM))
    (_, first), (_, second) = (task.communicate(timeout=300) for task in tasks)
    assert [task.returncode for task in tasks] == [1, 2]
    assert second.startswith("tapetum: error: there is nothing at nowhere")
    assert second.endswith("(process 1)\n")
    assert first.splitlines()[-1].startswith("tapetum: error: another process of this run has ended")
    assert "Traceback" not in first + second
