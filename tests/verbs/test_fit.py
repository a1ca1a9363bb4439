import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tapetum
from tapetum.ops.intervals import wilson
from tapetum.ops.randomness import make_keys, uniform
from tapetum.recipe import from_data, glance
from tapetum.recipe.recipe import load_recipe
from tapetum.verbs.evaluate import evaluate
from tapetum.verbs.fit import fit
from tapetum.verbs.resume import resume

CLASSES = ("ash", "birch", "cedar")
QUICK = ["data.batch_size=8", "support.images_per_class=2", "runtime.threads=1"]


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    """`photos` with 24 images, `labels.csv` with 12 of them, `labelled` with the same ones copied, and `test`."""
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    lines = ["path,label"]
    for number in range(24):
        name, kind = f"{number:02}.png", CLASSES[number % 3]
        save(tmp_path / "photos" / name, number)
        if number < 12:
            lines.append(f"{name},{kind}")
            save(tmp_path / "labelled" / kind / name, number)
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    for number in range(100, 106):
        save(tmp_path / "test" / CLASSES[number % 3] / f"{number}.png", number)
    yield tmp_path
    torch.set_num_threads(threads)


def save(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (uniform(make_keys("image", number), 20 * 24 * 3) * 256).astype(np.uint8).reshape(20, 24, 3)
    Image.fromarray(pixels).save(path)


def quick(**arguments):
    given = {"images": "photos", "labels": "labels.csv", "output": "run", "steps": 2, "overrides": QUICK} | arguments
    return fit(**given)


def test_it_says_what_it_chose_and_trains(capsys):
    summary = quick(test="test")
    said = capsys.readouterr().out
    for choice, reason in (
        ("network        small_net", "images are small: 20 pixels"),
        ("batch          data.batch_size=8", "as you set it"),
        ("length         2 steps", "as you set it"),
        ("supports       support.images_per_class=2", "as you set it"),
        ("support views  strong", "3 labels per class are soon memorised"),
        ("held out       3 labels", "20% of each class with 3 or more"),
    ):
        assert any(line.strip().startswith(choice) and reason in line for line in said.splitlines()), choice
    assert f"Accuracy on test images: {summary['test_top1']:.2f}%" in said
    assert said.splitlines()[-1] == "Next: tapetum report run"
    assert (summary["steps"], summary["num_labels"], summary["num_images"]) == (2, 9, 21)
    assert summary["test"]["soft_neighbours"]["count"] == 6


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ([], "fixmatch"),
        (["method.kind=ropaws"], "ropaws"),
        (["method={kind: ropaws}"], "ropaws"),
        (["method.kind=ropaws", "method.kind=supervised"], "supervised"),
    ],
)
def test_many_labels_choose_fixmatch_unless_another_method_is_named(settings, kind, monkeypatch):
    monkeypatch.setattr(glance, "FEW_UP_TO", 1)
    monkeypatch.setattr(from_data, "FIXMATCH_FROM", 1)
    quick(overrides=[*QUICK, *settings])
    recipe = load_recipe(Path("run/recipe.yaml"))
    assert recipe.method.kind == kind


def test_what_the_user_sets_is_told_and_counts(capsys):
    settings = ["data.batch_size=3", "data.held_out_per_class=1", "data.labels_per_class=3", "trainer.steps=3"]
    summary = quick(steps=None, overrides=[*QUICK, *settings])
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in ("batch data.batch_size=3", "held out data.held_out_per_class=1", "length trainer.steps=3"):
        assert f"{line} as you set it" in said
    assert any("3 labels per class are soon memorised" in line for line in said)
    assert (summary["steps"], summary["num_labels"], summary["heldout"]["soft_neighbours"]["count"]) == (3, 9, 3)


@pytest.mark.parametrize("way", ["init", "frozen"])
def test_nothing_is_told_that_the_weights_decide_otherwise(way, capsys):
    quick(overrides=[*QUICK, "views.mean=[0.1, 0.1, 0.1]"])
    capsys.readouterr()
    length = {"steps": None} if way == "frozen" else {}
    quick(output="next", **{way: "run"}, **length)
    what = [line.split("  ")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert "network" in what
    assert "colours" not in what
    assert ("optimizer" in what, "batch" in what) == ((True, True) if way == "init" else (False, False))


@pytest.mark.parametrize(("scales", "points"), [([1.0], 4), ([1.0, 0.5], 3), ([1.0, 3.0], 1)])
def test_the_curve_has_as_many_points_as_embedding_allows(scales, points, monkeypatch):
    """A view of half the side costs a quarter."""
    monkeypatch.setattr("tapetum.verbs.fit._EMBEDDED", 12 * 4)  # there are 12 labels
    quick(steps=12, overrides=[*QUICK, f"views.evaluation.scales={scales}", "views.evaluation.crop=16"])
    assert load_recipe("run/recipe.yaml").trainer.evaluate_every == 12 / points


def test_a_fifth_of_the_labels_trains_nothing_and_measures(capsys):
    summary = quick()
    assert (summary["num_labels"], summary["num_images"]) == (9, 21)
    judged = summary["heldout"]["soft_neighbours"]
    assert judged["count"] == 3
    assert summary["heldout_top1"] == judged["top1"]
    assert list(summary["heldout_interval"]) == pytest.approx(wilson(round(3 * judged["top1"] / 100), 3))
    said = capsys.readouterr().out
    low, high = summary["heldout_interval"]
    assert f"({'95% interval'} {low:.1f} to {high:.1f}%, from 3 labels)" in said
    assert "held out       3 labels" in said


def test_a_test_folder_changes_no_weight():
    quick()
    quick(output="tested", test="test")
    checkpoint = "checkpoints/step-00000002.safetensors"
    one, other = (load_file(f"{run}/{checkpoint}") for run in ("run", "tested"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_with_too_few_labels_to_spare_it_says_so_and_prints_no_number(capsys):
    summary = quick(labels_per_class=2)
    said = capsys.readouterr()
    assert "no class has the 3 labels needed to hold one out; measuring accuracy needs --test" in said.out
    assert "No accuracy: every label trained the model" in said.out
    assert not re.search(r"[Aa]ccuracy[^\n]*\d+\.\d+%", said.out)
    assert "top1" not in said.err
    assert not [key for key in summary if "top1" in key]
    assert summary["num_labels"] == 6


def test_held_out_labels_come_from_those_asked_for(capsys):
    Path("more.csv").write_text(Path("labels.csv").read_text() + "".join(f"{i}.png,ash\n" for i in range(12, 24)))
    summary = quick(labels="more.csv", labels_per_class=3)
    assert (summary["num_labels"], summary["heldout"]["soft_neighbours"]["count"]) == (6, 3)
    capsys.readouterr()
    Path("few.csv").write_text("00.png,ash\n03.png,ash\n06.png,ash\n01.png,birch\n02.png,cedar\n")
    quick(labels="few.csv", output="few")
    said = capsys.readouterr().out
    assert "held out       1 label " in said
    assert "measure accuracy, but not that of the 2 with fewer" in said
    assert "%, from 1 label)" in said
    summary = quick(labels="more.csv", output="all")  # ash has 16 labels, birch and cedar 4
    assert (summary["num_labels"], summary["heldout"]["soft_neighbours"]["count"]) == (19, 5)


@pytest.mark.parametrize("labels", ["labels.csv", "labelled"])
def test_its_run_can_be_resumed_and_evaluated(labels):
    whole = quick(labels=labels, test="test", labels_per_class=2)
    shutil.rmtree("run/checkpoints")
    again = resume("run")
    assert (again["num_labels"], again["test_top1"]) == (6, whole["test_top1"])
    assert evaluate("run", "test").headline.top1 == whole["test_top1"]


def test_a_folder_of_labels_and_one_of_images_are_one_pool():
    assert quick(labels="labelled")["num_images"] == 24 - 3  # the labelled ones are copies, and three are held out
    recipe = load_recipe("run/recipe.yaml")
    assert (recipe.data.images, recipe.data.labels) == ("photos", "labelled")


def test_class_folders_label_themselves():
    assert quick(images="labelled", labels="labelled")["num_labels"] == 9


@pytest.mark.parametrize("length", [{"epochs": 0.5}, {"minutes": 0.001}])
def test_other_lengths(length):
    summary = quick(steps=None, **length)
    assert load_recipe("run/recipe.yaml").trainer.steps == summary["steps"] >= 1


def test_ten_minutes_where_no_length_is_given(capsys, monkeypatch):
    monkeypatch.setattr(
        "tapetum.verbs.fit.train_since", lambda began, recipe, output: {"minutes": recipe.trainer.minutes}
    )
    assert quick(steps=None) == {"minutes": 10}
    assert "none was given: set minutes, epochs or steps" in capsys.readouterr().out
    # An override is an answer, too.
    assert quick(steps=None, overrides=["trainer.steps=3"]) == {"minutes": None}


def test_images_in_the_pool_may_be_judged_if_their_labels_are_not_used(capsys):
    quick(images="photos", labels="labels.csv", test="test")
    assert "the model sees them" not in capsys.readouterr().err
    shutil.rmtree("run")
    shutil.copytree("test", "photos/test")
    quick(test="photos/test")
    assert "6 test images are in the pool too: the model sees them, though not their labels" in capsys.readouterr().err


def test_damaged_images_are_skipped_and_listed(capsys):
    for path in ("photos/03.png", "photos/20.png", "test/ash/102.png"):
        with open(path, "w") as file:
            file.write("<html>")
    summary = quick(test="test")
    said = capsys.readouterr()
    assert "2 of 24 images cannot be read, such as photos/03.png (cannot identify" in said.err
    assert "1 of 6 images cannot be read, such as test/ash/102.png" in said.err
    # One label of each class is held out of everything.
    judged = [summary[part]["soft_neighbours"]["count"] for part in ("heldout", "test")]
    assert (summary["num_images"], summary["num_labels"], judged) == (22 - 3, 11 - 3, [3, 5])
    with open("run/unreadable.csv") as file:
        assert [line.split(",")[0] for line in file] == ["path", "photos/03.png", "photos/20.png", "test/ash/102.png"]
    with pytest.raises(ValueError, match="2 of 24 images cannot be read"):
        quick(output="strict", strict=True)


def test_arrays_and_lists_in_memory_become_a_run_that_can_be_resumed(tmp_path):
    images = np.stack([np.asarray(Image.open(f"photos/{number:02}.png")) for number in range(24)])
    classes = [CLASSES[number % 3] if number < 12 else "" for number in range(24)]
    test = {"images": images[12:], "labels": [CLASSES[number % 3] for number in range(12, 24)]}
    summary = quick(images=images, labels=classes, test=test)
    judged = [summary[part]["soft_neighbours"]["count"] for part in ("heldout", "test")]
    assert (summary["num_labels"], summary["num_images"], judged) == (12 - 3, 24 - 3, [3, 12])
    shutil.rmtree("run/checkpoints")
    assert resume("run")["test_top1"] == summary["test_top1"]
    paths = [f"photos/{number:02}.png" for number in range(24)]
    for given in ({"images": paths}, {}):
        quick(**given, labels=classes, output=f"listed{len(given)}", labels_percent=50)
        assert load_recipe(f"listed{len(given)}/recipe.yaml").data.labels_percent == 50
    assert resume("listed0")["num_labels"] == 6


def test_photographs_of_any_size_are_read_small_where_there_is_no_gpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for number in range(24):
        with Image.open(f"photos/{number:02}.png") as image:
            image.resize((300 + number, 400 - number)).save(f"photos/{number:02}.jpg")
        Path(f"photos/{number:02}.png").unlink()
    csv = Path("labels.csv").read_text().replace(".png", ".jpg")
    Path("labels.csv").write_text(csv)
    summary = quick(test="test")
    assert "reading        96 pixels" in capsys.readouterr().out
    recipe = load_recipe("run/recipe.yaml")
    assert (recipe.data.shrink_to, recipe.backbone.kind, recipe.views.evaluation.crop) == (96, "small_net", 42)
    shutil.rmtree("run/checkpoints")
    shutil.rmtree("cache")  # decoded anew, the same
    assert resume("run")["heldout"] == summary["heldout"]
    assert tapetum.predict("run", "photos", "predictions.csv")["images"] == 24


def test_images_in_memory_are_for_one_process(monkeypatch):
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (torchrun | {"MASTER_ADDR": "here", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="are in memory, but several processes train: give files or folders"):
        quick(images=np.zeros((24, 20, 24, 3), np.uint8), labels=np.arange(24) % 3)
    assert not os.path.exists("run")


def test_a_refused_run_leaves_room_for_another(tmp_path):
    images = np.zeros((24, 20, 24, 3), np.uint8)
    with pytest.raises(ValueError, match="batch_size"):
        quick(images=images, labels=np.arange(24) % 3, overrides=["data.batch_size=100"])
    assert quick(images=images, labels=np.arange(24) % 3)["steps"] == 2


def test_labels_may_come_with_the_images():
    assert quick(images="labelled", labels=None)["num_labels"] == 12 - 3


@pytest.mark.parametrize("counts,held_out", [((1, 1, 1), 0), ((4, 1, 2), 1)])
def test_one_label_a_class_and_unequal_counts_work(counts, held_out):
    lines = [f"{3 * i + kind:02}.png,{CLASSES[kind]}" for kind, count in enumerate(counts) for i in range(count)]
    with open("few.csv", "w") as file:
        file.write("\n".join(lines))
    summary = quick(labels="few.csv", test="test")
    assert (summary["num_labels"], summary["test"]["soft_neighbours"]["count"]) == (sum(counts) - held_out, 6)


def test_whole_images_leave_no_list():
    quick()
    assert not os.path.exists("run/unreadable.csv")


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"minutes": 1}, r"minutes \(1\) and steps \(2\) are given: give one of minutes, epochs and steps"),
        ({"steps": 0}, "steps is 0: use more than 0"),
        ({"images": "fotos"}, "there is nothing at fotos"),
        ({"labels": "lables.csv"}, "there is no labels file lables.csv"),
        ({"labels": "none"}, "none labels no image"),
        ({"labels": "photos"}, "has no labels|labels no image"),
        ({"labels_per_class": 5}, "class 'ash' has 4 labelled images, fewer than the 5 requested labels per class"),
        ({"labels_per_class": 0}, "labels per class is 0"),
        ({"overrides": ["data.labels_per_class=2.5"]}, r"data.labels_per_class is 2.5: expected a whole number"),
        ({"test": "tests"}, "there is nothing at tests"),
        ({"test": "photos"}, "photos has no labels to evaluate with"),
        (
            {"images": "labelled", "labels": "labelled", "test": "labelled"},
            "12 of its images, such as ash/00.png, have",
        ),
        (
            {"overrides": ["data.batchsize=3"]},
            "data.batchsize .* did you mean 'batch_size'",
        ),
        ({"output": "photos"}, "photos is not empty"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        quick(**arguments)
    assert not os.path.exists("run/recipe.yaml")


def test_it_is_public():
    assert tapetum.fit is fit
