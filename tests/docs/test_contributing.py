import ast
import re
import sys

import pytest
import torch

import tapetum
from tapetum.methods import registry


@pytest.fixture
def example(root):
    """The method in CONTRIBUTING.md."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (root / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    return code


def test_the_method_of_contributing_trains(example, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on a busy machine, more threads would mostly wait for each other
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pseudo_label.py").write_text(example)
    threads = torch.get_num_threads()
    try:
        summary = tapetum.train(
            "paws_digits",
            tmp_path / "run",
            overrides=["method.kind=pseudo_label", "method.threshold=0.1", "trainer.steps=3", "data.batch_size=16"],
            plugins=["pseudo_label"],
        )
    finally:
        torch.set_num_threads(threads)
        sys.modules.pop("pseudo_label", None)
    assert summary["method"] == "pseudo_label"
    assert summary["steps"] == 3
    assert summary["test"]["predicts_by"] == "classifier"
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert {"train/loss", "train/supervised", "train/unsupervised", "train/confident"} <= set(header.split(","))
    assert len(rows) == 3


def test_the_method_of_contributing_is_short(example):
    body = [line for line in example.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(body) < 100
    assert max(map(len, example.splitlines())) <= 120
    imported = {n.module for n in ast.walk(ast.parse(example)) if isinstance(n, ast.ImportFrom) and n.module}
    assert not [name for name in imported if name.startswith(("tapetum.engine", "tapetum.optim"))]
