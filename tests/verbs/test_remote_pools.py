"""Training on images that lie on another machine, with its faults, as on the folder itself: to the bit."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import web
from PIL import Image
from safetensors import safe_open

import tapetum
from tapetum.runs import pool
from tapetum.system import remote

pytest.importorskip("aiohttp", reason="aiohttp is not installed: fsspec cannot reach web servers")

CLASSES = ("red", "green", "blue")
OVERRIDES = [
    *("data.test=null", "data.labels_per_class=3", "data.held_out_per_class=3", "data.workers=1"),
    *("trainer.steps=8", "trainer.checkpoint_every=3", "trainer.log_every=1"),
]


@pytest.fixture
def photos(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs in a folder per class, which are not decoded in advance."""
    generator = np.random.default_rng(0)
    folder = recipe.parent / "photos"
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            pixels = generator.integers(0, 120, (12, 11 + number % 2, 3))
            pixels[..., label] += 130
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    monkeypatch.setattr(pool, "decoded", lambda store, report: store)
    monkeypatch.setattr(remote, "_FIRST_WAIT", 0.001)
    monkeypatch.setenv("TAPETUM_PATIENCE", "1")
    return folder


def tensors(run: str) -> dict[str, bytes]:
    (last,) = Path(run, "checkpoints").glob("step-00000008.safetensors")
    with safe_open(last, "np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 (no mapping)


def losses(run: str) -> list[str]:
    with Path(run, "metrics.csv").open(newline="") as file:
        return [row["train/loss"] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_faults_in_mid_run_end_it_with_a_good_checkpoint(
    recipe: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tapetum.train(recipe, "here", ["data.images=photos", *OVERRIDES])
    with web.serving(photos) as server:
        remote_images = f"data.images={server.address}"
        answered = 0

        def breaks_down(path: str) -> str:
            nonlocal answered
            answered += 1
            return "503" if answered > 180 else "cut" if answered % 7 == 0 else ""

        server.fault = breaks_down
        with pytest.raises(OSError, match=r"\.png cannot be read \(503.*`tapetum resume` continues") as stopped:
            tapetum.train(recipe, "there", [remote_images, *OVERRIDES])
        assert "Traceback" not in str(stopped.value)
        assert 0 < len(losses("there")) < 8
        server.fault = lambda path: ""
        tapetum.resume("there")
        assert tensors("there") == tensors("here")
        assert losses("there") == losses("here")
        predicted = tapetum.predict("there", server.address, "there.csv")
        assert predicted == tapetum.predict("here", photos, "here.csv")
        assert Path("there.csv").read_text() == Path("here.csv").read_text()
        server.fault = lambda path: "503"
        with pytest.raises(OSError, match="cannot be read"):
            tapetum.predict("here", server.address, "broken.csv")
        assert not Path("broken.csv").exists(), "no image counts as unreadable because of a fault"
    assert "fails (" in capfd.readouterr().err
