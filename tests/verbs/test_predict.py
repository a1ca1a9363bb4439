"""predict and embed: what the table says, that it agrees with the evaluation, and what stopping it loses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tapetum
from tapetum.evaluation import calibration
from tapetum.evaluation.calibration import calibrate
from tapetum.evaluation.image_chunks import read_chunks
from tapetum.evaluation.prediction import Supports, predict_from
from tapetum.runs.trained_run import open_trained_run
from tapetum.system.interruption import Interrupted


@pytest.fixture
def run(recipe: Path) -> Path:
    tapetum.train(recipe, "run")
    return Path("run")


@pytest.fixture
def photos(recipe: Path) -> Path:
    """Seven red and green photographs of other sizes and modes, two of them in folders, and one broken file."""
    folder = Path("photos")
    (folder / "train" / "deep").mkdir(parents=True)
    (folder / "test").mkdir()
    colours = {"a.png": (250, 30, 30), "b.jpg": (20, 240, 40), "train/c.png": (240, 20, 20), "test/d.webp": (0, 250, 9)}
    for i, (name, colour) in enumerate(colours.items()):
        Image.new("RGB", (30 + 7 * i, 25), colour).save(folder / name)
    Image.new("RGBA", (9, 40), (255, 0, 0, 255)).save(folder / "train/deep/e.png")
    Image.new("P", (12, 12), 3).save(folder / "f.gif")
    (folder / "g.png").write_bytes(b"no picture")
    return folder


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_has_a_line(run, photos, capsys):
    result = tapetum.predict(run, photos, "out/p.csv", neighbours=2)
    rows = table("out/p.csv")
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert {row["path"] for row in rows} == {
        *("a.png", "b.jpg", "f.gif", "g.png"),
        *("test/d.webp", "train/c.png", "train/deep/e.png"),
    }
    of = {row["path"]: row for row in rows}
    assert [of[name]["label"] for name in ("a.png", "b.jpg", "train/c.png", "test/d.webp")] == ["0", "1", "0", "1"]
    for row in rows:
        if row["path"] == "g.png":
            assert "g.png cannot be read" in row["problem"]
            assert set(row.values()) == {"g.png", "", row["problem"]}
        else:
            assert 1 / 3 < float(row["confidence"]) <= 1
            assert float(row["neighbour_1_weight"]) >= float(row["neighbour_2_weight"]) > 0
            assert row["neighbour_1_label"] in "012"
            assert row["problem"] == ""
    assert (result["images"], result["unreadable"], sum(result["labels"].values())) == (7, 1, 6)
    said = capsys.readouterr().out
    assert "1 images could not be read" in said
    assert "Confidences are NOT calibrated: the run held out 12 labels, and 50 are needed." in said
    assert {row["calibrated"] for row in rows} == {"no", ""}
    assert said.splitlines()[-1] == "Next: tapetum report run"
    assert sorted(os.listdir("out")) == ["p.csv", "p.csv.sha256"]


def test_json_says_the_same(run, photos):
    tapetum.predict(run, photos, "p.csv")
    tapetum.predict(run, photos, "p.json", json=True)
    lines = [json.loads(line) for line in Path("p.json").read_text().splitlines()]
    for row, line in zip(table("p.csv"), lines, strict=True):
        assert (row["path"], row["label"] or None) == (line["path"], line["label"])
        assert line["calibrated"] is False
        if line["label"] is None:
            assert (line["confidence"], line["neighbours"]) == (None, [])
            assert line["problem"] == row["problem"]
        else:
            assert float(row["confidence"]) == pytest.approx(line["confidence"], abs=1e-5)
            assert row["neighbour_3"] == line["neighbours"][2]["path"]
            assert float(row["neighbour_3_weight"]) == pytest.approx(line["neighbours"][2]["weight"])


@pytest.mark.parametrize("kind", ["paws", "supervised"])
def test_labels_are_those_that_the_evaluation_judges(recipe, kind):
    changes = ["data.held_out_per_class=null", f"method.kind={kind}", "trainer.steps=2"]
    tapetum.train(recipe, "run", changes)
    tapetum.predict("run", "colours.npz", "p.csv", neighbours=100)
    truth = np.load("colours.npz")["y_test"]
    right = [int(row["label"]) == truth[int(row["path"])] for row in table("p.csv")]
    assert 100 * np.mean(right) == pytest.approx(tapetum.evaluate("run", "colours.npz").headline.top1)
    assert len([name for name in table("p.csv")[0] if name.endswith("_weight")]) == 9  # no more than labels


def test_the_weights_of_all_neighbours_make_the_confidence(run):
    tapetum.predict(run, "colours.npz", "p.csv", neighbours=100)
    for row in table("p.csv"):
        shares = {"0": 0.0, "1": 0.0, "2": 0.0}
        for i in range(1, 22):  # 9 labels to train with and 12 held out
            shares[row[f"neighbour_{i}_label"]] += float(row[f"neighbour_{i}_weight"])
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert max(shares.values()) == pytest.approx(float(row["confidence"]), abs=1e-4)
        assert shares[row["label"]] == max(shares.values())


def test_ropaws_says_how_much_an_image_is_like_labelled_ones(recipe):
    changes = ["method.kind=ropaws", "method.supervised_weight=0", "data.held_out_per_class=null", "trainer.steps=2"]
    tapetum.train(recipe, "run", [*changes, "method.prior_temperature=0.2"])
    images = np.load("colours.npz")
    labelled = open_trained_run("run").parts.data.labels.labelled
    np.savez("some.npz", images=np.concatenate([images["x_train"][labelled], 255 - images["x_test"][:6]]))
    tapetum.predict("run", "some.npz", "p.csv")
    tapetum.embed("run", "some.npz", "e.npz")
    rows = torch.nn.functional.normalize(torch.from_numpy(np.load("e.npz")["embeddings"]), dim=1)
    expected = (((rows @ rows[: len(labelled)].T).amax(dim=1) - 1) / 0.2).exp()
    found = [float(row["method_in_domain"]) for row in table("p.csv")]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert min(found[: len(labelled)]) > 0.999 > 0.99 > min(found[len(labelled) :])
    tapetum.predict("run", "some.npz", "p.json", json=True)
    lines = [json.loads(line) for line in Path("p.json").read_text().splitlines()]
    assert [line["method_in_domain"] for line in lines] == pytest.approx(found, abs=1e-5)
    Path("broken.png").write_bytes(b"no picture")
    tapetum.predict("run", "broken.png", "p.csv")
    assert {table("p.csv")[0][name] for name in ("in_domain", "method_in_domain")} == {""}


@pytest.mark.parametrize("kind", ["paws", "supervised"])
def test_every_method_says_how_much_an_image_is_like_labelled_ones(recipe, kind):
    tapetum.train(recipe, "run", [f"method.kind={kind}", "trainer.steps=2"])
    images = np.load("colours.npz")
    np.savez("some.npz", images=np.concatenate([images["x_test"], 255 - images["x_test"][:10] // 9]))
    tapetum.predict("run", "some.npz", "p.csv")
    found = np.array([float(row["in_domain"]) for row in table("p.csv")])
    domain = open_trained_run("run").domain
    tapetum.embed("run", "some.npz", "e.npz")
    expected = domain.shares(torch.from_numpy(np.load("e.npz")["embeddings"]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.median(found[:30]) > np.median(found[30:])
    assert "method_in_domain" not in table("p.csv")[0]


def test_images_unlike_the_labelled_ones_are_none_of_these(run, capsys):
    images = np.load("colours.npz")["x_test"]
    np.savez("some.npz", images=np.concatenate([images, 255 - images]))
    tapetum.predict(run, "some.npz", "all.csv")
    capsys.readouterr()
    before = table("all.csv")
    share = float(np.median([float(row["in_domain"]) for row in before]))
    result = tapetum.predict(run, "some.npz", "p.csv", reject=share)
    given = table("p.csv")
    rejected = [float(row["in_domain"]) < share for row in before]
    assert 0 < sum(rejected) < 60
    for row, old, is_none in zip(given, before, rejected):
        assert row == (old | {"label": "none of these", "confidence": "", "calibrated": ""} if is_none else old)
    assert result["none_of_these"] == sum(rejected) == 60 - sum(result["labels"].values())
    told = f"{sum(rejected)} images are too unlike the labelled ones: their label is 'none of these'."
    said = capsys.readouterr().out
    assert told in said
    assert "Many images of your classes may be among them: the scale is made by labels that trained the network" in said
    tapetum.predict(run, "some.npz", "p.json", json=True, reject=share)
    lines = [json.loads(line) for line in Path("p.json").read_text().splitlines()]
    assert [line["label"] for line in lines] == [row["label"] for row in given]
    assert {line["confidence"] for line, is_none in zip(lines, rejected) if is_none} == {None}


def test_labels_of_no_class_are_neither_trained_on_nor_predicted_from(recipe):
    images = np.load("colours.npz")
    labels = images["y_train"].astype("U20")
    labels[50:] = "none of these"
    np.savez("colours.npz", **{**images, "y_train": labels, "x_train": images["x_train"]})
    tapetum.train(recipe, "run", ["trainer.steps=2", "data.test=null"])
    run = open_trained_run("run")
    assert run.classes == ("0", "1", "2")
    assert run.parts.data.pool.max() < 50
    assert len(run.domain.others) == 10
    assert len(run.supports.labels) == 21


@pytest.mark.parametrize("share", [0.0, 1.0, -1, float("nan")])
def test_a_share_to_reject_is_between_none_and_all(share):
    with pytest.raises(ValueError, match=r"use a share of the labelled images between 0 and 1, such as 0\.05"):
        tapetum.predict("run", "photos", "p.csv", reject=share)


def test_names_are_no_formulas_in_a_spreadsheet(run, photos):
    os.rename("photos/a.png", "photos/=cmd(1).png")
    os.rename("photos/b.jpg", "photos/-1.jpg")
    tapetum.predict(run, photos, "p.csv")
    assert {"path": "./=cmd(1).png", "label": "0"}.items() <= table("p.csv")[1].items()
    assert table("p.csv")[0]["path"] == "./-1.jpg"
    tapetum.predict(run, photos, "p.json", json=True)
    assert json.loads(Path("p.json").read_text().splitlines()[1])["path"] == "=cmd(1).png"


def test_held_out_labels_choose_the_temperature_and_then_join_the_supports(run, monkeypatch, capsys):
    monkeypatch.setattr(calibration, "MIN_LABELS", 12)
    trained = open_trained_run(run)
    assert len(trained.supports.labels) == 21
    data = trained.parts.data
    by_hand = [trained.parts.embedder.outputs(data.store, labels.labelled) for labels in (data.labels, data.held_out)]
    classes = [torch.from_numpy(labels.values[labels.labelled]) for labels in (data.labels, data.held_out)]
    others = Supports(by_hand[0].embeddings, classes[0], 3)  # an image among its own supports would look too sure
    expected = calibrate(predict_from(by_hand[1], others, "soft_neighbours", 1).scores, classes[1])
    assert trained.calibration.temperature == pytest.approx(expected.temperature, rel=1e-4)
    result = tapetum.predict(run, "colours.npz", "p.csv")
    assert (result["calibrated"], result["held_out"]) == (True, 12)
    assert result["temperature"] == trained.calibration.temperature != 1
    assert "calibrated on 12 held-out labels" in capsys.readouterr().out
    assert table("p.csv")[0]["calibrated"] == "yes"


def test_labels_that_changed_after_training_calibrate_nothing(recipe, monkeypatch, capsys):
    monkeypatch.setattr(calibration, "MIN_LABELS", 12)
    for i, colour in enumerate(["red", "green"] * 12):
        Path("pool", colour).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 10), (250 - i, i, 0) if colour == "red" else (i, 250 - i, 0)).save(
            f"pool/{colour}/{i}.png"
        )
    changes = ["data.images=pool", "data.test=null", "data.held_out_per_class=6", "trainer.steps=2"]
    tapetum.train(recipe, "run", changes)
    assert tapetum.predict("run", "pool", "p.csv")["calibrated"]
    shutil.move("pool/red/0.png", "pool/green/0.png")
    assert not tapetum.predict("run", "pool", "p.csv")["calibrated"]
    assert "the labels have changed since training" in capsys.readouterr().err


def test_an_interrupted_table_goes_on_where_it_was(run, monkeypatch, capsys):
    monkeypatch.setattr("tapetum.verbs.predict.BATCH_SIZE", 7)
    tapetum.predict(run, "colours.npz", "whole.csv")
    read = 0

    def interrupted(*arguments):
        nonlocal read
        for chunk in read_chunks(*arguments):
            if len(arguments[1][0]) == 7 and (read := read + 1) == 3:
                raise KeyboardInterrupt
            yield chunk

    monkeypatch.setattr("tapetum.evaluation.embedding.read_chunks", interrupted)
    with pytest.raises(Interrupted, match="Stopped after 14 of 30 images"):
        tapetum.predict(run, "colours.npz", "p.csv")
    assert not Path("p.csv").exists()
    with pytest.raises(ValueError, match="begun for other images, another run or other options"):
        tapetum.predict(run, "colours.npz", "p.csv", neighbours=1)
    monkeypatch.setattr("tapetum.evaluation.embedding.read_chunks", read_chunks)
    result = tapetum.predict(run, "colours.npz", "p.csv")
    assert "14 of 30 images are done already" in capsys.readouterr().err
    assert Path("p.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert sum(result["labels"].values()) == 30
    assert not Path("p.csv.partial").exists()


def test_one_file_and_names_that_need_care(run, photos):
    strange = os.fsdecode(b'photos/a\xff, "b".png')
    shutil.copy("photos/a.png", strange)
    assert tapetum.predict(run, strange, "one.csv")["images"] == 1
    assert tapetum.predict(run, strange, "one.json", json=True)["images"] == 1
    with open("one.csv", newline="", errors="surrogateescape") as file:
        assert next(csv.DictReader(file))["path"] == os.path.basename(strange)
    assert json.loads(Path("one.json").read_text())["path"] == os.path.basename(strange)


def test_lists_of_paths_and_images_in_memory(run, photos):
    Path("list.txt").write_text("photos/b.jpg\nphotos/a.png\n")
    images = np.load("colours.npz")["x_test"]
    for given, labels in (("list.txt", "10"), (["photos/a.png", "photos/b.jpg"], "01"), (images[:3], "012")):
        tapetum.predict(run, given, "p.csv")
        assert [row["label"] for row in table("p.csv")] == list(labels)


def test_images_of_the_pool_get_the_same_label_whatever_their_size(run):
    """A recipe without resizing is for images of one size; others are brought to it."""
    images = np.load("colours.npz")["x_test"]
    for factor in (1, 3):
        Path(f"x{factor}").mkdir()
        for i, image in enumerate(images):
            pixels = image.transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1)
            Image.fromarray(pixels).save(f"x{factor}/{i:02}.png")
        tapetum.predict(run, f"x{factor}", f"x{factor}.csv")
    tapetum.predict(run, "colours.npz", "arrays.csv")
    labels = [[row["label"] for row in table(f"{name}.csv")] for name in ("x1", "x3", "arrays")]
    assert labels[0] == labels[2]
    assert np.mean(np.array(labels[0]) == np.array(labels[1])) > 0.9


def test_images_of_another_size_are_judged_as_they_are_predicted(run):
    given = np.load("colours.npz")
    images, labels = given["x_test"], given["y_test"]
    large = images.repeat(2, axis=2).repeat(2, axis=3)
    large[:, :, 6:14, 6:14] = np.roll(images, 1, axis=0)[:, :, :8, :8]  # the middle alone is of another class
    np.savez("large.npz", x_test=large, y_test=labels)
    tapetum.predict(run, "large.npz", "p.csv")
    right = [int(row["label"]) == labels[int(row["path"])] for row in table("p.csv")]
    assert np.mean(right) > 0.5
    assert 100 * np.mean(right) == pytest.approx(tapetum.evaluate(run, "large.npz").headline.top1)


def test_a_large_image_is_seen_whole_and_not_just_its_middle(run):
    pixels = np.full((60, 60, 3), (250, 60, 60), np.uint8)
    pixels[22:38, 22:38] = (60, 250, 60)
    Image.fromarray(pixels).save("spot.png")
    tapetum.predict(run, "spot.png", "p.csv")
    assert table("p.csv")[0]["label"] == "0"


def test_embeddings_are_those_that_neighbours_are_found_by(run, photos, capsys):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert tapetum.embed(run, photos, "e.npz") == Path("e.npz")
    assert "g.png cannot be read" in capsys.readouterr().err
    found = np.load("e.npz")
    names, rows = found["paths"].tolist(), found["embeddings"]
    assert names == sorted(names)
    assert len(names) == 7
    assert rows.shape == (7, 8)
    assert rows.dtype == np.float32
    assert np.isnan(rows[names.index("g.png")]).all()
    assert np.isfinite(np.delete(rows, names.index("g.png"), 0)).all()
    tapetum.embed(run, photos, "e.parquet")
    columns = pyarrow.read_table("e.parquet").to_pydict()
    assert columns["path"] == names
    np.testing.assert_array_equal(np.array(columns["embedding"], dtype=np.float32), rows)
    tapetum.embed(run, "colours.npz", "pool.npz")
    trained = open_trained_run(run)
    store = trained.parts.data.store
    rows = np.load("pool.npz")["embeddings"]
    assert not np.array_equal(rows[:9], trained.supports.embeddings[:9].numpy())  # the test part, not the pool
    assert len(store) == 60


@pytest.mark.parametrize(
    ("images", "output", "message"),
    [
        ("nowhere", "p.csv", "there is nothing at nowhere"),
        ("empty", "p.csv", "no images in empty"),
        ("colours.npz", "photos", "photos is a folder: give a file"),
        ("colours.npz", "colours.npz/p.csv", "cannot be written"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "embed"])
def test_mistakes_are_one_sentence(run, photos, verb, images, output, message):
    Path("empty").mkdir()
    output = output.replace("p.csv", "p.npz") if verb == "embed" else output
    if verb == "embed" and output == "photos":
        os.rename("photos", "photos.npz")
        output, message = "photos.npz", "photos.npz is a folder: give a file"
    with pytest.raises(ValueError, match=message) as error:
        getattr(tapetum, verb)(run, images, output)
    assert "\n" not in str(error.value)
    assert not list(Path().glob("*.partial*"))


def test_other_mistakes(run):
    with pytest.raises(ValueError, match="neighbours is -1"):
        tapetum.predict(run, "colours.npz", "p.csv", neighbours=-1)
    with pytest.raises(ValueError, match=r"e.txt ends in neither .npz nor .parquet: give --output such as e.npz"):
        tapetum.embed(run, "colours.npz", "e.txt")
    with pytest.raises(ValueError, match="is no run folder"):
        tapetum.predict("colours.npz", "colours.npz", "p.csv")


def test_a_second_process_is_kept_out_of_the_same_table_until_the_first_is_gone(run, photos):
    code = "import sys; from pathlib import Path; from tapetum.system.resumable_file import ResumableFile\n"
    code += "with ResumableFile(Path('p.csv'), 'another') as table: print('begun', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "begun\n"
    with pytest.raises(ValueError, match=rf"p.csv is being written by process {other.pid} on .* since .*: wait until"):
        tapetum.predict(run, "photos", "p.csv")
    other.kill()
    other.communicate()
    tapetum.predict(run, "photos", "p.csv")
    assert sorted(path.name for path in Path().glob("p.csv*")) == ["p.csv", "p.csv.sha256"]
