"""suggest: which images stand in the table and on the sheet: from a run, from weights, after a training, by chance."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tapetum
from tapetum.nn.small_net import SmallNet, SmallNetConfig

COLOURS = ((230, 30, 30), (30, 230, 30), (30, 30, 230))


def table(path="to_label.csv"):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def paths(path="to_label.csv"):
    return [row["path"] for row in table(path)]


def photos(count=24, folder="photos"):
    """Noisy pictures of three colours, no two alike: 0.png is red, 1.png green, 2.png blue, and so on."""
    generator = np.random.default_rng(3)
    Path(folder).mkdir()
    for number in range(count):
        pixels = np.array(COLOURS[number % 3]) + generator.integers(-25, 25, (16, 16, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(f"{folder}/{number}.png")
    return Path(folder)


def labels(lines, path="labels.csv"):
    Path(path).write_text("".join(f"{line}\n" for line in ("path,label", *lines)))
    return path


def test_a_runs_own_images_are_suggested_but_no_labelled_one(run, capsys):
    capsys.readouterr()
    result = tapetum.suggest(run, 8, "to_label.csv")
    summary = json.loads((run / "summary.json").read_text())
    assert result == {
        "by": "doubt",
        "suggested": 8,
        "labelled": summary["num_labels"] + 12,  # four of each class are held out
        "left_out": 0,
        "embedding": f"the embedding of {run}",
    }
    names = paths()
    assert len(set(names)) == 8
    assert all(0 <= int(name) < 60 for name in names)
    done = labels([f"{name},x{i % 2}" for i, name in enumerate(names)])
    tapetum.suggest(run, 52, "rest.csv", labels=done)
    assert sorted(paths("rest.csv") + names, key=int) == [str(i) for i in range(60)]
    assert Image.open("to_label.jpg").size == (8 * 66, 66)
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith("Suggested 8 images by doubt, knowing 21 labels, in the embedding of ")
    assert first.endswith("The table is to_label.csv, and to_label.jpg shows them.")
    assert second.startswith("Next, once they are labelled: tapetum fit")


def test_the_first_suggestions_are_one_of_each_colour(recipe):
    tapetum.train(recipe, "run", ["trainer.steps=30"])
    tapetum.suggest("run", 3, "to_label.csv", labels="none")
    truth = np.load("colours.npz")["y_train"]
    assert sorted(truth[[int(name) for name in paths()]]) == [0, 1, 2]


def test_the_same_call_writes_the_same_bytes(run):
    for name in ("one", "other"):
        tapetum.suggest(run, 9, f"{name}.csv", by="badge")
    assert Path("one.csv").read_bytes() == Path("other.csv").read_bytes()
    assert Path("one.jpg").read_bytes() == Path("other.jpg").read_bytes()


def by_a_csv(recipe, name, *settings):
    """Train on labels in a file; returns ten of its lines."""
    classes = np.load("colours.npz")["y_train"]
    lines = [f"{image},{'rgb'[classes[image]]}" for image in range(60)]
    own = ("data.labels=own.csv", "data.test=null", "trainer.steps=1", "trainer.checkpoint_every=1")
    labels(lines, "own.csv")
    tapetum.train(recipe, name, [*own, *settings])
    return lines[:10]


def test_labels_take_the_place_of_those_that_a_run_had(recipe):
    lines = by_a_csv(recipe, "run")
    labels(lines, "own2.csv")
    before = tapetum.suggest("run", 5, "before.csv", labels="own2.csv")
    Path("own.csv").unlink()
    assert tapetum.suggest("run", 5, "after.csv", labels="own2.csv") == before
    assert Path("after.csv").read_bytes() == Path("before.csv").read_bytes()
    with pytest.raises(ValueError, match=r"labels that run was trained on are gone, and --labels none cannot take"):
        tapetum.suggest("run", 5, "none.csv", labels="none")
    Path("colours.npz").rename("moved.npz")
    with pytest.raises(ValueError, match=r"^the images of run are not at colours.npz"):
        tapetum.suggest("run", 5, "moved.csv", labels="own2.csv")
    assert tapetum.suggest("run", 5, "moved.csv", labels="own2.csv", images="moved.npz") == before


def test_a_run_that_needs_no_labels_takes_any_in_place_of_its_own(recipe):
    swav = "method={kind: swav, num_prototypes: [4], head: {hidden: 8, output: 4, layers: 2}}"
    lines = by_a_csv(recipe, "run", swav)
    Path("own.csv").unlink()
    for given, known in ((labels([], "new.csv"), 0), (labels(lines[:1], "one.csv"), 1), ("none", 0)):
        assert tapetum.suggest("run", 5, "to_label.csv", labels=given)["labelled"] == known


def test_what_was_added_to_a_run_counts_as_labelled(run):
    before = tapetum.suggest(run, 3, "a.csv")["labelled"]
    photos(6)
    tapetum.add_class(run, "photos", "photo")
    after = tapetum.suggest(run, 100, "b.csv", by="doubt")
    assert (after["labelled"], after["suggested"]) == (before + 6, 60 - before)
    assert all(name.isdigit() for name in paths("b.csv"))
    assert any("photo (" in row["reason"] for row in table("b.csv"))


@pytest.mark.usefixtures("one_thread")
def test_images_are_compared_by_the_weights_of_a_run(run):
    photos()
    result = tapetum.suggest("photos", 3, "to_label.csv", frozen=run)
    assert (result["by"], result["labelled"], result["embedding"]) == ("typiclust", 0, f"the embedding of {run}")
    assert sorted(int(name.partition(".")[0]) % 3 for name in paths()) == [0, 1, 2]


def test_images_are_compared_by_a_file_of_weights(recipe, monkeypatch):
    photos()
    torch.manual_seed(0)
    network = SmallNet(SmallNetConfig(stem=8, widths=(8, 8)), in_channels=3)
    torch.save(network.state_dict(), "weights.pt")
    result = tapetum.suggest("photos", 3, "to_label.csv", frozen="weights.pt")
    assert result["embedding"] == "the embedding of weights.pt"
    assert len(paths()) == 3


def test_a_network_is_trained_first_and_used_again(recipe, capsys):
    photos()
    result = tapetum.suggest("photos", 4, "to_label.csv", minutes=0.02)
    assert result["embedding"] == "the embedding of to_label_run"
    summary = Path("to_label_run/summary.json").read_bytes()
    assert json.loads(summary)["method"] == "simclr"
    assert json.loads(summary)["num_labels"] == 0
    names = paths()
    tapetum.suggest("photos", 4, "to_label.csv", minutes=0.02, labels=labels([f"{n},x" for n in names]))
    assert Path("to_label_run/summary.json").read_bytes() == summary  # not trained again
    assert not set(names) & set(paths())
    shutil.copytree("photos", "others")
    with pytest.raises(ValueError, match="to_label_run is a run on photos, not on others: give another --output"):
        tapetum.suggest("others", 4, "to_label.csv", minutes=0.02)


def test_without_a_network_images_are_drawn_and_it_says_so(recipe, capsys):
    photos()
    result = tapetum.suggest("photos", 5, "to_label.csv")
    assert result["by"] == "random"
    assert {row["reason"] for row in table()} == {"at random"}
    assert "without any network" in capsys.readouterr().out
    tapetum.suggest("photos", 5, "other.csv", seed=1)
    assert paths("other.csv") != paths()


def test_near_copies_count_once_and_those_of_labelled_images_never(recipe):
    photos(12)
    image = Image.open("photos/3.png").resize((64, 64), Image.Resampling.NEAREST)
    for name in ("3a", "3b"):
        image.save(f"photos/{name}.jpg", quality=90)
    shutil.copy("photos/5.png", "photos/5a.png")
    result = tapetum.suggest("photos", 100, "to_label.csv")
    assert (result["suggested"], result["left_out"]) == (12, 3)
    assert set(paths()) == {f"{i}.png" for i in range(12)}
    result = tapetum.suggest("photos", 100, "to_label.csv", labels=labels(["3b.jpg,a", "5a.png,b"]))
    assert set(paths()) == {f"{i}.png" for i in range(12)} - {"3.png", "5.png"}
    assert (result["suggested"], result["labelled"], result["left_out"]) == (10, 2, 3)


@pytest.mark.parametrize(("lines", "known"), [([], 0), (["0.png,a"], 1), (["0.png,a", "1.png,a", "2.png,b"], 3)])
def test_a_label_file_may_be_at_its_beginning(recipe, lines, known):
    photos(6)
    assert tapetum.suggest("photos", 9, "to_label.csv", labels=labels(lines))["labelled"] == known
    assert len(paths()) == 6 - known
    Path("empty.csv").write_text("")
    assert tapetum.suggest("photos", 9, "to_label.csv", labels="empty.csv")["labelled"] == 0


def test_labels_of_a_folder_are_those_of_its_class_folders(recipe):
    photos(9, "all")
    for number in range(9):
        folder = Path("photos", "" if number > 5 else ("red", "green")[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(f"all/{number}.png", folder)
    assert tapetum.suggest("photos", 9, "to_label.csv")["labelled"] == 6
    assert sorted(paths()) == ["6.png", "7.png", "8.png"]
    assert tapetum.suggest("photos", 9, "to_label.csv", labels="none")["suggested"] == 9


def test_unreadable_images_are_not_suggested(recipe, capsys):
    photos(6)
    Path("photos/4.png").write_bytes(b"no picture")
    tapetum.suggest("photos", 9, "to_label.csv")
    assert set(paths()) == {"0.png", "1.png", "2.png", "3.png", "5.png"}
    assert "4.png" in capsys.readouterr().err


def test_names_are_written_as_they_are(recipe):
    names = ['=1+1".png', "<script>,\n.png", "\U0001f431.png", "\udcff.png"]
    photos(4)
    for number, name in enumerate(names):
        Path(f"photos/{number}.png").rename(f"photos/{name}")
    tapetum.suggest("photos", 9, "to_label.csv")
    assert sorted(paths()) == sorted(["." + '/=1+1".png', *names[1:]])  # as no formula


def test_the_sheet_shows_the_first_images_in_their_order(recipe):
    photos(14)
    tapetum.suggest("photos", 14, "to_label.csv")
    sheet = Image.open("to_label.jpg")
    assert sheet.size == (12 * 66, 2 * 66)
    for place, name in enumerate(paths()):
        middle = sheet.getpixel((place % 12 * 66 + 32, place // 12 * 66 + 32))
        assert np.argmax(middle) == int(name.partition(".")[0]) % 3


def test_fewer_are_suggested_if_fewer_are_left(recipe, capsys):
    photos(6)
    tapetum.suggest("photos", 10, "to_label.csv")
    assert "Suggested 6 images (of 10 asked for: no more are left)" in capsys.readouterr().out
    every = labels([f"{i}.png,{'ab'[i % 2]}" for i in range(6)])
    with pytest.raises(ValueError, match="every image of photos is labelled or a copy of one that is"):
        tapetum.suggest("photos", 10, "to_label.csv", labels=every)


def test_mistakes_are_one_sentence_and_write_nothing(run):
    photos(6)
    Path("photo.jpg").write_bytes(b"a picture")
    for arguments, message in (
        ({"count": 0}, "count is 0: suggest 1 image or more"),
        ({"output": "x.txt"}, "x.txt does not end in .csv: give --output such as x.csv"),
        ({"minutes": 0.0}, "minutes is 0: use more than 0"),
        ({"minutes": 1.0, "frozen": "w.pt"}, "frozen is w.pt and minutes is 1: train anew or use weights"),
        ({"pool": run, "frozen": "w.pt"}, "is a run, which embeds its images itself, but frozen is w.pt"),
        ({"pool": run, "minutes": 2.0}, "is a run, which embeds its images itself, but minutes is 2"),
        ({"pool": "nowhere"}, "nothing at nowhere: check the path"),
        ({"by": "best"}, "by is 'best': choose one of typiclust"),
        ({"by": "margin"}, "by is margin, which needs labels of two classes or more"),
        ({"labels": "no.csv"}, "no labels file no.csv"),
        ({"labels": labels(["9.png,a"])}, "labels.csv, line 2: there is no image '9.png'"),
        ({"labels": labels(["1.png,a", "1.png,b"], "two.csv")}, "two.csv, line 3: '1.png' is labelled 'b', but 'a'"),
        ({"labels": labels(["1.png"], "one.csv")}, "one.csv, line 2: '1.png' is not path,label"),
        ({"frozen": "nothing.pt"}, "nothing.pt"),
        ({"output": labels(["1.png,a"], "mine.csv")}, "mine.csv exists already: give another --output, or delete it"),
        ({"output": "photo.csv"}, "photo.jpg exists already"),
        ({"output": "photos/out.csv"}, "photos/out.csv lies among the images of photos, which its pictures would join"),
    ):
        given = {"pool": "photos", "count": 3, "output": "out.csv", **arguments}
        with pytest.raises(ValueError, match=message) as error:
            tapetum.suggest(**given)
        assert "\n" not in str(error.value)
    assert not any(Path(".").glob("out*"))
    assert Path("mine.csv").read_text().endswith("1.png,a\n")
    tapetum.suggest("photos", 1, "out.csv", "none")
    tapetum.suggest("photos", 2, "out.csv", "none")  # in place of the first
    assert len(Path("out.csv").read_text().splitlines()) == 3
