"""benchmarks/fuzz.py: hostile inputs end well, and its judge sees each way to end badly."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("fuzz", "side_by_side", *(path.stem for path in BENCHMARKS.glob("fuzz_*.py")))

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("one_thread"),
]
for needed in ("h5py", "starlette", "uvicorn"):
    pytest.importorskip(needed)


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("fuzz")
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in MODULES:
            sys.modules.pop(name, None)


def failures(fuzz: ModuleType, outcomes: list) -> list[str]:
    return [f"{one.number}: {one.fate}: {one.said}" for one in outcomes if one.fate in fuzz.FAILURES]


KINDS = (
    *("images", "labels", "label_formats", "recipes", "checkpoints", "safetensors", "torch", "paddle", "keras"),
    *("tensorflow", "matlab", "idx", "cifar", "numpy", "answer_logs", "requests"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs_end_well(fuzz, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path))
    valid = len(fuzz.seeds_of(kind))
    outcomes = fuzz.fuzz(kind, valid + 12, 1, tmp_path)
    assert failures(fuzz, outcomes) == []
    assert [one.number for one in outcomes] == list(range(valid + 12))
    assert "accepted" in {one.fate for one in outcomes[:valid]}, "even valid files are refused"


COSTLY = (
    *("PNG with a comment of 200 MB", "PNG of 16 bits, 11,000 x 11,000, cut", "JPEG drawn 20,000 times"),
    *("npz that unpacks to 1 GB", "IDX packed, longer than it says", "MATLAB that unpacks to 3 GB"),
    *("torch: dictionaries in dictionaries", "recipe: depth", "labels: 10 million columns"),
)
"""They take a second or more to make or to refuse."""


@pytest.mark.parametrize("costly", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_sentence_for_harm(fuzz, costly, tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path))
    assert fuzz.CASES.keys() >= set(COSTLY)
    cases = {name: make for name, make in fuzz.CASES.items() if (name in COSTLY) == costly}
    monkeypatch.setattr(fuzz, "CASES", cases)
    outcomes = fuzz.fuzz(fuzz.SPECIAL, 0, 0, tmp_path)
    assert len(outcomes) == len(cases) >= (len(COSTLY) if costly else 50)
    assert failures(fuzz, outcomes) == []
    fates = {name: one.fate for name, one in zip(cases, outcomes, strict=True)}
    accepted = [name for name, fate in fates.items() if fate == "accepted"]
    assert all(
        "among images" in name or "above" in name or name.startswith(("answer log", "labels: ")) for name in accepted
    ), "\n".join(accepted)


def test_an_input_is_decided_by_its_seed(fuzz):
    made = [fuzz.make_input("labels", seed, 40) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert all(fuzz.make_input("torch", 1, n) != fuzz.make_input("torch", 1, n + 1) for n in range(9, 20))


def hang(path, pool):
    time.sleep(9)


def compute(path, pool):
    while True:
        pass


def hog(path, pool):
    if path.parent.name == "input0":  # not while whatever is loaded late is loaded
        bytearray(3 * 2**30)


def run_program(path, pool):
    os.system("true")


def run_code(path, pool):
    exec(path.read_text() and "1 + 1")


ELSEWHERE = Path(tempfile.gettempdir(), "tapetum-fuzz-elsewhere")
"""Known before a child sets another folder for what is temporary."""


def write_elsewhere(path, pool):
    ELSEWHERE.write_text("")


def traceback(path, pool):
    raise KeyError("a")


def nobody_wrote_it_for_people(path, pool):
    b"\xff".decode()


def nameless(path, pool):
    raise ValueError("it is wrong.")


def crash(path, pool):
    os.abort()


BAD = {
    "hang": (hang, compute),
    "execution": (run_program, run_code, write_elsewhere),
    "traceback": (traceback, nobody_wrote_it_for_people),
    "nameless": (nameless,),
    "signal": (crash,),
}


@pytest.mark.parametrize("fate,reader", [(fate, reader) for fate, readers in BAD.items() for reader in readers])
def test_bad_ends_are_seen_and_the_next_input_is_read(fuzz, fate, reader, tmp_path, monkeypatch):
    child = sys.modules["fuzz_child"]
    monkeypatch.setattr(child, "SECONDS", 0.2)
    monkeypatch.setattr(child, "PATIENCE", 2.0)
    good = fuzz.READERS["labels"]
    readers = {"labels": lambda path, pool: (reader if path.parent.name == "input1" else good)(path, pool)}
    monkeypatch.setattr(fuzz, "READERS", readers)
    outcomes = fuzz.fuzz("labels", 3, 0, tmp_path, tmp_path / "kept")
    assert [one.fate for one in outcomes] == ["accepted", fate, "accepted"]
    assert (tmp_path / "kept" / "labels-1").is_dir()


def test_want_of_memory_is_told(fuzz, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "READERS", {"labels": hog})
    (outcome,) = fuzz.fuzz("labels", 1, 0, tmp_path)
    assert outcome.starved
    assert fuzz.summary([outcome])["starved"] == 1


@pytest.mark.slow
def test_inputs_guided_by_coverage_reach_more_than_valid_ones(fuzz):
    pytest.importorskip("atheris")
    found = fuzz.guide("recipes", 20)
    assert found["inputs"] > 20
    assert found["reached"] > found["reached_by_valid"] > 50
    assert found["failures"] == {}
