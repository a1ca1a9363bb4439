"""predict, embed and report replace what they wrote themselves, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import tapetum

FOREIGN = {
    "labels.csv": b"path,label\n00.png,red\n",
    "labels.jsonl": json.dumps({"path": "00.png", "label": "red"}).encode() + b"\n",
    "notes.html": b"<!doctype html><title>Tapetum, a moth's eye</title>",
    "photo.png": b"\x89PNG\r\n\x1a\n",
}


def outputs() -> dict[str, Callable[[str], object]]:
    return {
        "csv": lambda path: tapetum.predict("run", "photos", path, neighbours=1),
        "json": lambda path: tapetum.predict("run", "photos", path, json=True),
        "npz": lambda path: tapetum.embed("run", "photos", path),
        "parquet": lambda path: tapetum.embed("run", "photos", path),
        "html": lambda path: tapetum.report("run", path),
    }


@pytest.fixture
def here(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    return world


@pytest.mark.parametrize("kind", outputs())
def test_own_files_are_replaced(here, tmp_path, kind):
    path = tmp_path / f"own.{kind}"
    path.touch()  # as mktemp does
    outputs()[kind](str(path))
    first = path.read_bytes()
    outputs()[kind](str(path))
    assert path.read_bytes() == first


def test_a_table_of_either_kind_replaces_the_other(here, tmp_path):
    path = str(tmp_path / "table")
    for kind in ("csv", "json", "csv"):
        outputs()[kind](path)


@pytest.mark.parametrize("kind", ("csv", "json", "html"))
@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_left_alone(here, tmp_path, kind, name):
    path = tmp_path / name
    path.write_bytes(FOREIGN[name])
    with pytest.raises(ValueError, match=r"exists already, and something else wrote it: give another --output"):
        outputs()[kind](str(path))
    assert path.read_bytes() == FOREIGN[name]


def test_arrays_and_columns_of_others_are_left_alone(here, tmp_path):
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    parquet.write_table(pa.table({"image": ["a.png"], "label": ["red"]}), tmp_path / "other.parquet")
    for name in ("other.npz", "broken.npz", "other.parquet"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match="something else wrote it"):
            tapetum.embed("run", "photos", tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
