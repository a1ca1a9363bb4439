"""Predictions by Ray Data: the rows of `tapetum predict`, each once, though a worker is killed in the middle."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tapetum

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'tapetum[ray]'")
data = pytest.importorskip("ray.data", reason="ray was installed without its data extra: pip install 'tapetum[ray]'")
pytestmark = pytest.mark.slow


def mortal() -> type[tapetum.Predictor]:
    """Return a predictor whose process is killed once, in its second batch, among all workers.

    It is made inside a function, because workers cannot import this file: so Ray sends it whole.
    """

    class Mortal(tapetum.Predictor):
        def __init__(self, run: str, marks: str) -> None:
            super().__init__(run)
            self._marks, self._batches = Path(marks), 0

        def __call__(self, batch):
            (self._marks / f"worker-{os.getpid()}").touch()
            self._batches += 1
            if self._batches == 2 and not (self._marks / "killed").exists():
                (self._marks / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    return Mortal


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two nodes, with processes of their own on this machine."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    one = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args=one)
    made.add_node(**one)
    ray.init(address=made.address, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
    made.shutdown()


def test_a_killed_worker_loses_no_row_and_repeats_none(run, tmp_path, cluster):
    (tmp_path / "photos").mkdir()
    (tmp_path / "marks").mkdir()
    for i, image in enumerate(np.load("colours.npz")["x_test"]):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"photos/{i:02}.png")
    (tmp_path / "photos/09.png").write_bytes(b"no picture")
    tapetum.predict("run", "photos", "p.csv")
    images = data.read_binary_files(str(tmp_path / "photos"), include_paths=True, override_num_blocks=15)
    given = [str(tmp_path / "run"), str(tmp_path / "marks")]
    two = data.ActorPoolStrategy(size=2)
    rows = images.map_batches(mortal(), fn_constructor_args=given, batch_size=2, compute=two).take_all()
    assert (tmp_path / "marks/killed").exists()
    assert len(list((tmp_path / "marks").glob("worker-*"))) >= 3  # the one that was killed, and two that went on
    with open("p.csv", newline="") as file:
        expected = list(csv.DictReader(file))
    rows.sort(key=lambda row: row["path"])
    assert [Path(row["path"]).name for row in rows] == [row["path"] for row in expected]
    neighbours = [f"neighbour_{i}" for i in (1, 2, 3)]
    for row, known in zip(rows, expected):
        for name in ("label", "calibrated", "neighbour_1_label"):
            assert row[name] == known[name]
        for name in ("confidence", "in_domain", *(f"{name}_weight" for name in neighbours)):
            assert row[name] == pytest.approx(float(known[name] or "nan"), rel=1e-3, nan_ok=True)
    # Other batches round otherwise: neighbours of the same weight, but for its last digits, may change places.
    same = [row[name] == known[name] for row, known in zip(rows, expected) for name in neighbours]
    assert sum(same) >= 0.9 * len(same)
