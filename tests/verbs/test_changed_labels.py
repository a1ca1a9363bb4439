"""Labels that changed after a training: what may have trained the model is no honest accuracy."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tapetum
from tapetum.runs.review import review
from tapetum.runs.trained_run import open_trained_run

QUICK = ["data.batch_size=8", "support.images_per_class=2", "runtime.threads=1"]


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    """`photos` with 24 images, two thirds of them in `labels.csv`."""
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(f"photos/{number:02}.png")
    write("labels.csv", range(16))


def write(path, numbers, folder=""):
    lines = [f"{folder}{number:02}.png,{'ash' if number % 2 else 'birch'}" for number in numbers]
    Path(path).write_text("\n".join(["path,label", *lines]) + "\n")


def fit(output, **more):
    return tapetum.fit("photos", "labels.csv", output, steps=2, overrides=QUICK, **more)


def test_labels_that_were_taken_out_are_no_test_images(capsys):
    fit("run")
    write("labels.csv", range(8))
    write("test.csv", range(8, 16), "photos/")
    changed = r"8 of its images are in the pool, whose labels have changed since the training"
    with pytest.raises(ValueError, match=changed):
        tapetum.evaluate("run", "test.csv")
    with pytest.raises(ValueError, match=changed):
        fit("second", init="run", test="test.csv")
    shutil.copytree("photos", "others")
    write("others.csv", range(8), "others/")
    write("elsewhere.csv", range(8, 16), "others/")  # these images have never been seen
    assert tapetum.evaluate("run", "elsewhere.csv", images="others", labels="others.csv").soft_neighbours.count == 8
    write("unlabelled.csv", range(16, 24), "photos/")
    write("labels.csv", range(16))  # as they were
    assert tapetum.evaluate("run", "unlabelled.csv").soft_neighbours.count == 8
    assert review(open_trained_run("run")).judged.what == "8 test images"
    write("labels.csv", range(12))
    assert review(open_trained_run("run")).judged is None
    assert "the test images are left out (test is" in capsys.readouterr().err


def test_labels_that_were_added_make_accuracy_after_a_second_training_doubtful(capsys):
    fit("first")
    fit("same", init="first")
    changed = "the labels of first, which this run starts from, have changed since its training"
    assert changed not in capsys.readouterr().err
    write("labels.csv", range(20))
    fit("second", init="first")
    assert changed in capsys.readouterr().err
