"""Evaluate a run anew, and what evaluate and resume refuse alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_files import CHECKPOINTS, assert_same_weights, rows, sentence
from safetensors.torch import save_file

import tapetum
from tapetum.data.sources.open_source import open_source
from tapetum.evaluation.accuracy import accuracy, embed_supports
from tapetum.evaluation.linear_probe import linear_probe
from tapetum.evaluation.soft_neighbours import classify_by_neighbours
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.recipe.recipe import load_recipe
from tapetum.runs.test_set import open_test
from tapetum.runs.trained_run import open_trained_run


def test_evaluate_adds_to_the_summary(run, capsys):
    before = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({k: v for k, v in before.items() if not k.startswith("test")}))
    capsys.readouterr()
    evaluation = tapetum.evaluate(run, "colours.npz")
    after = json.loads((run / "summary.json").read_text())
    assert after == before  # the same images, so the very same figures
    assert evaluation.soft_neighbours.top1 == before["test"]["soft_neighbours"]["top1"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"Soft nearest neighbours: top-1 {evaluation.soft_neighbours.top1:.2f}%, top-5 100.00% of 30 images"
    )
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert lines[4].startswith("The method's own classifier: top-1 ")
    assert lines[-1].startswith("Next: tapetum report ")


@pytest.mark.parametrize("test", ["colours.npz", None])
def test_without_a_choice_the_recipes_test_images_or_the_held_out_labels_are_judged(recipe, test, capsys):
    tapetum.train(recipe, "run", [f"data.test={test or 'null'}"])
    before = json.loads(Path("run/summary.json").read_text())
    capsys.readouterr()
    evaluation = tapetum.evaluate("run", protocol="knn")
    assert evaluation.as_dict() == before["heldout" if test is None else "test"]
    assert ("the labels that the run held out" in capsys.readouterr().out) == (test is None)
    assert json.loads(Path("run/summary.json").read_text()) == before


def test_nothing_to_judge_is_one_sentence(recipe):
    tapetum.train(recipe, "run", ["data.test=null", "data.held_out_per_class=null"])
    with pytest.raises(ValueError, match=r"names no test images, and no label counts as held out: give .* --test DIR"):
        tapetum.evaluate("run")
    with pytest.raises(ValueError, match=r"no label would be held out: give .* --test DIR"):
        tapetum.evaluate("run", protocol="finetune")
    assert not Path("run/evaluations").exists()


def pictures(folder: str, count: int) -> None:
    for i, colour in enumerate(["red", "green"] * count):
        Path(folder, colour).mkdir(parents=True, exist_ok=True)
        light = (250 - i, i, 0) if colour == "red" else (i, 250 - i, 0)
        Image.new("RGB", (10, 10), light).save(f"{folder}/{colour}/{i}.png")


def test_labels_that_changed_after_training_judge_nothing(recipe):
    """Another draw of what is held out would hold labels that have trained the model."""
    pictures("pool", 12)
    tapetum.train(recipe, "run", ["data.images=pool", "data.test=null", "data.held_out_per_class=6", "trainer.steps=2"])
    assert tapetum.evaluate("run").soft_neighbours.count == 12
    pictures("pool", 20)
    with pytest.raises(ValueError, match="no label counts as held out"):
        tapetum.evaluate("run")


def test_no_accuracy_on_labels_that_trained_whatever_leads_to_their_files(recipe):
    pictures("pool", 12)
    pictures("others", 3)
    Path("again").symlink_to("pool")
    Path("some.csv").write_text("path,label\npool/red/0.png,red\npool/green/1.png,green\n")
    settings = ["data.images=pool", "data.labels_per_class=12", "data.held_out_per_class=null", "trainer.steps=2"]
    for test in ("again", "some.csv"):
        with pytest.raises(ValueError, match=r"of its images, such as .*, have labels that train|images trained on"):
            tapetum.train(recipe, "run", [*settings, f"data.test={test}"])
        assert not Path("run").exists()
    tapetum.train(recipe, "run", [*settings, "data.test=others"])
    with pytest.raises(ValueError, match=r"test is some.csv, but 2 of its images, such as .*, have labels that train"):
        tapetum.evaluate("run", "some.csv")
    for protocol in ("knn", "finetune", "suncet"):  # other labels now, but these images have trained the run
        with pytest.raises(ValueError, match=r"test is some.csv, but 2 of its images, such as"):
            tapetum.evaluate("run", "some.csv", protocol=protocol, images="others", labels_per_class=2)


def test_evaluate_by_nearest_neighbours(run, capsys):
    capsys.readouterr()
    evaluation = tapetum.evaluate(run, "colours.npz", protocol="knn")
    lines = capsys.readouterr().out.splitlines()
    top1 = [evaluation.nearest_neighbours[count].top1 for count in (20, 200)]
    assert lines[0] == f"20 nearest neighbours: top-1 {top1[0]:.2f}%, top-5 100.00% of 30 images"
    assert lines[4] == f"200 nearest neighbours: top-1 {top1[1]:.2f}%, top-5 100.00% of 30 images"
    found = json.loads((run / "summary.json").read_text())["test"]["nearest_neighbours"]
    assert [found[count]["top1"] for count in ("20", "200")] == top1
    assert rows(run)[-1]["eval/knn_top1"]
    with pytest.raises(ValueError, match="protocol is 'lines': choose one of soft_nn, knn, linear"):
        tapetum.evaluate(run, "colours.npz", protocol="lines")


def test_evaluate_by_a_linear_probe(run, capsys):
    trained = open_trained_run(run)
    data = trained.parts.data
    tests = open_source("colours.npz", split="test")
    backbone = replace(trained.parts.embedder, features="backbone")
    embeddings = [
        backbone.outputs(store, labels.labelled).embeddings
        for store, labels in ((data.store, data.labels), (tests.store, tests.labels))
    ]
    known = torch.from_numpy(data.labels.values[data.labels.labelled])
    probe, regularisation = linear_probe(embeddings[0], known, 3)
    right = 100 * (probe.logits(embeddings[1]).argmax(dim=1).numpy() == tests.labels.values).mean()
    capsys.readouterr()
    evaluation = tapetum.evaluate(run, "colours.npz", protocol="linear")
    assert (evaluation.linear.top1, evaluation.linear_regularisation) == (pytest.approx(right), regularisation)
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith(f"Linear probe (lambda {regularisation:g}, by cross-validation): top-1 {right:.2f}%, top-5")
    assert json.loads((run / "summary.json").read_text())["test"]["linear"]["top1"] == evaluation.linear.top1
    assert "linear" not in tapetum.evaluate(run, "colours.npz").as_dict()


def test_evaluate_on_a_folder_per_class(run):
    images = open_source("colours.npz", split="test")
    for i, image in enumerate(images.store.read(np.arange(6))):
        folder = Path("photos") / str(images.labels.values[i])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy().transpose(1, 2, 0)).save(folder / f"{i}.png")
    evaluation = tapetum.evaluate(run, "photos")
    assert evaluation.soft_neighbours.count == 6
    assert json.loads((run / "summary.json").read_text())["test_images"] == "photos"


def test_evaluating_an_unfinished_run_leaves_no_summary(run):
    (run / "checkpoints" / CHECKPOINTS[1]).unlink()
    (run / "summary.json").unlink()
    assert tapetum.evaluate(run, "colours.npz").soft_neighbours.count == 30
    assert not (run / "summary.json").exists()


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_what_is_no_run_is_said(recipe, verb):
    Path("mine").mkdir()
    for folder in ("mine", "nowhere"):
        with pytest.raises(ValueError, match=f"^{folder} is no run folder") as error:
            call(verb, folder)
        sentence(error)


def call(verb: str, run: str | Path) -> object:
    return tapetum.resume(run) if verb == "resume" else tapetum.evaluate(run, "colours.npz")


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_truncated_checkpoints(run, verb, capsys):
    last, first = (run / "checkpoints" / name for name in reversed(CHECKPOINTS))
    whole = shutil.copytree(run, "whole")
    last.write_bytes(last.read_bytes()[:-100])
    call(verb, run)  # the one before it is taken instead
    assert "is cut short" in capsys.readouterr().err
    if verb == "resume":
        assert_same_weights(run, whole)
    for path in (first, last):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"No checkpoint in .* can be read: start the run again") as error:
        call(verb, run)
    assert str(last.parent) in sentence(error)


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_foreign_checkpoints(run, verb):
    for name in CHECKPOINTS:
        save_file({"weight": torch.zeros(2)}, run / "checkpoints" / name)
    with pytest.raises(ValueError, match="was not written by Tapetum") as error:
        call(verb, run)
    sentence(error)


def test_a_checkpoint_of_another_model(run):
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("output: 8", "output: 9"))
    with pytest.raises(ValueError, match=r"is of another model than its recipe.yaml describes") as error:
        tapetum.evaluate(run, "colours.npz")
    sentence(error)
    with pytest.raises(ValueError, match="output: was 8, is 9"):
        tapetum.resume(run)
    with pytest.raises(ValueError, match="does not fit this PAWS"):
        tapetum.resume(run, inexact=True)


def test_a_damaged_test_part_is_not_replaced_by_the_training_part(run):
    """Otherwise the accuracy on the images trained on would be reported as that on new ones."""
    for part in ("train", "test"):
        Path("photos", part, "0").mkdir(parents=True)
    for i, (image, label) in enumerate(zip(*(dict(np.load("colours.npz"))[k] for k in ("x_train", "y_train")))):
        folder = Path("photos/train", str(label))
        folder.mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i}.png")
    with pytest.raises(ValueError, match="no images in photos/test"):
        tapetum.evaluate(run, "photos")


def backbone_of(run: Path) -> str:
    """The run's backbone alone, as a file."""
    weights = {k.removeprefix("method."): v for k, v in read_weights(run).items() if k.startswith("method.backbone")}
    save_file(weights, "backbone.safetensors")
    return "backbone.safetensors"


def test_evaluate_a_file_by_images_of_ones_own(run, capsys):
    """Its network is recognised; neighbours are those of the backbone's features."""
    recipe = load_recipe(run / "recipe.yaml", ["data.held_out_per_class=null", "method={kind: frozen}"])
    frozen = tapetum.train(replace(recipe, init=backbone_of(run), trainer=replace(recipe.trainer, steps=0)), "frozen")
    sizes = {"images": "colours.npz", "labels_per_class": 3, "overrides": []}
    found = tapetum.evaluate("backbone.safetensors", "colours.npz", **sizes)
    assert found.soft_neighbours.count == frozen["test"]["soft_neighbours"]["count"]
    assert "backbone.safetensors" in capsys.readouterr().out.splitlines()[-1]
    assert tapetum.evaluate("backbone.safetensors", images="colours.npz").soft_neighbours.count == 12
    with pytest.raises(ValueError, match="is no run, which would know its images: give images"):
        tapetum.evaluate("backbone.safetensors", "colours.npz")
    with pytest.raises(ValueError, match=r"finetune trains, and back.* is no run to keep the result in: give --output"):
        tapetum.evaluate("backbone.safetensors", "colours.npz", protocol="finetune", images="colours.npz")


def test_draws_of_labels_are_spread(run, capsys):
    before = (run / "summary.json").read_text()
    capsys.readouterr()
    found = tapetum.evaluate(run, "colours.npz", draws=3, labels_per_class=2)
    top1 = [evaluation.soft_neighbours.top1 for evaluation in found]
    said = capsys.readouterr().out.splitlines()[0]
    mean, deviation = np.mean(top1), np.std(top1, ddof=1)
    assert said.startswith(
        f"Soft nearest neighbours: top-1 {mean:.2f}% +- {deviation:.2f} over 3 draws ({top1[0]:.2f} "
    )
    one = tapetum.evaluate(run, "colours.npz", labels_per_class=2)  # the recipe's own draw is the first
    assert one.soft_neighbours == found[0].soft_neighbours
    assert (run / "summary.json").read_text() == before
    with pytest.raises(ValueError, match="draws is 1: use 2 or more"):
        tapetum.evaluate(run, "colours.npz", draws=1)


def test_features_temperature_and_top_k(run):
    trained = open_trained_run(run)
    before = (run / "summary.json").read_text()
    found = tapetum.evaluate(run, "colours.npz", features="backbone", temperature=0.5, top_k=2)
    backbone = replace(trained.parts.embedder, features="backbone")
    supports = embed_supports(backbone, trained.parts.data.store, trained.labels)
    store, labels = open_test("colours.npz", trained.classes)
    queries = backbone.outputs(store, labels.labelled).embeddings
    probabilities = classify_by_neighbours(queries, supports.embeddings, supports.labels, 3, 0.5, 2)
    truth = torch.from_numpy(labels.values[labels.labelled])
    assert found.soft_neighbours == accuracy(probabilities, truth, trained.classes)
    assert (run / "summary.json").read_text() == before
    for given, message in [
        ({"features": "head"}, "features is 'head': choose one of own, backbone, predictor"),
        ({"features": "predictor"}, "features is predictor, which this method does not have"),
        ({"temperature": 0.0}, "temperature is 0.0: use a number above 0"),
        ({"overrides": ["seed=1"]}, "soft_nn trains nothing: leave out output and seed=1"),
    ]:
        with pytest.raises(ValueError, match=message):
            tapetum.evaluate(run, "colours.npz", **given)


@pytest.mark.parametrize("protocol", ["finetune", "linear_crops", "suncet"])
def test_protocols_that_train_go_on_where_they_were(run, protocol, capsys):
    settings = ["trainer.steps=3", "trainer.checkpoint_every=1"]
    found = tapetum.evaluate(run, "colours.npz", protocol=protocol, overrides=settings)
    folder = run / "evaluations" / protocol
    whole = read_weights(folder)
    assert found.headline is (found.soft_neighbours if protocol == "suncet" else found.classifier)
    (folder / "checkpoints" / "step-00000003.safetensors").unlink()
    assert tapetum.evaluate(run, "colours.npz", protocol=protocol).as_dict() == found.as_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in read_weights(folder).items())
    own = read_weights(run)
    names = [name for name in whole if name.startswith("method.backbone")]
    same = [torch.equal(whole[name], own[name]) for name in names]
    assert all(same) if protocol == "linear_crops" else not all(same)
    if protocol == "suncet":
        assert all(torch.equal(whole[name], own[name]) for name in names if "running" in name)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"labels_per_class": 3}, "labels_per_class"),
        ({"test": "others.npz"}, "test"),
        ({"overrides": ["trainer.steps=2"]}, "trainer.steps=2"),
    ],
)
def test_an_evaluation_that_trains_is_not_taken_for_another(run, words, named):
    settings = {"test": "colours.npz", "labels_per_class": 4, "overrides": ["trainer.steps=1"]}
    found = tapetum.evaluate(run, protocol="suncet", **settings)
    assert tapetum.evaluate(run, protocol="suncet", **settings).as_dict() == found.as_dict()
    with pytest.raises(ValueError, match=rf"holds an evaluation with other settings than {named}: give --output RUN"):
        tapetum.evaluate(run, protocol="suncet", **{**settings, **words})


def test_as_many_labels_as_were_asked_for_support_predictions(recipe):
    pictures("pool", 12)
    data = ["data.images=pool", "data.test=null", "data.held_out_per_class=null", "data.held_out_share=0.25"]
    tapetum.train(recipe, "run", [*data, "data.labels_per_class=null", "trainer.steps=2"])
    assert open_trained_run("run").labels.counts.tolist() == [9, 9]
    given = {"labels_per_class": 4, "label_seed": 0}
    assert open_trained_run("run", data=given).labels.counts.tolist() == [4, 4]
    pictures("others", 5)
    assert open_trained_run("run", data={"images": "others"}).labels.counts.tolist() == [5, 5]
    shutil.move("pool", "moved")
    moved = open_trained_run("run", data={"images": "moved"})
    assert (moved.labels.counts.tolist(), moved.held_out.counts.tolist()) == ([9, 9], [3, 3])


def test_settings_of_neighbours_are_for_neighbours(run):
    with pytest.raises(ValueError, match="temperature and top_k are for soft_nn, not for knn"):
        tapetum.evaluate(run, "colours.npz", protocol="knn", top_k=5)


def test_a_protocol_that_trains_is_spread_over_seeds(run, capsys):
    capsys.readouterr()
    settings = ["trainer.steps=1"]
    found = tapetum.evaluate(run, "colours.npz", protocol="finetune", draws=2, labels_per_class=4, overrides=settings)
    assert len(found) == 2
    seeds = [load_recipe(run / "evaluations" / f"finetune_{draw}" / "recipe.yaml") for draw in range(2)]
    assert [(r.seed, r.data.label_seed, r.data.labels_per_class) for r in seeds] == [(0, 0, 4), (1, 1, 4)]
    assert "The classifier: top-1 " in capsys.readouterr().out


@pytest.mark.parametrize("more", ["renamed", "another"])
@pytest.mark.parametrize("kind", ["supervised", "paws"])
def test_a_classifier_gives_no_class_the_name_of_another(recipe, kind, more):
    pictures("pool", 12)
    changes = ["data.images=pool", "data.test=null", "data.held_out_per_class=null", f"method.kind={kind}"]
    tapetum.train(recipe, "run", [*changes, "trainer.steps=2"])
    pictures("tests", 3)
    if more == "renamed":  # so that the first class becomes the second
        shutil.move("pool/red", "pool/auburn")
        shutil.move("tests/red", "tests/auburn")
    else:
        Path("pool/blue").mkdir()
        for i in range(3):
            Image.new("RGB", (10, 10), (0, i, 250)).save(f"pool/blue/{i}.png")
    if kind == "paws":  # its neighbours know the names that they have now
        found = tapetum.evaluate("run", "tests")
        assert found.classifier is None
        assert found.soft_neighbours.top1 == 100
    else:
        with pytest.raises(
            ValueError, match=r"for the classes green, red, but the labels now name (auburn|blue), gr"
        ) as e:
            tapetum.predict("run", "tests", "p.csv")
        sentence(e)
        tapetum.embed("run", "tests", "features.npz")  # asks for no names


def test_an_unlabelled_image_more_leaves_the_held_out_labels(recipe):
    pictures("pool", 12)
    lines = [f"{path},{path.parent.name}" for path in sorted(Path("pool").glob("*/*.png"))]
    Path("labels.csv").write_text("\n".join(lines))
    data = ["data.images=pool", "data.labels=labels.csv", "data.test=null", "data.held_out_per_class=4"]
    tapetum.train(recipe, "run", [*data, "trainer.steps=2"])
    before = tapetum.evaluate("run")
    Image.new("RGB", (10, 10)).save("pool/green/0000.png")
    assert tapetum.evaluate("run").as_dict() == before.as_dict()
    Path("labels.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="no label counts as held out"):
        tapetum.evaluate("run")
