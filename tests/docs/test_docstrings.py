"""Runs the example of every docstring in the package."""

import doctest
import importlib
import pkgutil

import pytest

import tapetum

MODULES = [info.name for info in pkgutil.walk_packages(tapetum.__path__, "tapetum.") if "__main__" not in info.name]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


def test_there_are_examples_to_run():
    finder = doctest.DocTestFinder()
    examples = [e for name in MODULES for t in finder.find(importlib.import_module(name)) for e in t.examples]
    run = [e for e in examples if not e.options.get(doctest.SKIP)]
    assert len(run) > 40
