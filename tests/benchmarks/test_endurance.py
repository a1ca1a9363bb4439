"""benchmarks/endurance.py: slopes are those that were put in, and commands are watched with their children."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def endurance() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("endurance")
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in ("endurance", "side_by_side"):
            sys.modules.pop(name, None)


def looks(mb_per_hour: float, noise: float = 0.0) -> list:
    """An hour, a look a second; it grows fast in its first minutes."""
    rng = np.random.default_rng(0)
    seconds = np.arange(3600.0)
    memory = 900 + mb_per_hour * seconds / 3600 + noise * rng.standard_normal(3600) - 300 * np.exp(-seconds / 60)
    return [(float(at), 1500.0, 5, 2, 1, float(mb)) for at, mb in zip(seconds, memory, strict=True)]


def test_a_slope_is_found_with_its_error(endurance):
    assert endurance.slope(looks(12.0)) == (pytest.approx(12.0, abs=0.01), pytest.approx(0.0, abs=0.01))
    found, error = endurance.slope(looks(0.0, noise=20.0))
    assert abs(found) < 3 * error
    assert 0.3 < error < 6
    found, error = endurance.slope(looks(30.0, noise=20.0))
    assert found > 5 * error, "a leak of 30 MB an hour is seen"


def test_a_row_tells_the_most_and_leaves_the_beginning_out(endurance):
    row = endurance.row_of("an hour", ["fit"], [(0.0, 2000.0, 99, 9, 3, 1.0), *looks(0.0)], 3600.0, 60.0, True)
    assert (row["peak_mb"], row["handles"], row["threads"]) == (2000, [5, 5], [2, 2])
    assert len(row["looks"]) <= endurance.KEPT
    short = endurance.row_of("a moment", ["fit"], looks(0.0)[:20], 20.0, 1.0, True)
    assert "mb_per_hour" not in short
    assert "mb_per_hour" not in endurance.row_of("several things", ["fit"], looks(0.0), 3600.0, 1.0, False)


def test_a_command_that_fails_ends_the_benchmark(endurance, tmp_path):
    with pytest.raises(SystemExit, match=r"tapetum check failed: .*nowhere"):
        endurance.watch(["check", "nowhere", "--output", "out"], tmp_path, 1)


def test_files_have_as_many_names_as_are_wanted(endurance, tmp_path):
    endurance.noise(tmp_path / "tiny", 3, 4, lambda number: str(number // 2))
    paths = sorted((tmp_path / "tiny").rglob("*.png"))
    assert [path.parent.name for path in paths] == ["0", "0", "1"]
    pixels = [np.asarray(Image.open(path)) for path in paths]
    assert len({image.tobytes() for image in pixels}) == 3
    assert {image.shape for image in pixels} == {(4, 4, 3)}
    endurance.link(paths, tmp_path / "many", 2005)
    assert len([*(tmp_path / "many").rglob("*.png")]) == 2005
    assert len([*(tmp_path / "many").iterdir()]) == 3
