"""The notebooks run as they stand, cell by cell, and are kept without what a run leaves in them."""

import ast
import json
import tempfile
import time
from pathlib import Path

import pytest
import torch

NOTEBOOKS = ("from_folder_to_classifier", "views_and_supports")


@pytest.fixture(params=NOTEBOOKS)
def notebook(root, request):
    path = root / "docs" / "notebooks" / f"{request.param}.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))


def run(code, names):
    """Run a cell; returns the value that a notebook would show below it."""
    tree = ast.parse(code)
    shown = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if shown is None else eval(compile(shown, "cell", "eval"), names)


@pytest.mark.parametrize("notebook", [pytest.param(NOTEBOOKS[0], marks=pytest.mark.slow), NOTEBOOKS[1]], indirect=True)
def test_it_runs(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    names = {"__name__": "__main__"}
    began = time.process_time()
    try:
        shown = [run("".join(c["source"]), names) for c in notebook["cells"] if c["cell_type"] == "code"]
    finally:
        torch.set_num_threads(threads)
    assert time.process_time() - began < 40  # seconds of one core; less on a machine with two
    assert [value for value in shown if value is not None]
    if "summary" in names:
        assert names["judged"].top1 > 50
        assert Path(names["folder"], "run", "report.html").is_file()
    else:
        assert torch.allclose(names["p"].sum(dim=1), torch.ones(names["num_images"]))
        assert names["q"].max() > names["p"].max()


def test_it_is_kept_as_it_was_written(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert not any(line.startswith(("!", "%")) for line in cell["source"])


def test_all_of_them_are_tried(root):
    assert sorted(path.stem for path in (root / "docs" / "notebooks").glob("*.ipynb")) == sorted(NOTEBOOKS)
