"""Ctrl-C in the midst of any verb: exit code 130, a line that says what is saved, and no half-written file."""

import importlib
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.cli.main import main

SMALL = "data.batch_size=8 support.images_per_class=2 runtime.threads=1"
FIT = f"fit --images images.npz --steps 2 {SMALL} --output"
STOPPED = "tapetum: stopped at once, nothing more saved."
VERBS = {
    "check images.npz --output health": "tapetum.verbs.check.find_health",
    "embed run images.npz --output out.npz": "tapetum.reporting.embeddings_table._write_header",
    "evaluate run --test new.npz": "tapetum.evaluation.accuracy.nearest_neighbour_votes",
    f"{FIT} other": "tapetum.verbs.fit.choose",
    "plot run --output pictures": "tapetum.runs.review.predict_from",
    "report run --output out.html": "tapetum.verbs.report.render",
    "recipes": "tapetum.verbs.recipes.shipped_recipes",
    "train paws_digits --output other": "tapetum.runs.run.build_backbone",
    "views paws_digits --output sheet.png": "tapetum.verbs.views._sheet",
}
GO_ON = {
    "predict run images.npz --output out.csv": ("tapetum.runs.predictor.predict_from", "same command"),
    "resume run": ("tapetum.runs.run.evaluate_by", "tapetum resume run"),
    f"{FIT} folded --folds 2": ("tapetum.runs.folds.assemble", "tapetum resume folded"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TAPETUM_CACHE", str(folder / "cache"))
        pixels = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3)).astype(np.uint8)
        np.savez("images.npz", x=pixels, y=np.arange(24) % 3)
        np.savez("new.npz", x=pixels[::-1], y=np.arange(24) % 3)
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(f"{FIT} run"))
        assert stop.value.code == 0
    yield folder
    torch.set_num_threads(threads)


def stopped(line, target, monkeypatch, capsys):
    """The last line on standard error."""
    module, _, name = target.rpartition(".")
    place, called = importlib.import_module(module), []

    def interrupted(*_, **__):
        called.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(place, name, interrupted)
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(line))
    said = capsys.readouterr().err
    assert called
    assert stop.value.code == 130
    assert "Traceback" not in said
    return said.splitlines()[-1]


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts}


@pytest.mark.parametrize("line", VERBS)
def test_nothing_is_left_half_done(world, line, monkeypatch, capsys):
    monkeypatch.chdir(world)
    monkeypatch.setenv("TAPETUM_CACHE", str(world / "cache"))
    before = files(world)
    assert stopped(line, VERBS[line], monkeypatch, capsys) == STOPPED
    assert files(world) == before


@pytest.mark.parametrize("line", GO_ON)
def test_it_says_how_to_go_on(world, line, monkeypatch, capsys):
    monkeypatch.chdir(world)
    monkeypatch.setenv("TAPETUM_CACHE", str(world / "cache"))
    target, words = GO_ON[line]
    weights = Path("run/checkpoints/step-00000002.safetensors").read_bytes()
    assert words in stopped(line, target, monkeypatch, capsys)
    assert Path("run/checkpoints/step-00000002.safetensors").read_bytes() == weights
