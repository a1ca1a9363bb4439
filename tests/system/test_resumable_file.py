"""A table that grows: whole or not there, taken up where it was, and never mixed with another."""

import os
from collections import Counter
from pathlib import Path

import pytest

from tapetum.system.resumable_file import ResumableFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tables" / "table.csv"


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_it_gets_its_name_when_it_is_whole(path):
    with ResumableFile(path, "key", b"head\n") as table:
        table.append(b"1\n2\n", Counter(a=2))
        assert names(path) == ["table.csv.lock", "table.csv.partial", "table.csv.partial.json"]
        table.finish()
    assert names(path) == ["table.csv", "table.csv.sha256"]
    assert path.read_bytes() == b"head\n1\n2\n"


@pytest.mark.parametrize("header", [b"head\n", b""])
def test_it_goes_on_after_the_last_whole_part(path, header):
    with ResumableFile(path, "key", header) as table:
        table.append(b"1\n2\n", Counter(a=1, b=1))
        table._file.write(b"3 is cut o")
    with ResumableFile(path, "key", header) as table:
        assert (table.rows, table.counts) == (2, Counter(a=1, b=1))
        table.append(b"3\n", Counter(a=1))
        assert table.counts == Counter(a=2, b=1)
        table.finish()
    assert path.read_bytes() == header + b"1\n2\n3\n"


def test_what_is_in_the_way_is_not_touched(path):
    with ResumableFile(path, "key") as table:
        table.append(b"1\n", Counter(a=1))
    with pytest.raises(ValueError, match=r"table.csv.partial was begun for other images"):
        ResumableFile(path, "other")
    assert path.with_name("table.csv.partial").read_bytes() == b"1\n"
    assert names(path) == ["table.csv.partial", "table.csv.partial.json"]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 2
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda partial: os.truncate(partial, 0), "table.csv.partial is cut short"),  # as a crash may leave it
        (lambda partial: flip(partial, 6), "table.csv.partial has its whole length, but bits of it have changed"),
        (lambda partial: flip(partial.with_suffix(".partial.json"), 9), "table.csv.partial.json has changed"),
        (lambda partial: flip(partial.with_suffix(".partial.json"), 0), "table.csv.partial.json is not what"),
    ],
)
def test_what_is_damaged_is_made_anew_and_said(path, capsys, damage, message):
    with ResumableFile(path, "key", b"head\n") as table:
        table.append(b"1\n", Counter(a=1))
        table.append(b"2\n", Counter(a=1))
    damage(path.with_name("table.csv.partial"))
    with ResumableFile(path, "key", b"head\n") as table:
        assert table.rows == 0
        table.append(b"1\n2\n3\n", Counter(a=3))
        table.finish()
    assert message in capsys.readouterr().err
    assert path.read_bytes() == b"head\n1\n2\n3\n"


def test_a_note_from_before_there_were_checksums_counts(path):
    path.parent.mkdir()
    path.with_name("table.csv.partial").write_bytes(b"1\n")
    path.with_name("table.csv.partial.json").write_text('{"key": "key", "bytes": 2, "counts": {"a": 1}}')
    with ResumableFile(path, "key") as table:
        assert table.rows == 1


def test_a_second_writer_is_kept_out(path):
    with ResumableFile(path, "key") as table:
        with pytest.raises(ValueError, match=r"table.csv is being written by another thread of this process"):
            ResumableFile(path, "key")
        table.append(b"1\n", Counter(a=1))
        table.finish()
    assert names(path) == ["table.csv", "table.csv.sha256"]


def test_a_beginning_without_rows_is_in_nobodys_way(path):
    with ResumableFile(path, "key", b"a head\n"):
        pass
    with ResumableFile(path, "other", b"head\n") as table:
        table.finish()
    assert path.read_bytes() == b"head\n"


def test_an_older_file_stays_until_the_new_one_is_whole(path):
    path.parent.mkdir()
    path.write_text("old")
    with ResumableFile(path, "key") as table:
        table.append(b"new", Counter(a=1))
        assert path.read_text() == "old"
        table.finish()
    assert path.read_text() == "new"


def test_a_full_disk_is_a_sentence_and_keeps_what_there_is(path, monkeypatch):
    with ResumableFile(path, "key") as table:
        table.append(b"1\n", Counter(a=1))

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ValueError, match=r"table.csv cannot be written \(no space left on device\); "):
            table.append(b"2\n", Counter(a=1))
    monkeypatch.undo()
    with ResumableFile(path, "key") as table:
        assert table.rows == 1
        table.finish()
    assert path.read_bytes() == b"1\n"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="what a descriptor is of is told by Linux")
def test_what_is_noted_is_on_disk_once_it_is_appended(path, monkeypatch):
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, os.fstat(descriptor).st_size))
        fsync(descriptor)

    with ResumableFile(path, "key") as table:
        monkeypatch.setattr(os, "fsync", noting)
        table.append(b"1\n", Counter(a=1))
        note = path.with_name("table.csv.partial.json").stat().st_size
    assert [name for name, _ in synced] == ["table.csv.partial", "table.csv.partial.json.new", "tables"]
    assert synced[1][1] == note, "all of it"


def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder: give a file in it"):
        ResumableFile(tmp_path, "key")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        ResumableFile(tmp_path / "file" / "table.csv", "key")


@pytest.mark.parametrize("change", [lambda path: os.truncate(path, 5), lambda path: flip(path, 3)])
def test_what_changed_before_the_end_gets_no_name(path, change):
    with ResumableFile(path, "key", b"head\n") as table:
        table.append(b"1\n", Counter(a=1))
        change(table.written)
        with pytest.raises(ValueError, match=r"table.csv.partial has changed since it was written: run the same"):
            table.finish()
    assert not path.exists()
    with ResumableFile(path, "key", b"head\n") as table:
        assert table.rows == 0
        table.append(b"1\n", Counter(a=1))
        table.finish()
    assert path.read_bytes() == b"head\n1\n"
