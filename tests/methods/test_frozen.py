"""Nothing is trained, and the weights that were given are judged and saved."""

import pytest
import torch

import tapetum
from tapetum.interchange.weights.weight_files import read_weights

DIGITS = ["method={kind: frozen}", "seed=3"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)


def test_weights_stay_and_are_judged():
    first = tapetum.train("paws_digits", "run", ["trainer.steps=20", "method.head.layers=0"])
    frozen = tapetum.train("paws_digits", "frozen", [*DIGITS, "init=run", "trainer.steps=0"])
    for name, tensor in read_weights("frozen").items():
        assert torch.equal(tensor, read_weights("run")[name]), name
    # Without a head, the projection that PAWS is judged by is the backbone's output.
    assert frozen["test"]["soft_neighbours"] == first["test"]["soft_neighbours"]
    assert (frozen["steps"], frozen["images_seen"]) == (0, 0)
    assert tapetum.evaluate("frozen", "digits").soft_neighbours.top1 == frozen["test_top1"]
    assert tapetum.resume("frozen")["test"] == frozen["test"]


def test_steps_are_refused():
    with pytest.raises(ValueError, match=r"trainer\.steps is 2, but frozen trains nothing: set it to 0"):
        tapetum.train("paws_digits", "run", [*DIGITS, "trainer.steps=2"])
