"""What somebody answered is on disk, whole and readable for `fit`, whatever happens."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tapetum.data.labels.label_files import read_label_file
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.labelling.answers import Answers, clean_class

NAMES = ["a.png", "b.png", "c.png", "d/e.png", "=f.png", " g.png", 'h"i,j.png', "k😀.png", "l\nm.png"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.csv"


def opened(path, names=NAMES):
    return Answers(path, names, path.parent / "photos", "ann")


def log(path):
    return [json.loads(line) for line in path.with_name("labels.log.jsonl").read_text().splitlines()]


def by_fit(path, names=NAMES):
    """What `fit` reads: name -> class, for labelled images."""
    found = read_label_file(path, names, path.parent / "photos")
    known = {found.names[i]: found.classes[found.values[i]] for i in found.labelled}
    return known | {found.names[i]: NONE_OF_THESE for i in found.none}


def test_fit_reads_every_answer_whatever_names_and_classes_hold(path):
    answers = opened(path)
    given = {i: f'class "{i % 2}", <b>🐈</b>' for i in range(len(NAMES))}
    for image, label in given.items():
        answers.give({image: label}, "key")
    assert by_fit(path) == {NAMES[i]: label for i, label in given.items()}
    assert opened(path).labels == given
    assert "\n=f" not in path.read_text()  # a spreadsheet would take it for a formula


def test_fit_reads_the_file_after_every_correction(path):
    answers = opened(path)
    answers.give({0: "cat", 1: "dog", 2: "dog"}, "grid")
    answers.give({1: "cat"}, "review")
    answers.give({2: NONE_OF_THESE}, "key")
    answers.give({3: "dog"}, "key")
    assert by_fit(path) == {"a.png": "cat", "b.png": "cat", "c.png": NONE_OF_THESE, "d/e.png": "dog"}
    answers.give({0: None}, "key")
    assert answers.labels == {1: "cat", 2: NONE_OF_THESE, 3: "dog"}
    assert opened(path).labels == answers.labels
    assert answers.classes() == {"cat": 1, "dog": 1}


def test_undo_goes_back_answer_by_answer_and_only_through_ones_own(path):
    answers = opened(path)
    answers.give({0: "cat"}, "key", tab="mine")
    answers.give({1: "dog", 2: "dog"}, "grid", tab="mine")
    answers.give({3: "cat"}, "key", tab="yours")
    assert [change.image for change in answers.undo("mine").changes] == [1, 2]
    assert answers.labels == {0: "cat", 3: "cat"}
    answers.undo("mine")
    assert answers.undo("mine") is None
    assert answers.labels == {3: "cat"}
    assert [line["how"] for line in log(path)] == ["key", "grid", "grid", "key", "undo", "undo", "undo"]


def test_undo_leaves_what_somebody_else_has_changed_since(path):
    answers = opened(path)
    answers.give({0: "cat", 1: "cat"}, "grid", tab="mine")
    answers.give({1: "dog"}, "key", tab="yours")
    answers.undo("mine")
    assert answers.labels == {1: "dog"}


def test_everything_is_found_again(path):
    before = opened(path)
    before.give({4: "zebra"}, "key")
    before.give({0: "ape"}, "key")
    before.undo("")
    before.give({1: None}, "skip")
    before.give({2: None}, "not", about={2: {"group": "ape"}})
    after = opened(path)
    assert after.labels == {4: "zebra"}
    assert list(after.classes().items()) == [("zebra", 1), ("ape", 0)]  # so that keys stay
    assert after.skipped == {1}
    assert after.excepted == {2: "ape"}
    for _ in range(3):  # the exception, the skip, the answer
        after.undo("new tab")
    assert after.labels == {}
    assert (after.skipped, after.excepted) == (set(), {})
    assert after.undo("new tab") is None


def test_the_log_tells_who_when_and_by_which_suggestion(path):
    opened(path).give({0: "cat"}, "key", about={0: {"rank": 1, "reason": "typical", "predicted": "dog"}})
    (line,) = log(path)
    assert {line[key] for key in ("who", "path", "how", "reason", "predicted", "new")} == {
        *("ann", "a.png", "key", "typical", "dog", "cat")
    }
    assert line["old"] is None
    assert line["when"].endswith("+00:00")


def test_a_log_that_a_crash_cut_off_is_gone_on_with(path):
    opened(path).give({0: "cat"}, "key")
    with path.with_name("labels.log.jsonl").open("a") as file:
        file.write('{"path": "b.png", "operation": "77", "how": "ke')
    answers = opened(path)
    answers.give({1: "dog"}, "key")
    again = opened(path)
    again.undo("")
    assert again.labels == {0: "cat"}


def test_skips_and_exceptions_change_no_label_even_one_that_is_new(path):
    answers = opened(path)
    answers.give({0: "cat"}, "key", tab="yours")
    answers.give({0: None}, "skip", tab="mine")
    answers.give({0: None}, "not", tab="mine")
    assert answers.labels == {0: "cat"}


def test_threads_lose_nothing(path):
    names = [f"{i}.png" for i in range(40)]
    answers = opened(path, names)
    work = [threading.Thread(target=answers.give, args=({i: "ab"[i % 2]}, "key")) for i in range(40)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(opened(path, names).labels) == 40
    assert len(log(path)) == 40


GIVE = """
import sys
from pathlib import Path
from tapetum.labelling.answers import Answers
names = [f"{i}.png" for i in range(4000)]
answers = Answers(Path(sys.argv[1]), names, Path("photos"), "ann")
print("ready", flush=True)
for i in range(int(sys.argv[2]), int(sys.argv[3]), 2):
    answers.give({i: "ab"[i // 2 % 2]}, "key")
    print(i, flush=True)
"""


def giver(path, first, end):
    command = [sys.executable, "-c", GIVE, str(path), str(first), str(end)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_lose_nothing(path):
    work = [giver(path, first, 40) for first in (0, 1)]
    assert [process.wait() for process in work] == [0, 0]
    assert set(opened(path, [f"{i}.png" for i in range(4000)]).labels) == set(range(40))
    for process in work:
        process.stdout.close()


def test_kill_9_loses_at_most_the_answer_in_flight(path):
    names = [f"{i}.png" for i in range(4000)]
    for attempt in range(2):
        process = giver(path, 1000 * attempt, 4000)
        assert process.stdout.readline() == "ready\n"
        told = [int(process.stdout.readline()) for _ in range(4)]  # of both classes
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.communicate()[0].split()]
        there = [i for i in by_fit(path, names) if int(i.split(".")[0]) >= 1000 * attempt]
        assert len(told) <= len(there) <= len(told) + 1
        assert {f"{i}.png" for i in told} <= set(there)
    assert opened(path, names).undo("") is not None


def test_an_existing_file_is_gone_on_with(path):
    path.write_text("filename;class\nphotos/a.png;cat\nb;dog\n")
    answers = opened(path)
    assert answers.labels == {0: "cat", 1: "dog"}
    answers.give({2: "dog"}, "key")
    assert by_fit(path) == {"a.png": "cat", "b.png": "dog", "c.png": "dog"}


def test_classes_keep_their_numbers_whichever_is_answered_first(path):
    path.write_text("path,label\na.png,cat\nb.png,dog\n")
    answers = opened(path)
    answers.expect(["ant", "dog", "emu"])  # those that a run predicts
    order = ["cat", "dog", "ant", "emu"]
    assert list(answers.classes()) == order
    answers.give({2: "emu"}, "key")
    assert list(answers.classes()) == order
    answers.give({0: "yak"}, "key")  # the only cat is corrected
    assert answers.classes() == {"cat": 0, "dog": 1, "ant": 0, "emu": 1, "yak": 1}
    assert list(opened(path).classes()) == [*order, "yak"]


def test_what_others_write_meanwhile_is_seen_and_kept(path):
    answers = opened(path)
    answers.give({0: "cat"}, "key")
    path.write_text("path,label\na.png,dog\nb.png,cat\n")
    assert answers.labels == {0: "dog", 1: "cat"}
    answers.give({2: "cat"}, "key")
    assert by_fit(path) == {"a.png": "dog", "b.png": "cat", "c.png": "cat"}
    path.unlink()
    assert answers.labels == {}


def test_a_link_stays_a_link(path, tmp_path):
    (tmp_path / "real").mkdir()
    path.symlink_to(tmp_path / "real" / "mine.csv")
    opened(path).give({0: "cat"}, "key")
    assert path.is_symlink()
    assert "cat" in (tmp_path / "real" / "mine.csv").read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path,label\nz.png,cat\n", "line 2: there is no image 'z.png'"),
        ("path,label\na.png,cat\na.png,dog\n", "line 3: 'a.png' is labelled 'dog', but 'cat' at line 2"),
        ("path,label\na.png\n", "line 2: 'a.png' is not path,label"),
        ("path,colour\na.png,red\n", "unknown column 'colour'"),
    ],
)
def test_a_faulty_file_is_refused_and_left(path, content, words):
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        opened(path)
    assert path.read_text() == content


@pytest.mark.parametrize("content", ["", "path,label\n", "\ufeffpath,label\r\n"])
def test_a_file_without_answers_is_fine(path, content):
    path.write_text(content)
    assert opened(path).labels == {}


def test_only_csv_and_only_where_one_may_write(path, tmp_path):
    with pytest.raises(ValueError, match=r"labels.json is none: give a file such as labels.csv"):
        opened(tmp_path / "labels.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        opened(tmp_path / "file" / "labels.csv")


def test_class_names():
    assert clean_class("  cat ") == "cat"
    assert clean_class("cafe\u0301") == "caf\u00e9"
    assert clean_class("👨\u200d👩\u200d👧") == "👨\u200d👩\u200d👧"
    for name in ("", "  ", "a\nb", "a\0", "x" * 101, "\ud800"):
        with pytest.raises(ValueError, match="class name"):
            clean_class(name)


def test_a_full_disk_is_told_and_loses_nothing(path, monkeypatch):
    answers = opened(path)
    answers.give({0: "cat", 1: "dog"}, "grid")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ValueError, match=r"labels.csv cannot be written \(no space left on device\)"):
        answers.give({2: "cat"}, "key")
    monkeypatch.undo()
    assert answers.labels == {0: "cat", 1: "dog"}
    assert by_fit(path) == {"a.png": "cat", "b.png": "dog"}


def test_fit_reads_the_log_too(path):
    answers = opened(path)
    answers.give({0: "cat", 1: "cat", 2: NONE_OF_THESE}, "grid")
    answers.give({1: "dog"}, "review")
    assert by_fit(path.with_name("labels.log.jsonl")) == by_fit(path)
