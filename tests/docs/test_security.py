"""SECURITY.md promises what tests hold, and its limits are those of the code."""

import re

from tapetum.cli import errors
from tapetum.data.images import decoding
from tapetum.labelling import access
from tapetum.recipe import files
from tapetum.system import notices, strangers


def page(root):
    return (root / "SECURITY.md").read_text(encoding="utf-8")


def test_each_promise_is_held_by_a_test(root):
    rows = re.findall(r"^\| (.+?) \| (no|\*\*yes\*\*) \|.*\|([^|]*)\|$", page(root), re.MULTILINE)
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("test_*.py"))
    assert len(rows) == 14
    for what, trusted, held in rows:
        name = held.strip().strip("`")
        assert bool(name) == (trusted == "no"), what
        assert not name or f"def {name}(" in tests, what


def test_limits_are_those_of_the_code(root):
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]*\d[^|]*?) \|[^|]*\|$", page(root), re.MULTILINE))
    numbers = {what: [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", limit)] for what, limit in rows.items()}
    packed = next(what for what in numbers if what.startswith("a packed file"))
    assert numbers["an image"] == [decoding._MOST_PIXELS, 2000, decoding._MOST_SCANS]
    assert numbers[packed] == [strangers.MOST_UNPACKED // 2**20, strangers.MOST_TIMES]
    assert numbers["tuples in a pickle"] == [strangers.MOST_EXPANDED]
    assert numbers["a recipe"] == [files._LARGEST, files._DEEPEST]
    assert numbers["a request"] == [access._MOST_BYTES]
    assert numbers["a message"] == [notices._LONGEST]
    assert errors.printable is notices.printable


def test_the_page_is_linked(root):
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "SECURITY.md" in (root / name).read_text(encoding="utf-8"), name
