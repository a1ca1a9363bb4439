"""Faults injected into the real command line: what it leaves behind, and that the harness notices what is wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("faults", "faults_cases", "faults_judge", "faults_kinds", "faults_place", "faults_processes")


@pytest.fixture(scope="module")
def faults() -> Iterator[SimpleNamespace]:
    """The scripts, by what follows `faults_` in their names; `main` is faults.py."""
    if not hasattr(sys, "getwindowsversion") and not Path("/proc/self/fd").is_dir():
        pytest.skip("events are named by /proc")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        modules = {name.partition("_")[2] or "main": importlib.import_module(name) for name in MODULES}
        modules["processes"].warm_up()
        yield SimpleNamespace(**modules)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def place(faults, tmp_path_factory) -> SimpleNamespace:
    return faults.place.Place(tmp_path_factory.mktemp("faults").resolve())


def case(faults, name):
    (found,) = (case for case in faults.cases.all_cases() if case.name == name)
    return found


def test_what_is_wrong_is_noticed(faults, tmp_path):
    judge, ended = faults.judge, faults.processes.Ended
    good = tmp_path / "good.json"
    good.write_text('{"a": 1, "seconds": 2}')
    before = judge.snapshot(tmp_path)
    good.write_text('{"a": 1, "seconds": 3}')
    assert judge.snapshot(tmp_path) == before
    for name in ("cut.json", "table.csv", "table.csv.partial", "metrics.csv"):
        (tmp_path / name).write_text('{"a": ')
    assert judge.parts_under_final_names(tmp_path, [before]) == ["cut.json", "table.csv"]
    good.write_text('{"a": 2}')
    after = judge.snapshot(tmp_path)
    assert judge.difference(after, before, ()).startswith("left behind: cut.json, metrics.csv")
    assert judge.difference(before, after, ()).startswith("missing: ")
    assert judge.difference({**before, "good.json": "other"}, before, ()) == "differs: good.json"
    assert judge.difference({**before, "good.json": "other"}, before, ["good.json"]) == ""
    assert judge.wrong_end(ended([0], "", "", 1.0)) == ""
    assert judge.wrong_end(ended([2], "", "tapetum: error: a.csv is empty: write it.\n", 1.0)) == ""
    assert judge.wrong_end(ended([2], "", "", 1.0)) == "no sentence"
    assert judge.wrong_end(ended([-9], "", "", 1.0)) == "exit code -9"
    assert judge.wrong_end(ended([-9], "", "", 1.0), [-9]) == ""
    assert judge.wrong_end(ended([2], "", "tapetum: error: [Errno 28] no space\n", 1.0)).startswith("no plain sentence")
    assert judge.wrong_end(ended([1], "", "Traceback (most recent call last)\nKeyError: 1", 1.0)).endswith(
        "KeyError: 1"
    )
    assert judge.wrong_end(ended([0, 1], "", "", 1.0, hung=True)) == "hangs"


def test_moments_follow_from_the_seed_and_cover_the_command(faults):
    ended = faults.processes.Ended([0], "", "", 1.0, [f"write {i}" for i in range(100)])
    kill, train = faults.kinds.FAULTS["kill"], case(faults, "train-paws-1")

    def moments(count, seed):
        return faults.kinds.moments(kill, "kill", train, ended, count, seed)

    first = moments(20, 0)
    assert first == moments(20, 0) != moments(20, 1)
    numbers, shares = first[:10], first[10:]
    assert [(number - 1) // 10 for number in numbers] == list(range(10))
    assert [int(10 * share) for share in shares] == list(range(10))
    assert moments(None, 0) == list(range(1, 101))


def failed(faults, place, fault, name, count):
    """Strike a command; returns the injections that ended otherwise than promised, and how many there were."""
    rows = faults.main.campaign(place, fault, [case(faults, name)], count, 0, None)["injections"]
    return [row for row in rows if row["outcome"] not in faults.main.GOOD or row["then"] != "same"], len(rows)


@pytest.mark.parametrize("name", ["labels-label-studio-1", "labels-coco-1"])
def test_a_table_that_is_killed_at_every_event_is_the_same_afterwards(faults, place, name):
    wrong, count = failed(faults, place, "kill", name, None)
    assert wrong == []
    assert count >= 10


def test_a_training_that_is_killed_goes_on_to_the_same_bits(faults, place):
    assert failed(faults, place, "kill", "train-paws-1", 8) == ([], 8)


def test_predictions_that_are_killed_are_the_same_afterwards(faults, place):
    assert failed(faults, place, "kill", "predict-paws-1", 10)[0] == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["no_space", "permission", "sigterm", "sighup", "sigint", "clock_back", "nan_batch"])
def test_other_faults_leave_a_sentence_and_what_can_be_continued(faults, place, fault):
    assert failed(faults, place, fault, "train-paws-1", 6) == ([], 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{verb}-{method}-1" for verb in ("train", "resume") for method in ("swav", "sela")])
def test_trainings_without_labels_are_killed(faults, place, name):
    assert failed(faults, place, "kill", name, 20)[0] == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["predict-paws", "embed-paws", "cluster-swav", "add_class-paws", "review-paws"])
def test_commands_that_use_a_run_are_killed(faults, place, verb):
    assert failed(faults, place, "kill", f"{verb}-1", 12)[0] == []


@pytest.mark.slow
def test_four_processes_are_killed_together_and_one_by_one(faults, place):
    assert failed(faults, place, "kill", "train-swav-4", 4)[0] == []
    assert failed(faults, place, "rank_killed", "train-swav-4", 2) == ([], 2)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["predict", "embed", "evaluate"])
def test_four_processes_that_share_images_are_killed(faults, place, verb):
    assert failed(faults, place, "kill", f"{verb}-paws-4", 4)[0] == []


def test_which_checkpoint_is_the_spare_does_not_count_but_that_there_is_one_does(faults):
    judge = faults.judge
    whole = {"run/checkpoints/step-06.safetensors": "a", "run/checkpoints/step-08.safetensors": "b"}
    stopped = {"run/checkpoints/step-07.safetensors": "c", "run/checkpoints/step-08.safetensors": "b"}
    assert judge.difference(stopped, whole, ()) == ""
    assert "spare 1" in judge.difference({"run/checkpoints/step-08.safetensors": "b"}, whole, ())
    last = whole | {"run/checkpoints/step-08.safetensors": "d"}
    assert judge.difference(last, whole, ()).startswith("differs: run/checkpoints/step-08")
    assert judge.difference(whole | {"run/checkpoints/step-04.safetensors": "e"}, whole, ()).startswith("left behind")
