"""Checksums of finished tables: what changed is told, and other tools read the note."""

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tapetum.system import resumable_file
from tapetum.system.checksums import checksum_of, note_checksum, note_of, refuse_changed
from tapetum.system.resumable_file import ResumableFile


def write(path: Path, content: bytes) -> None:
    with ResumableFile(path, content.decode()) as table:
        table.append(content, Counter(a=1))
        table.finish()


@pytest.mark.parametrize("change", [lambda old: old[:-1], lambda old: old + b"x", lambda old: b"A" + old[1:]])
def test_a_changed_table_is_refused(tmp_path, change):
    path = tmp_path / "table.csv"
    write(path, b"a,b\n1,2\n")
    refuse_changed(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"table.csv has changed since it was written .* delete table.csv.sha256"):
        refuse_changed(path)
    note_of(path).unlink()
    refuse_changed(path)


def test_a_table_that_replaces_another_has_its_own_checksum(tmp_path):
    path = tmp_path / "table.csv"
    write(path, b"first")
    write(path, b"second")
    refuse_changed(path)


@pytest.mark.parametrize("call", ["replace", "note_checksum"])
def test_a_kill_while_a_table_replaces_another_accuses_neither(tmp_path, monkeypatch, call):
    path = tmp_path / "table.csv"
    write(path, b"first")

    def killed(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(resumable_file.os if call == "replace" else resumable_file, call, killed)
    with pytest.raises(SystemExit):
        write(path, b"second")
    refuse_changed(path)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
@pytest.mark.parametrize(
    "name", ["table.csv", "a b.csv", "back\\slash.csv", "line\nbreak.csv", os.fsdecode(b"\xff.csv")]
)
def test_sha256sum_reads_the_note(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"content")
    note_checksum(path, checksum_of(path))
    command = ["sha256sum", "--check", "--strict", note_of(path).name]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    path.write_bytes(b"Content")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 1


def test_what_a_kill_left_undone_is_done(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(resumable_file, "note_checksum", killed)
        with pytest.raises(SystemExit):
            write(path, b"content")
    assert not note_of(path).exists()
    ResumableFile.settle(path)
    refuse_changed(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["table.csv", "table.csv.sha256"]
