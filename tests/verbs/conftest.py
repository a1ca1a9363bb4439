from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colours import RECIPE, colours
from PIL import Image

import tapetum


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A recipe in the current folder, beside its images: colours.npz, 60 to train with and 30 to test with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    (train, train_labels), (test, test_labels) = colours(60, 0), colours(30, 1)
    np.savez("colours.npz", x_train=train, y_train=train_labels, x_test=test, y_test=test_labels)
    path = tmp_path / "colours.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def run(recipe: Path) -> Path:
    tapetum.train(recipe, "run")
    return recipe.parent / "run"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and with thirty images in photos/, the tenth of them broken."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TAPETUM_CACHE", str(folder / "cache"))
        (train, train_labels), (test, test_labels) = colours(60, 0), colours(30, 1)
        np.savez("colours.npz", x_train=train, y_train=train_labels, x_test=test, y_test=test_labels)
        Path("colours.yaml").write_text(RECIPE)
        tapetum.train("colours.yaml", "run", ["trainer.steps=2"])
        Path("photos").mkdir()
        for i, image in enumerate(test):
            Image.fromarray(image.transpose(1, 2, 0)).save(f"photos/{i:02}.png")
        Path("photos/09.png").write_bytes(b"no picture")
    return folder
