"""One process at a time writes a run."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tapetum
from tapetum.runs.run_folder import LOCK, sole_writer

HOLDER = """
import sys
from pathlib import Path
from tapetum.runs.run_folder import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that writes the run until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_a_second_process_is_kept_out_until_the_first_ends(run, end):
    first = holder(run)
    with pytest.raises(ValueError, match=rf"run is being written by process {first.pid} on .* since 2.*: wait until"):
        tapetum.resume(run)
    assert (run / LOCK).is_file()
    if end == "kill":
        first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (run / LOCK).is_file() == (end == "kill")
    tapetum.resume(run)
    assert not (run / LOCK).exists()


def test_a_new_run_does_not_begin_where_another_does(recipe):
    Path("new").mkdir()
    first = holder(Path("new"))
    with pytest.raises(ValueError, match="new is being written by process"):
        tapetum.train(recipe, "new")
    assert os.listdir("new") == [LOCK]
    first.kill()
    first.communicate()
    tapetum.train(recipe, "new")


def test_a_disk_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with sole_writer(tmp_path):
        pass


def test_what_failed_leaves_no_lock(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(RuntimeError), sole_writer(folder):
        raise RuntimeError
    assert list(folder.iterdir()) == []
    with sole_writer(folder):
        assert (folder / LOCK).read_text().startswith(f"process {os.getpid()} on ")
