"""The predictor as a callable: the rows of `tapetum predict`, whatever holds the images."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tapetum

NUMBERS = ("confidence", "in_domain", "neighbour_1_weight", "neighbour_2_weight", "neighbour_3_weight")


@pytest.fixture
def photos(world: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> list[Path]:
    monkeypatch.chdir(world)
    monkeypatch.setenv("TAPETUM_CACHE", str(world / "cache"))
    return sorted(Path("photos").iterdir())


@pytest.fixture
def table(photos: list[Path]) -> list[dict[str, str]]:
    tapetum.predict("run", "photos", "p.csv")
    with open("p.csv", newline="") as file:
        return list(csv.DictReader(file))


def rows_of(columns: dict[str, Any]) -> list[dict[str, str]]:
    """As the table has them."""
    return [
        {name: f"{value:.6g}".replace("nan", "") if name in NUMBERS else value for name, value in zip(columns, row)}
        for row in zip(*columns.values(), strict=True)
    ]


def without(rows: list[dict[str, str]], *names: str) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def weights_rounded(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{n: f"{float(v):.4f}" if n in NUMBERS and v else v for n, v in row.items()} for row in rows]


def test_rows_are_those_of_the_table_whatever_holds_the_images(photos, table):
    predictor = tapetum.Predictor("run")
    paths = [str(path) for path in photos]
    contents = np.array([path.read_bytes() for path in photos], dtype=object)
    held = np.array([{"bytes": content, "path": None} for content in contents], dtype=object)
    expected = weights_rounded(without(table, "path", "problem"))
    for batch in ({"path": np.array(paths)}, {"bytes": contents, "path": np.array(paths)}, {"image": held}):
        found = predictor(batch)
        rows = rows_of({name: values for name, values in found.items() if name != "path"})
        assert weights_rounded(without(rows, "problem")) == expected
        problems = [row["problem"] for row in rows]
        where = "in row 9" if "image" in batch else "photos/09.png"
        assert [bool(problem) for problem in problems] == [i == 9 for i in range(30)]
        assert problems[9].startswith(f"image {where} cannot be read")
        assert {"bytes", "image"}.isdisjoint(found)
        assert all(found[name].dtype == (np.float64 if name in NUMBERS else object) for name in rows[0])


def test_other_columns_stay_and_arrays_are_images(photos, table):
    readable = [i for i in range(30) if i != 9]
    pixels = np.stack([np.asarray(Image.open(photos[i])) for i in readable])
    found = tapetum.Predictor("run", neighbours=1)({"image": pixels, "number": np.array(readable)})
    assert found["number"].tolist() == readable
    assert found["label"].tolist() == [table[i]["label"] for i in readable]
    assert [name for name in found if name.startswith("neighbour")] == [
        *("neighbour_1", "neighbour_1_label", "neighbour_1_weight")
    ]


def test_what_cannot_be_done_is_one_sentence(photos):
    with pytest.raises(ValueError, match=r"the batch has the columns pixels: name that of the images one of"):
        tapetum.Predictor("run")({"pixels": [1]})
    with pytest.raises(ValueError, match="neighbours is -1"):
        tapetum.Predictor("run", neighbours=-1)


@pytest.mark.slow
def test_large_files_are_shrunk_as_the_table_shrinks_them(recipe):
    Path("photos").mkdir()
    for i in range(8):
        noise = np.random.default_rng(i).integers(0, 255, (90, 70, 3)).astype(np.uint8)
        noise[..., i % 2] = 250
        Image.fromarray(noise).save(f"photos/{i}.jpg")
    tapetum.train(recipe, "run", ["data.shrink_to=12", "trainer.steps=1"])
    tapetum.predict("run", "photos", "p.csv")
    with open("p.csv", newline="") as file:
        expected = [float(row["confidence"]) for row in csv.DictReader(file)]
    contents = [path.read_bytes() for path in sorted(Path("photos").iterdir())]
    np.testing.assert_allclose(tapetum.Predictor("run")({"bytes": contents})["confidence"], expected, rtol=1e-5)
