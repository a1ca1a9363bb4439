"""Names of files and classes are only shown: no page, table or terminal takes them for anything else."""

import csv
import os
import shlex

import numpy as np
import pytest
from PIL import Image

from tapetum.cli.main import main
from tapetum.data.label_formats.rows import FORMULA_SIGNS, safe_class, without_apostrophe
from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.data.sources.open_source import open_source
from tapetum.labelling.answers import Answers
from tapetum.system.notices import printable
from tapetum.verbs.check import check
from tapetum.verbs.labels import labels

CLASSES = ("=cmd()", "+1+1", "-a", "@SUM(A1)", "'=b", "<script>alert(1)</script>")


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Images whose names and classes are formulas and HTML, in class folders; two of each, one damaged."""
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(c.replace("/", "") for c in CLASSES):
        folder = tmp_path / "pool" / name
        folder.mkdir(parents=True)
        for which, file in enumerate(("=1+1.png", "<img src=x onerror=alert(1)>.png")):
            pixels = np.full((8, 8, 3), 20 * number + 7 * which, np.uint8)
            pixels[number, which] = 255
            Image.fromarray(pixels).save(folder / file)
    (tmp_path / "pool" / "=broken.png").write_bytes(b"no image")
    return tmp_path / "pool"


def cells(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [cell for row in csv.reader(file) for cell in row]


def runs(cell):
    """Whether a spreadsheet takes a cell for a formula; a number is none."""
    return cell.startswith(FORMULA_SIGNS) and not cell.lstrip("+-").replace(".", "").isdigit()


def test_names_are_only_shown(pool, tmp_path):
    check("pool", output="health")
    page = (tmp_path / "health" / "check.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    for form, target in (("csv", "pool/l.csv"), ("imagefolder", "pool/metadata.csv")):
        labels("pool", target, form)
        assert not any(map(runs, cells(target)))
        assert any("cmd()" in cell for cell in cells(target))
    tables = list((tmp_path / "health").glob("*.csv"))
    assert not any(runs(cell) for table in tables for cell in cells(table))


def test_formulas_are_read_back_as_the_classes_they_were(pool, tmp_path):
    labels("pool", "l.csv", "csv")
    expected, found = open_source("pool").labels, open_source("pool", "l.csv").labels
    assert found.classes == expected.classes
    assert found.values.tolist() == expected.values.tolist()


def test_answers_are_no_formulas(pool, tmp_path):
    names = open_source("pool", "none").store.names
    answers = Answers(tmp_path / "a.csv", names, pool, "ann")
    given = dict(enumerate((*CLASSES, NONE_OF_THESE)))
    answers.give(given, "key")
    assert not any(map(runs, cells(tmp_path / "a.csv")))
    assert Answers(tmp_path / "a.csv", names, pool, "ann").labels == given


@pytest.mark.parametrize("name", ["a", "=a", "'=a", "''-a", "'a", "-5", "'-5", "+", "'", ""])
def test_a_class_is_read_as_it_was_written(name):
    assert without_apostrophe(safe_class(name)) == name
    assert not runs(safe_class(name))


def test_a_terminal_is_not_steered(pool, tmp_path, capfd):
    """A file name may hold any byte but a slash."""
    name = "\x1b[31m\x1b]0;owned\x07\n\u202e.csv"
    os.rename(pool / "=broken.png", tmp_path / name)
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(f"check {shlex.quote(name)}"))
    error = capfd.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("tapetum: error: ")
    assert error.endswith("\n")
    assert error[:-1].isprintable()
    assert "owned" in error


def test_a_message_is_one_line_of_bounded_length():
    assert printable("a\n b\tc\x1b[0m") == "a b c\\x1b[0m"
    assert len(printable("a" * 10**6)) == 2003
    assert printable("ü é 🐈") == "ü é 🐈"
