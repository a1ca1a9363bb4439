"""kill -9 at any moment, resume, and nothing differs from a run that was left alone."""

import pytest

from tapetum.ops.randomness import make_keys, uniform

FIRST = "checkpoints/step-00000006.safetensors"


def test_killed_at_every_kind_of_moment(drive, tmp_path):
    """Two threads: in evaluation before the first checkpoint, while a checkpoint is written, between two steps."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    arguments = ("--steps", "30", "--threads", "2")
    reference = drive.start(whole, *arguments)
    drive.kill_after(run, "in-evaluation", 0.0, *arguments, "--slow", "evaluation")
    assert drive.checkpoints(run) == []
    drive.kill_after(run, "in-checkpoint", 0.0, *arguments, "--slow", "checkpoint")
    assert drive.checkpoints(run) == []
    assert list((run / "checkpoints").glob("*.partial"))
    assert drive.kill_after(run, FIRST, 0.3, *arguments, "--slow-step", "0.05")
    # Another thread count is asked for; that of the checkpoint is taken.
    drive.finish(run, "--steps", "30", "--threads", "1")
    assert reference.wait(timeout=300) == 0
    drive.assert_same(whole, run)
    assert not list((run / "checkpoints").glob("*.partial"))


def test_killed_with_one_thread(drive, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    arguments = ("--steps", "30", "--threads", "1")
    reference = drive.start(whole, *arguments)
    assert drive.kill_after(run, FIRST, 0.5, *arguments, "--slow-step", "0.05")
    drive.finish(run, *arguments)
    assert reference.wait(timeout=300) == 0
    drive.assert_same(whole, run)


def test_two_ranks(drive, tmp_path):
    """Both ranks die inside an epoch; each gets its own queue back, and DDP sums in the same order."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    arguments = ("--steps", "14", "--devices", "2")
    drive.finish(whole, *arguments)
    assert drive.start(run, *arguments, "--stop-after", "9").wait(timeout=300) == 9
    assert drive.checkpoints(run) == ["step-00000006.safetensors"]
    drive.finish(run, *arguments)
    drive.assert_same(whole, run)


@pytest.mark.slow
def test_two_ranks_stop_at_the_same_step(drive, tmp_path):
    """Ctrl-C reaches both ranks of a terminal, each in a step of its own."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    arguments = ("--steps", "60", "--devices", "2")
    drive.finish(whole, *arguments)
    drive.interrupt_after(run, FIRST, 0.2, *arguments, "--slow-step", "0.05")
    assert drive.checkpoints(run)[-1] < "step-00000060.safetensors"
    drive.finish(run, *arguments)
    drive.assert_same(whole, run)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_twenty_random_kills(drive, tmp_path, threads):
    whole, run = tmp_path / "whole", tmp_path / "run"
    arguments = ("--steps", "300", "--threads", str(threads))
    drive.finish(whole, *arguments)
    kills = 0
    for moment in uniform(make_keys("kills", threads), 20):
        kills += drive.kill_after(run, "started", 0.2 + float(moment), *arguments, "--slow-step", "0.02")
    assert kills == 20
    drive.finish(run, *arguments)
    drive.assert_same(whole, run)
