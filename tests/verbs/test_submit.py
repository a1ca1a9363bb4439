"""Jobs train what `train` would, one that had to make room goes on to the same bits, and what Slurm is asked for."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import tapetum
from tapetum.engine.callbacks import TIME_COLUMNS
from tapetum.runs import cluster_job as job

pytest.importorskip("submitit")
LONG = ("trainer.steps=120", "trainer.checkpoint_every=60")


def contents(run: str) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """The last checkpoint and metrics.csv but for the time."""
    arrays = load_file(sorted(Path(run, "checkpoints").glob("*.safetensors"))[-1])
    with Path(run, "metrics.csv").open(newline="") as file:
        table = [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in csv.DictReader(file)]
    return {name: array.tobytes() for name, array in arrays.items()}, table


def warn_when_it_trains(job, run: str) -> None:
    """The signal that a cluster sends before it takes a machine back, to the job's one task."""
    deadline = time.monotonic() + 120
    while not Path(run, "metrics.csv").exists():
        assert time.monotonic() < deadline, job.stdout()
        assert not job.done(), job.stdout()
        time.sleep(0.02)
    controller = job.job_id
    [task] = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the job's process in /proc")
def test_two_recipes_one_of_which_makes_room(recipe, capsys):
    Path("short.yaml").write_text("extends: colours.yaml\nmethod: {kind: supervised}\n")
    first, second = tapetum.submit(["colours.yaml", "short.yaml", *LONG], "runs", cluster="local")
    said = capsys.readouterr().out
    assert f"Job {first.job_id} trains runs/colours; its log is runs/jobs/{first.job_id}_0_log.out" in said
    assert said.endswith("Next, while it trains: tapetum doctor runs/colours\n")
    Path("colours.yaml").unlink()  # what was submitted is trained
    warn_when_it_trains(first, "runs/colours")
    summaries = [first.result(), second.result()]
    assert [summary["steps"] for summary in summaries] == [120, 120]
    assert [summary["method"] for summary in summaries] == ["paws", "supervised"]
    told = first.stdout()
    assert "Continue with: tapetum resume runs/colours" in told
    assert "Requeued job" in told
    assert "Requeued" not in second.stdout()
    tapetum.train("runs/jobs/colours.yaml", "undisturbed")
    assert contents("runs/colours") == contents("undisturbed")


def test_a_run_that_does_not_stop_in_time_is_ended_and_put_back_into_the_queue(monkeypatch):
    monkeypatch.setattr(job, "PATIENCE", 0.2)
    training = job.Training(Path("recipe.yaml"), Path("run"), ())
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    training._process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    training._process.stdout.readline()
    later = training.checkpoint()
    assert training._process.wait(timeout=5) == -signal.SIGKILL
    assert later.function.run == Path("run")


def stand_in_for_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, sbatch: str) -> None:
    """Put the commands of Slurm in front of others; `sbatch` is what that one does."""
    folder.mkdir(exist_ok=True)
    for name, lines in {"srun": "", "sbatch": sbatch}.items():
        (folder / name).write_text(f"#!/bin/sh\n{lines}")
        (folder / name).chmod(0o755)
    if str(folder) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_jobs_that_slurm_refuses_can_be_submitted_anew(recipe, tmp_path, monkeypatch):
    refuses = "echo sbatch: error: invalid partition: bgi >&2\necho sbatch: error: failed >&2\nexit 1\n"
    stand_in_for_slurm(tmp_path / "bin", monkeypatch, refuses)
    Path("other.yaml").write_text("extends: colours.yaml\n")
    said = r"^the cluster did not take the jobs \(sbatch: error: invalid partition: bgi; sbatch: error: failed\)"
    with pytest.raises(ValueError, match=said):
        tapetum.submit(["colours.yaml", "other.yaml"], "runs", partition="bgi")
    assert not [*Path("runs/jobs").glob("*.yaml"), *Path("runs").glob("[!j]*")]
    stand_in_for_slurm(tmp_path / "bin", monkeypatch, "echo Submitted batch job 13\n")
    assert len(tapetum.submit(["colours.yaml", "other.yaml"], "runs", partition="big")) == 2


def test_what_slurm_is_asked_for(recipe, tmp_path, monkeypatch, capsys):
    stand_in_for_slurm(tmp_path / "bin", monkeypatch, 'cp "$1" script\necho Submitted batch job 12\n')
    Path("other.yaml").write_text("extends: colours.yaml\n")
    asked = {"partition": "big", "nodes": 2, "gpus": 4, "cpus": 6, "hours": 1.5, "minutes": 10}
    jobs = tapetum.submit(["colours.yaml", "other.yaml"], "runs", ["seed=3"], **asked)
    assert [job.job_id for job in jobs] == ["12_0", "12_1"]
    script = Path("script").read_text()
    for line in (
        *("array=0-1%2", "partition=big", "nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=6"),
        *("time=100", "signal=USR2@120", "open-mode=append"),
    ):
        assert f"#SBATCH --{line}\n" in script
    assert "--kill-on-bad-exit" in script
    assert "--cpus-per-task=6" in script.split("srun", 1)[1]
    with pytest.raises(ValueError, match=r"runs/jobs/colours.yaml says that colours was submitted to runs before"):
        tapetum.submit(["colours.yaml"], "runs", **asked)  # it waits: its run folder is still empty
    with pytest.raises(ValueError, match="runs/colours has been submitted and has not begun"):
        tapetum.doctor("runs/colours")
    for name in ("colours", "other"):
        written = tapetum.load_recipe(f"runs/jobs/{name}.yaml")
        assert (written.runtime.devices, written.seed) == (8, 3)
    assert "Job 12_1 trains runs/other" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipes", "settings", "message"),
    [
        (["colours.yaml"], {"cluster": "grid"}, "cluster is grid: use slurm, or local"),
        (["colours.yaml"], {"cluster": "slurm"}, "no srun on this machine"),
        (["seed=1"], {}, "no recipe is given"),
        (["colours.yaml", "b/colours.yml"], {}, "two recipes are called colours"),
        (["colours.yaml", "nothing.yaml"], {}, "nothing.yaml"),
        (["colours.yaml", "data.batch=1"], {}, "batch_size"),
        (["colours.yaml"], {"gpus": 2, "processes": 4}, "gpus is 2 and processes 4"),
        (["colours.yaml"], {"nodes": 2}, "nodes is 2: set gpus or processes"),
        (["colours.yaml"], {"minutes": 0}, "the time limit is 0 minutes: give 3 or more"),
        (["colours.yaml"], {"hours": 0.01}, "the time limit is 1 minutes: give 3 or more"),
        (["colours.yaml"], {"output": "."}, "colours is not empty"),
        (["other.yaml", "colours.yaml"], {"output": "."}, "colours is not empty"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_submitted(recipe, monkeypatch, recipes, settings, message):
    Path("colours").mkdir()
    Path("colours/something").touch()
    Path("other.yaml").write_text("extends: colours.yaml\n")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=message):
        tapetum.submit(recipes, **{"output": "runs", "cluster": "local", **settings})
    assert not [place for place in ("runs", "other", "jobs/other.yaml") if Path(place).exists()]
