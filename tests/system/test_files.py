"""Several processes that write the same: each file is whole, and of one of them; from some, the second is kept out."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tapetum.system import files
from tapetum.system.files import only_one, refuse_taken, sole_writing, whole_file, whole_folder, write_text

WAIT = """
import sys
from pathlib import Path
from tapetum.system.files import only_one, sole_writing, whole_file, whole_folder
path = Path(sys.argv[1])
with {context} as partial:
    {begin}
    print("begun", flush=True)
    sys.stdin.readline()
    {end}
"""
FILE = {
    "begin": "file = partial.open('w'); file.write('half'); file.flush()",
    "end": "file.write('whole'); file.close()",
}
FOLDER = {"begin": "(partial / 'a').write_text('theirs')", "end": "(partial / 'b').write_text('theirs')"}
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process that has begun to write, and goes on after a line of input."""
    started = []

    def begin(context: str, begin: str = "pass", end: str = "pass") -> subprocess.Popen[str]:
        code = WAIT.format(context=context, begin=begin, end=end)
        command = [sys.executable, "-c", code, str(tmp_path / "out")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "no locks available")


@pytest.mark.parametrize("has_locks", [True, False])
def test_two_processes_that_write_one_file_do_not_mix(start, tmp_path, monkeypatch, has_locks):
    path = tmp_path / "out"
    other = start("whole_file(path)", **FILE)
    if not has_locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    write_text(path, "mine")
    assert path.read_text() == "mine"
    other.communicate("\n")
    assert other.returncode == 0
    assert path.read_text() == "halfwhole"
    assert os.listdir(tmp_path) == ["out"]


def test_two_processes_that_write_one_folder_do_not_mix(start, tmp_path):
    path = tmp_path / "out"
    other = start("whole_folder(path)", **FOLDER)
    with whole_folder(path) as partial:
        (partial / "mine").write_text("")
    assert os.listdir(path) == ["mine"]
    other.communicate("\n")
    assert other.returncode == 1, "the second is refused"
    assert (os.listdir(path), os.listdir(tmp_path)) == (["mine"], ["out"])


def test_what_a_killed_process_leaves_is_overwritten(start, tmp_path):
    other = start("whole_file(path)", **FILE)
    other.kill()
    other.communicate()
    assert os.listdir(tmp_path) == ["out.partial"]
    write_text(tmp_path / "out", "mine")
    assert os.listdir(tmp_path) == ["out"]


def test_a_second_writer_is_told_who_writes_until_that_one_is_gone(start, tmp_path):
    path = tmp_path / "out"
    other = start("sole_writing(path)")
    message = rf"out is being written by process {other.pid} on \S+ since 20\S+ \S+: wait until .* or stop it first"
    with pytest.raises(ValueError, match=message), sole_writing(path):
        pass
    with sole_writing(tmp_path / "another"):
        pass
    other.kill()
    other.communicate()
    assert os.listdir(tmp_path) == ["out.lock"]
    with sole_writing(path):
        assert (tmp_path / "out.lock").read_text().startswith(f"process {os.getpid()} on ")
    assert os.listdir(tmp_path) == []


def test_a_lock_of_another_program_is_left_alone(tmp_path):
    """`poetry.lock` beside `--output poetry`."""
    lock = tmp_path / "poetry.lock"
    lock.write_text("# everything that was pinned")
    told = r"poetry\.lock is no lock of Tapetum, .*: give another --output"
    with pytest.raises(ValueError, match=told), sole_writing(tmp_path / "poetry"):
        pass
    (tmp_path / "poetry").write_text("taken")
    with pytest.raises(ValueError, match="exists already"):
        refuse_taken(tmp_path / "poetry")
    assert lock.read_text() == "# everything that was pinned"


def test_a_second_thread_is_kept_out_and_the_first_keeps_its_lock(start, tmp_path):
    path = tmp_path / "out"
    with sole_writing(path):
        with pytest.raises(ValueError, match="by another thread of this process"), sole_writing(path):
            pass
        other = subprocess.run(
            [sys.executable, "-c", WAIT.format(context="sole_writing(path)", begin="pass", end="pass"), str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert f"is being written by process {os.getpid()}" in other.stderr
    with sole_writing(path):
        pass


def test_a_disk_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with sole_writing(tmp_path / "out"), only_one(tmp_path / "lock") as has_locks:
        assert not has_locks
        write_text(tmp_path / "out", "text")
    monkeypatch.setattr(files, "fcntl", None)  # as on Windows
    with sole_writing(tmp_path / "out"), only_one(tmp_path / "lock"), whole_file(tmp_path / "out") as partial:
        partial.write_text("more")
    assert (tmp_path / "out").read_text() == "more"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/out cannot be written"), sole_writing(tmp_path / "file" / "out"):
        pass
