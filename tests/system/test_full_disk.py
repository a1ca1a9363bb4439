"""A disk that takes no more: one sentence with the file and what to do, exit code 2, and what was saved stays whole."""

import errno
import json
import os
import resource
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tapetum.cli.main import main
from tapetum.engine import checked_tensors as checkpoints
from tapetum.engine import loggers

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
SMALL = "data.batch_size=8 support.images_per_class=2 runtime.threads=1 data.held_out_share=null"
FIT = f"fit --images images.npz --steps 4 --output run {SMALL} trainer.checkpoint_every=2 trainer.log_every=1"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3)).astype(np.uint8)
    np.savez("images.npz", x=pixels, y=np.arange(24) % 3)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def patch():
    """To be undone before the folder is left."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def call(line, capsys):
    """Exit code, and the last line on standard error."""
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(line))
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return stop.value.code, (said.splitlines() or [""])[-1]


def refused(line, capsys, *words):
    code, sentence = call(line, capsys)
    assert code == 2
    assert sentence.startswith("tapetum: error: ")
    assert all(word in sentence for word in words), sentence


def saved():
    return {path.name: load_file(path) for path in sorted(Path("run/checkpoints").glob("*.safetensors"))}


def assert_whole(expected):
    """The run ends with the weights of an undisturbed one."""
    (one, *_), (other, *_) = list(saved().values())[::-1], list(expected.values())[::-1]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def undisturbed(capsys):
    assert call(FIT, capsys)[0] == 0
    expected = saved()
    shutil.rmtree("run")
    return expected


def test_the_recipe(capsys, undisturbed):
    Path("run").mkdir()
    Path("run/recipe.yaml.partial").symlink_to(FULL)
    refused(FIT, capsys, "run/recipe.yaml", "no space left", "make room", "the same command again")
    assert not os.path.lexists("run/recipe.yaml.partial")
    assert call(FIT, capsys)[0] == 0
    assert_whole(undisturbed)


def test_a_checkpoint(capsys, patch, undisturbed):
    save_file, files = checkpoints.save_file, []

    def filling_up(tensors, path, metadata):
        files.append(path)
        if len(files) < 2:
            return save_file(tensors, path, metadata=metadata)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        try:
            return save_file(tensors, path, metadata=metadata)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    patch.setattr(checkpoints, "save_file", filling_up)
    refused(FIT, capsys, "step-00000004.safetensors", "file too large", "tapetum resume", "what was saved before")
    patch.undo()
    assert sorted(path.name for path in Path("run/checkpoints").iterdir()) == ["step-00000002.safetensors"]
    code, _ = call("resume run", capsys)
    assert code == 0
    assert_whole(undisturbed)


@pytest.mark.parametrize("step", [0, 2])
def test_the_metrics(capsys, patch, undisturbed, step):
    class Full:
        """A file on a disk that has filled up: what it buffers fails when it is flushed and when it is closed."""

        def __init__(self, file):
            self._file = file

        def write(self, text):
            return len(text)

        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self):
            return self._file.fileno()

        def close(self):
            self._file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    on_steps = loggers.CSVLogger.on_steps

    def filling_up(self, rows):
        if self._file is not None and rows[-1]["step"] > step:
            self._file = Full(self._file)
        on_steps(self, rows)

    patch.setattr(loggers.CSVLogger, "on_steps", filling_up)
    refused(FIT, capsys, "run/metrics.csv", "no space left", "tapetum resume")
    patch.undo()
    assert list(saved()) == (["step-00000002.safetensors"] if step else [])
    assert call("resume run", capsys)[0] == 0
    assert_whole(undisturbed)
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 5


def test_the_metrics_written_anew_and_the_summary(capsys):
    assert call(FIT, capsys)[0] == 0
    expected, summary = saved(), Path("run/summary.json").read_text()
    for name in ("run/metrics.csv", "run/summary.json"):
        partial = f"{name}.partial"
        Path(partial).symlink_to(FULL)
        refused("resume run", capsys, name, "no space left", "tapetum resume")
        assert not os.path.lexists(partial)
    assert Path("run/summary.json").read_text() == summary
    assert call("resume run", capsys)[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 4
    assert_whole(expected)


def test_a_short_run_of_folds(capsys):
    folded = FIT.replace("--steps 4", "--steps 8 --folds 2")
    Path("run").mkdir()
    assert call(folded, capsys)[0] == 0
    expected = saved()
    shutil.rmtree("run/checkpoints")
    shutil.rmtree("run/folds/2-of-2")
    Path("run/folds/2-of-2").mkdir()
    Path("run/folds/2-of-2/recipe.yaml.partial").symlink_to(FULL)
    refused("resume run", capsys, "2-of-2/recipe.yaml", "no space left")
    assert not os.path.lexists("run/folds/2-of-2/recipe.yaml.partial")
    assert call("resume run", capsys)[0] == 0
    assert_whole(expected)


@pytest.mark.parametrize(
    "line,partial",
    [
        ("predict run images.npz --output out.csv", "out.csv.partial"),
        ("embed run images.npz --output out.npz", "out.npz.partial"),
        ("report run --output out.html", "out.html.partial"),
        ("check images.npz --output health", "health"),
    ],
)
def test_what_verbs_write(capsys, patch, line, partial):
    assert call(FIT, capsys)[0] == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    if partial == "health":
        patch.setattr(Path, "write_text", lambda *_, **__: _no_room())
    elif partial == "out.csv.partial":
        patch.setattr(os, "fsync", lambda _: _no_room())
    else:
        Path(partial).symlink_to(FULL)
    refused(line, capsys, "cannot be written (no space left on device): make room")
    patch.undo()
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def _no_room():
    raise OSError(errno.ENOSPC, "No space left on device")
