"""kill -9 at any moment, `tapetum resume`, and nothing differs from a run that was left alone."""

from __future__ import annotations

import os

import pytest

from tapetum.ops.randomness import make_keys, uniform

TRAIN = ("train", "tiny.yaml", "--output")


@pytest.mark.slow  # tests/benchmarks/test_faults.py kills some fifty commands in less time
def test_killed_at_every_kind_of_moment(runs):
    """In evaluation before the first checkpoint, while a checkpoint is written, between two steps, in the last test."""
    runs.write()
    reference = runs.start("never", *TRAIN, "whole")
    runs.call("kill@evaluation:1", *TRAIN, "run")
    assert runs.checkpoints("run") == []
    runs.call("kill@checkpoint:12", "resume", "run")
    assert runs.checkpoints("run") == [6]
    assert list((runs.folder / "run/checkpoints").glob("*.partial"))
    runs.call("kill@step:17", "resume", "run")
    assert (runs.checkpoints("run"), runs.steps_logged("run")) == ([6, 12], 16)
    cut_last_row(runs.folder / "run/metrics.csv")
    # Another thread count is asked for; that of the run is taken.
    runs.call("never", "resume", "run", OMP_NUM_THREADS="2")
    runs.end(reference)
    runs.assert_same("whole", "run")


def cut_last_row(table):
    """As a kill leaves it in the middle of a write."""
    os.truncate(table, table.stat().st_size - 20)


VARIANTS = {
    "one thread": (True, []),
    "two threads": (True, ["runtime.threads=2"]),
    "files and two workers": (False, ["data.workers=2", "runtime.threads=2"]),
    "compiled": (True, ["runtime.compile=true", "runtime.threads=2"]),
}
KILLS = (
    ("kill@step:3", []),
    ("kill@checkpoint:6", []),  # the first one
    ("kill@evaluation:2", [6]),  # step 10
    ("kill@step:18", [12, 18]),
    ("kill@checkpoint:24", [12, 18]),
    ("kill@evaluation:2", [12, 18]),  # step 24, whose checkpoint is not written yet
    ("kill@evaluation:3", [18, 24]),  # the last one, of held-out labels
    ("kill@evaluation:2", [18, 24]),  # that of test images
)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_nine_times(runs, variant):
    one_size, overrides = VARIANTS[variant]
    runs.write(one_size)
    reference = runs.start("never", *TRAIN, "whole", *overrides)
    runs.call("kill@recipe", *TRAIN, "run", *overrides)
    start = (*TRAIN, "run", *overrides)
    for moment, checkpoints in KILLS:
        runs.call(moment, *start)
        assert runs.checkpoints("run") == checkpoints, moment
        start = ("resume", "run")
    runs.call("never", "resume", "run")
    runs.end(reference)
    runs.assert_same("whole", "run")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["one thread", "files and two workers"])
def test_twenty_random_kills(runs, variant):
    one_size, overrides = VARIANTS[variant]
    overrides = [*overrides, "trainer.steps=500", "trainer.evaluate_every=25", "trainer.checkpoint_every=7"]
    runs.write(one_size)
    reference = runs.start("never", *TRAIN, "whole", *overrides)
    start = (*TRAIN, "run", *overrides)
    for number, moment in enumerate(uniform(make_keys("kills", variant), 20)):
        # One of five dies while it starts, before its first step.
        assert runs.kill_after(1.5 * float(moment), *start, from_start=number % 5 == 4)
        start = ("resume", "run")
    runs.call("never", "resume", "run")
    runs.end(reference)
    runs.assert_same("whole", "run")
