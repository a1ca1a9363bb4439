"""A class added to a trained run: what knows it from then on, what is refused, and what is not claimed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import tapetum
from tapetum.engine import checked_tensors
from tapetum.evaluation import calibration
from tapetum.evaluation.prediction import Supports, predict_from
from tapetum.reporting.cards import Cards
from tapetum.runs.added_classes import added_labels, picture_of
from tapetum.runs.new_images import open_new_images
from tapetum.runs.review import review
from tapetum.runs.test_set import open_test
from tapetum.runs.trained_run import open_trained_run
from tapetum.verbs import add_class as verb

YELLOW, GREEN = (0, 1), (1,)


def draw(folder: str, bright: tuple[int, ...], count: int = 4, seed: int = 5, size: int = 10) -> Path:
    """Noisy images whose `bright` channels are bright; the pool's classes 0, 1 and 2 have one such channel each."""
    Path(folder).mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 120, (count, size, size, 3))
    pixels[..., bright] += 130
    for i, image in enumerate(pixels.astype(np.uint8)):
        Image.fromarray(image).save(f"{folder}/{i}.png")
    return Path(folder)


def draw_test(folder: str, **others: tuple[int, ...]) -> None:
    """Test images of the pool's three classes, and of others."""
    for seed, (name, bright) in enumerate({"0": (0,), "1": (1,), "2": (2,), **others}.items()):
        draw(f"{folder}/{name}", bright, 3, seed=100 + seed)


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(recipe: Path) -> Path:
    tapetum.train(recipe, "run")
    return Path("run")


def test_a_new_class_joins_the_supports_wherever_its_name_sorts(run, capsys):
    before = open_trained_run(run)
    capsys.readouterr()
    result = tapetum.add_class(run, draw("photos/#heron", YELLOW))
    assert (result["class"], result["is_new"], result["classes"]) == ("#heron", True, ("#heron", "0", "1", "2"))
    assert (result["added"], result["known"], result["unreadable"]) == (4, 0, 0)
    assert added_labels(run) == ["#heron"]
    said = capsys.readouterr().out
    assert "Added 4 images to the new class #heron, without training.\n" in said
    assert "Classes now (4): #heron, 0, 1, 2\n" in said
    assert "No accuracy for #heron is known: measure it by tapetum evaluate run --test DIR" in said
    assert "Confidences no longer count as calibrated, because no label of #heron was held out." in said
    assert "predicted too rarely" not in said
    assert said.splitlines()[-1] == "Next: tapetum predict run DIR --output predictions.csv"
    tapetum.embed(run, "photos", "e.npz")
    with np.load("e.npz") as written:
        added = torch.from_numpy(written["embeddings"])
    embeddings = torch.cat([before.supports.embeddings, added])
    labels = torch.cat([before.supports.labels + 1, torch.zeros(4, dtype=torch.int64)])
    trained = open_trained_run(run)
    torch.testing.assert_close(trained.supports.embeddings, embeddings)
    assert torch.equal(trained.supports.labels, labels)
    assert trained.support_names[-4:] == tuple(f"photos/#heron/{i}.png" for i in range(4))
    tapetum.predict(run, "colours.npz", "p.csv", neighbours=100)
    data = before.parts.data
    outputs = before.parts.embedder.outputs(open_new_images("colours.npz", None), np.arange(30))
    expected = predict_from(outputs, Supports(embeddings, labels, 4), "soft_neighbours", 100)
    for row, scores, indices in zip(table("p.csv"), expected.scores, expected.neighbours.tolist(), strict=True):
        assert row["label"] == trained.classes[int(scores.argmax())]
        assert row["calibrated"] == "no"
        names = [row[f"neighbour_{i}"] for i in range(1, 26)]
        assert names[0] == trained.support_names[indices[0]]
        classes = dict(zip(names, (row[f"neighbour_{i}_label"] for i in range(1, 26))))
        assert {name for name, label in classes.items() if label == "#heron"} == set(trained.support_names[-4:])
        truth = {n: str(data.labels.values[int(n)]) for n in names if n.isdigit() and data.labels.values[int(n)] >= 0}
        assert truth.items() <= classes.items()


def test_it_is_evaluated_with_the_others(run, capsys):
    tapetum.add_class(run, draw("heron", YELLOW, 20))
    draw_test("test", heron=YELLOW)
    with pytest.raises(
        ValueError, match=r"images were added to run, and of these only .* own features .* the backbone"
    ):
        tapetum.evaluate(run, "test", protocol="linear")
    for protocol in ("soft_nn", "knn", "linear"):
        evaluation = tapetum.evaluate(run, "test", protocol=protocol, features="own")
        assert evaluation.soft_neighbours.count == 12
        assert set(evaluation.soft_neighbours.per_class) == {"0", "1", "2", "heron"}
        assert evaluation.classifier is None  # it does not know the class
    assert evaluation.nearest_neighbours[20].count == 12
    assert evaluation.linear.per_class["heron"] > 50
    trained = open_trained_run(run)
    test, labels = open_test("test", trained.classes)
    outputs = trained.parts.embedder.outputs(test, labels.labelled)
    found = predict_from(outputs, trained.training_supports, "soft_neighbours", 1).labels.numpy()
    assert len(trained.training_supports.labels) == 9 + 20
    assert evaluation.soft_neighbours.top1 == pytest.approx(100 * np.mean(found == labels.values))
    Path("test/1").rename("test/crow")
    with pytest.raises(ValueError, match="class 'crow' is not among the 4 classes"):
        tapetum.evaluate(run, "test")


def test_added_images_are_no_test_images(run, capsys):
    tapetum.add_class(run, draw("heron", YELLOW))
    draw_test("test", heron=YELLOW)
    assert tapetum.evaluate(run, "test").headline.count == 12
    shutil.copy("heron/2.png", "test/heron/copy.png")
    with pytest.raises(ValueError, match=r"test is test, but 1 of its images, such as heron/copy.png, were added .*"):
        tapetum.evaluate(run, "test")
    assert review(open_trained_run(run)).judged.what == "12 held-out labels"
    assert "the test images are left out (test is test, but 1 of its images" in capsys.readouterr().err


def test_the_report_shows_added_images_among_the_causes(run):
    tapetum.add_class(run, draw("heron", YELLOW))
    shutil.rmtree("heron")  # the run keeps small pictures
    seen = review(open_trained_run(run))
    assert seen.classes == ("0", "1", "2", "heron")
    assert seen.settings["Added after training"] == "heron (4)"
    rows = np.flatnonzero((seen.sample.neighbours >= 60).any(axis=1))
    assert len(rows)
    causes = [cause for card in Cards(seen).of(seen.sample, rows) for cause in card.causes]
    added = {cause.name: cause for cause in causes if cause.label == "heron"}
    assert set(added) <= {f"heron/{i}.png" for i in range(4)}
    assert all(cause.name.isdigit() for cause in causes if cause.label != "heron")
    views = open_trained_run(run).added[0].pictures
    assert views.shape == (4, 3, 8, 8)
    name, cause = next(iter(added.items()))
    own = Cards(seen)._added.of(int(name[6]))
    assert cause.picture == own
    assert "heron" in tapetum.report(run).read_text()


def test_blanks_and_other_accents_make_no_other_class(run):
    composed, decomposed = unicodedata.normalize("NFC", "K\u00e4fer"), unicodedata.normalize("NFD", "K\u00e4fer")
    assert tapetum.add_class(run, draw("photos/a", YELLOW), f" {decomposed} ")["class"] == composed
    result = tapetum.add_class(run, draw("photos/b", YELLOW, seed=6), decomposed)
    assert (result["class"], result["is_new"]) == (composed, False)
    result = tapetum.add_class(run, draw("photos/c", (1,), seed=7), "1 ")
    assert (result["class"], result["is_new"]) == ("1", False)
    assert result["classes"] == ("0", "1", "2", composed)


def test_repeats_and_labelled_images_are_not_added_again(run, capsys):
    images = np.load("colours.npz")
    trained = open_trained_run(run)
    training, held_out = trained.parts.data.labels, trained.parts.data.held_out
    draw("more", GREEN, 2)
    for labels in (training, held_out):  # images of the pool that count as labelled
        index = int(np.flatnonzero(labels.values == 1)[0])
        Image.fromarray(images["x_train"][index].transpose(1, 2, 0)).save(f"more/pool{index}.png")
    shutil.copy("more/0.png", "more/again.png")
    capsys.readouterr()
    result = tapetum.add_class(run, "more", "1")
    assert (result["is_new"], result["added"], result["known"]) == (False, 2, 3)
    assert result["classes"] == ("0", "1", "2")
    said = capsys.readouterr().out
    assert "Added 2 images to the class 1, without" in said
    assert "3 images were labelled 1 already, or are given twice: they count once." in said
    assert "Accuracies measured so far are those without these images" in said
    file = Path("run/added_classes/1.safetensors")
    before = file.read_bytes()
    assert tapetum.add_class(run, "more", "1")["added"] == 0
    assert file.read_bytes() == before
    assert tapetum.add_class(run, draw("others", GREEN, 3, seed=6), "1")["added"] == 3
    (added,) = open_trained_run(run).added
    assert added.names == ("more/0.png", "more/1.png", "others/0.png", "others/1.png", "others/2.png")
    assert len(open_trained_run(run).supports.labels) == 21 + 5


def test_an_image_is_of_one_class(run):
    draw("heron", YELLOW)
    tapetum.add_class(run, "heron")
    with pytest.raises(ValueError, match=r"^heron/0.png is labelled heron in run already, so it is no example of crow"):
        tapetum.add_class(run, "heron", "crow")
    index = int(np.flatnonzero(open_trained_run(run).parts.data.held_out.values == 2)[0])
    Image.fromarray(np.load("colours.npz")["x_train"][index].transpose(1, 2, 0)).save("heron/pool.png")
    with pytest.raises(ValueError, match=r"^heron/pool.png is labelled 2 in run already"):
        tapetum.add_class(run, "heron")
    assert os.listdir("run/added_classes") == ["heron.safetensors"]
    assert len(open_trained_run(run).added[0]) == 4


def test_a_failure_leaves_what_was_there(run, monkeypatch):
    tapetum.add_class(run, draw("heron", YELLOW, 2))
    before = Path("run/added_classes/heron.safetensors").read_bytes()
    draw("heron/more", YELLOW, 3, seed=6)

    def broken(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checked_tensors, "save_file", broken)
    for name in ("heron", "crow"):
        folder = "heron" if name == "heron" else draw("crow", YELLOW, seed=7)
        with pytest.raises(KeyboardInterrupt):
            tapetum.add_class(run, folder, name)
    assert os.listdir("run/added_classes") == ["heron.safetensors"]
    assert Path("run/added_classes/heron.safetensors").read_bytes() == before


def test_confidences_are_called_calibrated_only_for_classes_that_were_held_out(run, monkeypatch, capsys):
    monkeypatch.setattr(calibration, "MIN_LABELS", 12)
    tapetum.add_class(run, draw("more", GREEN), "1")
    assert tapetum.predict(run, "colours.npz", "p.csv")["calibrated"]
    tapetum.add_class(run, draw("heron", YELLOW, seed=6))
    result = tapetum.predict(run, "colours.npz", "p.csv")
    assert (result["calibrated"], result["held_out"]) == (False, 12)
    assert result["temperature"] != 1
    assert "NOT calibrated: no label of the added heron was held out. They only rank" in capsys.readouterr().out


def test_a_class_with_few_images_is_outvoted_and_the_command_says_so(recipe, capsys):
    tapetum.train(recipe, "run", ["trainer.steps=1", "data.labels_per_class=10"])
    tapetum.add_class("run", draw("heron", YELLOW, 3))
    assert "heron has 3 labelled images, and half of the classes have 14 or more" in capsys.readouterr().out
    tapetum.add_class("run", draw("herons", YELLOW, 4, seed=6), "heron")
    assert "predicted too rarely" not in capsys.readouterr().out


def test_images_embedded_by_other_weights_are_refused(recipe, run):
    tapetum.add_class(run, draw("heron", YELLOW))
    tapetum.train(recipe, "other", ["seed=1", "trainer.steps=2"])
    shutil.copytree("run/added_classes", "other/added_classes")
    for act in (lambda: tapetum.predict("other", "colours.npz", "p.csv"), lambda: tapetum.add_class("other", "heron")):
        with pytest.raises(ValueError, match=r"heron.safetensors holds images of heron that other weights .*: delete"):
            act()
    file = Path("run/added_classes/heron.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"heron.safetensors is cut short.* delete it. Then add the class again"):
        tapetum.predict(run, "colours.npz", "p.csv")
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    with pytest.raises(ValueError, match=r"heron.safetensors .*bits of it have changed"):
        tapetum.predict(run, "colours.npz", "p.csv")
    save_file(
        {"embeddings": torch.zeros(1), "pictures": torch.zeros(1)}, file, {"tapetum": '{"format": 2, "class": ""}'}
    )
    with pytest.raises(ValueError, match="has format 2, newer than this Tapetum's 1"):
        tapetum.predict(run, "colours.npz", "p.csv")


def test_an_unfinished_run_says_that_the_class_will_not_last(run, capsys):
    Path("run/checkpoints/step-00000006.safetensors").unlink()
    tapetum.add_class(run, draw("heron", YELLOW))
    assert "The run has not finished: once it has been continued" in capsys.readouterr().out
    tapetum.resume(run)
    with pytest.raises(ValueError, match="other weights embedded, before the run was continued"):
        tapetum.evaluate(run)


def test_an_interrupted_table_is_not_continued_with_another_class(run):
    before = open_trained_run(run).digest
    tapetum.add_class(run, draw("heron", YELLOW))
    assert open_trained_run(run).digest != before


def test_a_classifier_is_refused(recipe):
    tapetum.train(recipe, "run", ["method={kind: supervised}", "trainer.steps=1"])
    with pytest.raises(
        ValueError, match=r"^run predicts by a classifier, which knows only the classes .*--init run`\.$"
    ):
        tapetum.add_class("run", draw("heron", YELLOW))


def test_a_run_without_labels_becomes_a_classifier(recipe, capsys):
    np.save("images.npy", np.load("colours.npz")["x_train"])
    text = recipe.read_text().replace("supervised_weight: 0.5, ", "").replace("support: {images_per_class: 2}\n", "")
    recipe.write_text(text)
    changes = ["method.kind=swav", "method.num_prototypes=[6]", "data.test=null", "data.labels_per_class=null"]
    tapetum.train(recipe, "run", [*changes, "data.held_out_per_class=null", "data.images=images.npy"])
    capsys.readouterr()
    tapetum.add_class("run", draw("yellow", YELLOW))
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "Next: tapetum add-class run DIR"
    assert "calibrated" not in said
    with pytest.raises(ValueError, match="run has one class, yellow, and there is nothing to choose between: add"):
        tapetum.predict("run", "yellow", "p.csv")
    assert tapetum.add_class("run", draw("blue", (2,)))["classes"] == ("blue", "yellow")
    assert sum(tapetum.predict("run", "colours.npz", "p.csv")["labels"].values()) == 30
    draw("test/yellow", YELLOW, seed=8)
    draw("test/blue", (2,), seed=8)
    assert tapetum.evaluate("run", "test").headline.count == 8
    assert "blue (4), yellow (4)" in tapetum.report("run").read_text()


def test_unreadable_images_are_left_out(run, capsys):
    draw("heron", YELLOW, 2)
    Path("heron/broken.png").write_bytes(b"no picture")
    result = tapetum.add_class(run, "heron")
    assert (result["added"], result["unreadable"]) == (2, 1)
    said = capsys.readouterr()
    assert "1 images could not be read, and were left out." in said.out
    assert "left out: " in said.err
    assert "broken.png cannot be read" in said.err


@pytest.mark.parametrize(
    ("folder", "name", "message"),
    [
        ("nowhere", None, "nowhere is no folder: give the folder that holds"),
        ("colours.npz", None, "colours.npz is no folder"),
        ("empty", None, "there are no images in empty"),
        ("broken", None, "none of the 1 images in broken can be read"),
        ("empty", " ", "name is ' ', which cannot be a class: give --name NAME"),
        ("empty", "none of these", "name is 'none of these', which cannot be a class"),
        ("empty", "a\x1b[2J", r"name is .a\\x1b\[2J., which cannot be a class"),
    ],
)
def test_mistakes_are_one_sentence(run, folder, name, message):
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=message) as error:
        tapetum.add_class(run, folder, name)
    assert "\n" not in str(error.value)
    assert not Path("run/added_classes").exists()


def test_names_that_no_file_could_have(run):
    strange = os.fsdecode(b"\xff")
    for seed, name in enumerate(("a/b", "..", strange)):
        tapetum.add_class(run, draw(f"photos/{seed}{strange}", YELLOW, 1, seed=seed), name)
    assert {images.label for images in open_trained_run(run).added} == {"a/b", "..", strange}
    assert len(os.listdir("run/added_classes")) == 3
    tapetum.predict(run, "colours.npz", "p.json", neighbours=100, json=True)
    line = json.loads(Path("p.json").read_text().splitlines()[0])
    assert {"a/b", "..", strange} <= {neighbour["label"] for neighbour in line["neighbours"]}


def test_photographs_of_another_size_are_resized_as_for_predictions(run):
    tapetum.add_class(run, draw("large", YELLOW, 3, size=40), "heron")
    tapetum.embed(run, "large", "e.npz")
    np.testing.assert_allclose(open_trained_run(run).added[0].embeddings, np.load("e.npz")["embeddings"], rtol=1e-4)


def test_pictures_are_small():
    views = torch.arange(224 * 224 * 3, dtype=torch.int32).remainder(256).to(torch.uint8).view(1, 3, 224, 224)
    assert picture_of(views).shape == (1, 3, 96, 96)
    assert picture_of(views[..., :60, :60]).shape == (1, 3, 60, 60)


def test_the_module_is_found_under_the_name_of_the_verb():
    assert tapetum.add_class is verb.add_class
