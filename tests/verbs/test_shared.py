"""predict, embed and evaluate by several processes: the same results to the bit, said once, nothing lost by a death."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import ranks

import tapetum
from tapetum.cli import errors
from tapetum.evaluation import embedding
from tapetum.runs.predictor import Predictor
from tapetum.system.interruption import Interrupted

PREDICT = ("predict", "run", "photos", "--output")


@pytest.fixture
def photos(world: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """The images, which are embedded seven at a time."""
    monkeypatch.chdir(world)
    monkeypatch.setenv("TAPETUM_CACHE", str(world / "cache"))
    in_batches = embedding.in_batches
    monkeypatch.setattr("tapetum.evaluation.embedding.in_batches", lambda indices, _: in_batches(indices, 7))
    for verb in ("predict", "embed"):
        monkeypatch.setattr(f"tapetum.verbs.{verb}.BATCH_SIZE", 7)
    monkeypatch.setattr(errors, "_COURTESY_SECONDS", 0.0)
    for path in world.glob("p.csv*"):
        path.unlink()
    return Path("photos")


@pytest.fixture
def alone(photos: Path, capsys: pytest.CaptureFixture[str]) -> tuple[bytes, str]:
    """The table of one process, and what it says."""
    tapetum.predict("run", photos, "alone.csv")
    return Path("alone.csv").read_bytes(), capsys.readouterr().out


def test_two_processes_write_the_table_of_one(alone):
    table, said = alone
    (code, out, error), (other_code, other_out, other_error) = ranks.call(2, *PREDICT, "p.csv")
    assert (code, other_code) == (0, 0), error + other_error
    assert Path("p.csv").read_bytes() == table
    assert table.count(b"\n") == 31
    assert (out.replace("p.csv", "alone.csv"), other_out) == (said, "")
    assert (error, other_error) == ("tapetum: predicted 30 of 30 images\n", "")
    assert not list(Path().glob("*.partial*"))


def die_at(part: int, victim: int):
    """Let a rank die when it is about to make so many parts of the table."""

    def prepare(rank: int) -> None:
        rows = Predictor.rows

        def dying(*arguments):
            for number, made in enumerate(rows(*arguments)):
                if (rank, number) == (victim, part):
                    os.kill(os.getpid(), signal.SIGKILL)
                yield made

        Predictor.rows = dying

    return prepare


@pytest.mark.parametrize(("victim", "then"), [(1, 1), *(pytest.param(v, 3, marks=pytest.mark.slow) for v in range(2))])
def test_a_killed_process_loses_nothing_and_repeats_nothing(alone, victim, then):
    found = ranks.call(2, *PREDICT, "p.csv", before=die_at(1, victim))
    code, _, error = found[1 - victim]
    assert (found[victim][0], code) == (-signal.SIGKILL, 1)
    assert error.splitlines()[-1].startswith("tapetum: error: another process of this run has ended")
    assert "Traceback" not in error
    assert not Path("p.csv").exists()
    found = ranks.call(then, *PREDICT, "p.csv")  # goes on with another number of processes
    assert {code for code, _, _ in found} == {0}
    assert "14 of 30 images are done already" in found[0][2]
    assert Path("p.csv").read_bytes() == alone[0]


@pytest.mark.slow
def test_what_one_process_began_two_finish(alone, monkeypatch):
    def interrupted(*arguments):
        yield from list(rows(*arguments))[:1]
        raise KeyboardInterrupt

    rows = Predictor.rows
    monkeypatch.setattr(Predictor, "rows", interrupted)
    with pytest.raises(Interrupted):
        tapetum.predict("run", "photos", "p.csv")
    monkeypatch.setattr(Predictor, "rows", rows)
    found = ranks.call(2, *PREDICT, "p.csv")
    assert "7 of 30 images are done already" in found[0][2]
    assert Path("p.csv").read_bytes() == alone[0]


def test_two_processes_write_the_embeddings_of_one(photos):
    tapetum.embed("run", photos, "alone.npz")
    (code, out, error), (other_code, other_out, other_error) = ranks.call(2, "embed", "run", "photos", "--output=e.npz")
    assert (code, other_code) == (0, 0), error + other_error
    with np.load("alone.npz") as expected, np.load("e.npz") as found:
        assert found["paths"].tolist() == expected["paths"].tolist()
        assert found["embeddings"].tobytes() == expected["embeddings"].tobytes()
    assert error.count("row filled with NaN: image photos/09.png") == 1
    assert out.count("Embedded 30 images") == 1
    assert other_out + other_error == ""


@pytest.mark.parametrize("protocol", ["soft_nn", pytest.param("linear", marks=pytest.mark.slow)])
def test_two_processes_measure_the_accuracy_of_one(photos, protocol, capsys):
    tapetum.evaluate("run", "colours.npz", protocol=protocol)
    said, summary = capsys.readouterr().out, json.loads(Path("run/summary.json").read_text())
    Path("run/summary.json").write_text("{}")
    found = ranks.call(2, "evaluate", "run", "--test=colours.npz", f"--protocol={protocol}")
    assert [(code, out) for code, out, _ in found] == [(0, said), (0, "")]
    written = json.loads(Path("run/summary.json").read_text())
    assert written["test"] == summary["test"]


@pytest.mark.slow
def test_an_error_of_the_first_process_ends_all(photos):
    Path("folder.csv").mkdir()
    (code, _, error), (other_code, _, other_error) = ranks.call(2, *PREDICT, "folder.csv")
    assert (code, other_code) == (2, 1)
    assert error == "tapetum: error: folder.csv is a folder: give a file in it as --output.\n"
    assert other_error.startswith("tapetum: error: another process of this run has ended")
