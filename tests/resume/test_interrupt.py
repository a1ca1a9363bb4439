"""Ctrl-C in a terminal and kill -9 with data workers: they are gone afterwards, and the run goes on bit for bit."""

from __future__ import annotations

import os
import time

import pytest

TRAIN = ("train", "tiny.yaml", "--output")
WORKERS = ("data.workers=2", "runtime.threads=2")


def wait_until_gone(group: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, "processes of the run are still there"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "seconds", "checkpoints"),
    # Evaluation ends, and the step after it is the last. torch's workers look every five seconds for their parent.
    [("int@step:8", 10.0, [6, 9]), ("int@evaluation:2", 10.0, [6, 11]), ("kill@step:8", 60.0, [6])],
)
def test_workers_do_not_outlive_the_run(runs, moment, seconds, checkpoints):
    runs.write(one_size=False)
    reference = runs.start("never", *TRAIN, "whole", "trainer.keep_every=6", *WORKERS)
    process = runs.start(moment, *TRAIN, "run", "trainer.keep_every=6", *WORKERS)
    error = runs.end(process, moment)
    wait_until_gone(process.pid, seconds)
    if moment.startswith("int"):
        assert error.endswith(f"tapetum: Saved step {checkpoints[-1]}. Continue with: tapetum resume run\n")
    assert runs.checkpoints("run") == checkpoints
    runs.call("never", "resume", "run")
    runs.end(reference)
    runs.assert_same("whole", "run")
