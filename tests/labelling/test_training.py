"""Runs are processes of their own, and all that is known of them is in files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tapetum.labelling.processes import Process, ask_to_stop, complaint, is_alive, last_words, start
from tapetum.labelling.progress import read_progress
from tapetum.labelling.training import Job
from tapetum.ops.intervals import wilson

WAITING = 60.0  # seconds, on a busy machine


def until(condition, seconds=WAITING):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


RECIPE = "method: {kind: paws}\ndata: {held_out_share: 0.2}\ntrainer: {steps: 40}\n"
METRICS = """\
step,train/loss,eval/soft_nn_top1,train_seconds,images_per_second
1,3.0,,2.0,10
2,2.5,60.0,4.0,10
3,nan,,6.0,10
4,2.0,80.0,8.0,10
5,1.0
"""


def test_progress_is_read_from_the_files_of_a_run(tmp_path):
    assert read_progress(tmp_path / "new", {"a": 10, "b": 10})["step"] == 0
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "metrics.csv").write_text(METRICS)
    found = read_progress(tmp_path, {"a": 10, "b": 15, "c": 2})
    assert (found["step"], found["steps"], found["seconds_left"]) == (4, 40, 72.0)
    assert found["loss"] == [(1, 3.0), (2, 2.5), (4, 2.0)]
    assert found["held_out"] == 5  # a fifth of a and b; c has too few
    for (step, top1, *ends), right in zip(found["accuracy"], (3, 4), strict=True):
        assert (step, top1) == (right * 2 - 4, 20.0 * right)
        assert ends == pytest.approx(wilson(right, 5))
    (tmp_path / "metrics.csv").write_text("")  # as it begins
    assert read_progress(tmp_path, {"a": 10}) | {"loss": [], "accuracy": [], "step": 0} == read_progress(
        tmp_path, {"a": 10}
    )


def test_long_curves_are_thinned(tmp_path):
    rows = "".join(f"{i},{i % 2},{i}\n" for i in range(1, 10_001))
    (tmp_path / "metrics.csv").write_text(f"step,train/loss,train_seconds\n{rows}")
    loss = read_progress(tmp_path, {})["loss"]
    assert len(loss) <= 150
    assert loss[-1][0] == 10_000
    assert loss[5][1] == pytest.approx(0.5, abs=0.01)


STARTER = """
import time
from pathlib import Path
from tapetum.labelling.processes import start
print(*start(["predict", "a", "b", "--output", "c.csv"], Path("log")), flush=True)
time.sleep(60)
"""


def test_a_process_is_known_to_whoever_asks_and_is_not_taken_for_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = start(["--version"], Path("log"))
    assert is_alive(process)
    assert not is_alive(process._replace(birth="1"))  # its number, given to another
    assert not is_alive(Process(0, ""))
    until(lambda: not is_alive(process))
    assert last_words(Path("log"))[-1].startswith("tapetum ")
    assert complaint(Path("log")) is None


def test_a_process_outlives_the_one_that_started_it(tmp_path):
    command = [sys.executable, "-c", STARTER]
    starter = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    number, birth = starter.stdout.readline().split()
    starter.send_signal(signal.SIGKILL)
    starter.communicate()
    process = Process(int(number), birth)
    assert is_alive(process)
    assert os.getsid(process.number) == process.number  # Ctrl-C in the terminal does not reach it
    ask_to_stop(process)
    until(lambda: not is_alive(process))


def test_what_a_command_complained_of_is_found_but_not_what_an_earlier_one_did(tmp_path):
    log = tmp_path / "log"
    log.write_text("$ tapetum fit\ntapetum: error: no images.\n")
    assert complaint(log) == "no images."
    log.write_text(log.read_text() + "$ tapetum resume\nall is well\n")
    assert complaint(log) is None
    log.write_text("$ tapetum fit\nTraceback (most recent call last):\n  x\nKeyError: 'y'\n")
    assert complaint(log) == "KeyError: 'y'"
    assert last_words(tmp_path / "nothing") == []


def job_of(session, phase):
    return Job(1, str(session.training.folder / "001"), phase, Process(0, ""), 0.0, {})


def write(session, job):
    session.training.folder.mkdir(exist_ok=True)
    session.training._write(job)


def finish(session):
    run = session.training.folder / "001"
    run.mkdir(parents=True, exist_ok=True)
    (run / "summary.json").write_text(json.dumps({"versions": {}, "num_labels": 3}))


@pytest.fixture
def started(monkeypatch):
    """Commands that were started, none of which runs."""
    noted = []

    def note(words, log):
        noted.append(words)
        return Process(0, "")

    monkeypatch.setattr("tapetum.labelling.training.start", note)
    return noted


def test_one_thing_follows_another_until_all_is_done(session, started):
    training = session.training
    session.answers.give({0: "a", 1: "b"}, "grid")
    training.start("steps", 3.0)
    assert started[-1][:1] == ["fit"]
    assert started[-1][-4:] == ["--steps", "3", "--output", str(training.folder / "001")]
    with pytest.raises(ValueError, match="run 001 is not finished"):
        training.start("steps", 3)
    finish(session)
    training.tick()
    (training.folder / "001.predictions.csv").write_text("path,label,confidence\n")
    for _ in range(4):
        training.tick()
    assert [words[0] for words in started] == ["fit", "predict", "suggest", "review"]
    assert started[1][1:3] == [str(training.folder / "001"), session.pool.images]
    assert training.state()["phase"] == "done"
    training.tick()
    assert len(started) == 4


def test_a_run_trains_on_a_copy_of_the_labels_so_that_it_can_be_resumed(session, started):
    session.answers.give({0: "a", 1: "b"}, "grid")
    session.training.start("minutes", 0.5)
    session.answers.give({2: "c"}, "key")
    given = Path(started[0][started[0].index("--labels") + 1])
    assert given.read_text() == "path,label\n00.png,a\n01.png,b\n"
    assert session.training.jobs()[0].counts == {"a": 1, "b": 1}


def test_a_stopped_run_is_resumed_and_one_that_never_began_begins(session, started):
    training = session.training
    session.answers.give({0: "a", 1: "b"}, "grid")
    training.start("steps", 3)
    training.stop()
    training.tick()
    assert training.state()["phase"] == "stopped"
    training.resume()
    assert started[-1] == started[0]
    run = training.folder / "001"
    run.mkdir()
    (run / "recipe.yaml").write_text(RECIPE)
    training.tick()
    training.resume()
    assert started[-1] == ["resume", str(run)]
    with pytest.raises(ValueError, match="no run was stopped"):
        training.resume()
    finish(session)
    training.stop()
    training.tick()
    assert training.state()["phase"] == "stopped"  # nothing more is begun after a stop
    training.resume()
    assert started[-1][0] == "predict"


def test_what_to_ask_first_is_chosen_before_there_are_labels(session, started):
    training = session.training
    training.choose(0.5)
    table, labels = training.folder / "001.suggestions.csv", training.folder / "001.labels.csv"
    words = ["suggest", session.pool.images, "--labels", str(labels), "--count=100", "--minutes", "0.5"]
    assert started == [[*words, "--output", str(table)]]
    assert labels.read_text() == "path,label\n"
    with pytest.raises(ValueError, match="run 001 is not finished"):
        training.start("steps", 3)
    training.stop()
    training.tick()
    assert training.state()["phase"] == "stopped"
    training.resume()
    assert started[1] == started[0]
    run = training.folder / "001.suggestions_run"
    run.mkdir()
    (run / "summary.json").write_text(json.dumps({"versions": {}}))
    training.tick()
    assert training.state()["phase"] == "stopped", "the table is not there yet"
    training.resume()
    table.write_text("path,reason\n03.png,coverage\n")
    session.tick()
    session.tick()
    assert training.state()["phase"] == "done"
    assert session.queue.next("tab", 1) == [3]
    assert training.finished() == [], "a run without labels is none of those that are compared"
    session.answers.give({0: "a", 1: "b"}, "grid")
    training.start("steps", 3)
    assert training.state()["number"] == 2


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), 1e12])
def test_minutes_to_choose_are_positive(session, minutes):
    with pytest.raises(ValueError, match="give a positive number"):
        session.training.choose(minutes)


def test_a_failure_is_told_by_its_sentence(session):
    write(session, job_of(session, "fit"))
    (session.training.folder / "001.log").write_text("$ tapetum fit\ntapetum: error: there are no images.\n")
    session.tick()
    assert session.state()["training"]["phase"] == "failed"
    assert session.state()["training"]["said"] == "there are no images."


def test_a_run_from_elsewhere_is_adopted_once(session, started, tmp_path):
    write(session, job_of(session, "done"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").write_text(json.dumps({"versions": {}}))
    session.training.adopt(tmp_path / "other")
    session.training.adopt(tmp_path / "other")
    assert [words[:2] for words in started] == [["predict", str(tmp_path / "other")]]
    assert [job.number for job in session.training.jobs()] == [1, 2]


def test_two_pages_start_the_next_thing_once(session, open_session, started):
    finish(session)
    write(session, job_of(session, "fit"))
    other = open_session()
    assert [words[0] for words in started] == ["predict"]
    session.tick()
    other.tick()
    assert [words[0] for words in started] == ["predict"]


@pytest.mark.parametrize("start", ["paws_start", "unlabelled_start"])
@pytest.mark.parametrize(("steps_done", "left"), [(4, None), (6, None), (8, 20.0)])
def test_steps_that_see_labelled_images_alone_do_not_set_the_pace(tmp_path, start, steps_done, left):
    """Of 10 steps, 6 take a second and the others 10."""
    (tmp_path / "recipe.yaml").write_text(f"method: {{{start}: 0.6}}\ntrainer: {{steps: 10}}\n")
    rows = "".join(f"{step},2.0,{step + 9 * max(0, step - 6)}\n" for step in range(1, steps_done + 1))
    (tmp_path / "metrics.csv").write_text(f"step,train/loss,train_seconds\n{rows}")
    assert read_progress(tmp_path, {})["seconds_left"] == left


def test_images_and_labels_that_have_moved_are_told_to_the_commands(session, started):
    write(session, job_of(session, "fit"))
    finish(session)
    folder = session.training.folder
    (folder / "001.labels.csv").write_text("path,label\n")
    (folder / "001" / "recipe.yaml").write_text("data: {images: /nowhere/photos, labels: /nowhere/labels.csv}\n")
    session.tick()
    (folder / "001.predictions.csv").write_text("path,label,confidence\n")
    session.tick()
    images, labels = ["--images", session.pool.images], ["--labels", str(folder / "001.labels.csv")]
    assert started[0][-4:] == [*images, *labels]
    assert started[1][-2:] == images
