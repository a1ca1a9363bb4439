"""plot and report: what they show of a run, what they leave out, and that a page needs nothing but itself."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from html_page import Page
from PIL import Image

import tapetum
from tapetum.runs import review as run_review
from tapetum.runs.review import review
from tapetum.runs.trained_run import open_trained_run

SECTIONS = ["training", "accuracy", "confidence", "map", "hardest", "least-certain", "settings"]


@pytest.fixture
def run(recipe: Path) -> Path:
    tapetum.train(recipe, "run", ["trainer.steps=2"])
    return Path("run")


def page(run: Path | str, **arguments) -> tuple[str, Page]:
    text = tapetum.report(run, **arguments).read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_stands_alone(run, capsys):
    text, found = page(run)
    assert [i for i in found.ids if not re.fullmatch(r"c\d+-\d+", i)] == SECTIONS
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert {"script", "link", "iframe", "object"}.isdisjoint(found.tags)
    assert all(source.startswith("data:image/") for source in found.sources)
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert len(found.sources) > 20
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith("Written to run/report.html, 0.")
    assert said[-1] == "Next: tapetum predict run DIR --output predictions.csv"


def test_the_page_says_what_the_evaluation_found(run):
    summary = tapetum.runs.run_folder.read_summary(run)
    seen = review(open_trained_run(run))
    assert seen.judged.what == "30 test images"
    assert seen.judged.top1 == pytest.approx(summary["test_top1"])
    assert seen.judged.confusion(3).sum() == 30
    text = page(run)[1].text
    low, high = seen.judged.interval
    assert f"{seen.judged.top1:.1f}%of 30 test images; 95% interval {low:.1f} to {high:.1f}%" in text
    assert summary["command"] in text
    assert "labels_per_class: 3" in text  # the recipe
    assert "NOT calibrated: the run held out 12 labels" in text


def test_without_test_images_the_held_out_labels_judge(recipe):
    summary = tapetum.train(recipe, "run", ["trainer.steps=2", "data.test=null"])
    seen = review(open_trained_run("run"))
    assert seen.judged.what == "12 held-out labels"
    held_out = summary["heldout"]["soft_neighbours"]["top1"]
    assert seen.judged.top1 == pytest.approx(held_out)  # with the training labels alone as supports
    trained = open_trained_run("run")
    assert set(seen.judged.predicted.neighbours.ravel()) <= set(trained.parts.data.labels.labelled)


def test_labels_that_trained_the_model_are_no_accuracy(recipe, capsys):
    tapetum.train(recipe, "run", ["trainer.steps=2", "data.test=null", "data.held_out_per_class=null"])
    found = page("run")[1]
    assert "no label counts as held out, and there are no test images" in found.text
    assert "hardest" not in found.ids
    assert not re.search(r"\d% *of|\d% right|predicted rightly", found.text)
    files = tapetum.plot("run")
    assert {path.stem for path in files} == {"loss", "map_pca"}
    assert "No accuracy is shown, because no label counts as held out" in capsys.readouterr().out


def test_test_images_that_are_gone_are_left_out(run, capsys):
    images = dict(np.load("colours.npz"))
    np.savez("colours.npz", x_train=images["x_train"], y_train=images["y_train"])
    assert review(open_trained_run(run)).judged.what == "12 held-out labels"
    assert "the test images are left out" in capsys.readouterr().err


def test_test_images_whose_labels_train_the_model_by_now_are_left_out(run, capsys, monkeypatch):
    def refuse(opened, used, tests, test, as_trained):
        assert as_trained
        assert used.num_classes == tests.labels.num_classes
        raise ValueError("27 of its images have labels that train the model")

    monkeypatch.setattr("tapetum.runs.review.check_unseen", refuse)
    assert review(open_trained_run(run)).judged.what == "12 held-out labels"
    assert "the test images are left out (27 of its images" in capsys.readouterr().err


def test_a_classifiers_neighbours_are_not_called_causes(recipe):
    tapetum.train(recipe, "run", ["method={kind: supervised}", "trainer.steps=2"])
    text = page("run")[1].text
    assert "The classifier decided" in text
    assert "weigh most" not in text


def test_names_are_escaped_and_photographs_shrunk(recipe, run):
    plain = run.rename("plain")
    for kind in ("<b>red", 'gre"en & co'):
        Path("pool", kind).mkdir(parents=True)
        for i in range(8):
            noise = np.random.default_rng(i).integers(0, 255, (300, 400, 3)).astype(np.uint8)
            Image.fromarray(noise).save(Path("pool", kind, f'<i>" on={i}.jpg'))
    changes = ["data.images=pool", "data.test=null", "trainer.steps=1", "views.evaluation.resize=8"]
    tapetum.train(recipe, "run", changes)
    text, found = page("run", output="out/deep/page.html")
    assert found.attributes <= page(plain)[1].attributes
    assert {"b", "i"} & found.tags == {"i"}  # the keys of colours
    assert "<b>red" in found.text
    assert 'gre"en & co' in found.text
    assert len(text) < 600_000


@pytest.mark.parametrize("num_classes", [12, 25])
def test_many_classes(recipe, num_classes):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (200, 3, 10, 10)).astype(np.uint8)
    labels = np.arange(200) % num_classes
    np.savez("colours.npz", x_train=images, y_train=labels, x_test=images[:50] // 2, y_test=labels[:50])
    tapetum.train(recipe, "run", ["trainer.steps=1", "data.held_out_per_class=1"])
    found = page("run")[1]
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert ("The most frequent confusions." in found.text) == (num_classes == 25)
    assert "colours repeat" in found.text


def test_pages_and_pictures_are_the_same_every_time(run):
    pytest.importorskip("matplotlib")
    first = page(run)[0], [path.read_bytes() for path in tapetum.plot(run)]
    assert first == (page(run)[0], [path.read_bytes() for path in tapetum.plot(run)])


def test_the_pictures(run, capsys):
    pytest.importorskip("matplotlib")
    files = tapetum.plot(run, "out")
    names = ("loss", "accuracy", "map_pca", "confusion", "reliability")
    assert files == [Path(f"out/{name}.{suffix}") for name in names for suffix in ("png", "svg")]
    for path in files:
        if path.suffix == ".png":
            assert Image.open(path).size == (1125, 750)
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert capsys.readouterr().out.splitlines()[-1] == "Next: tapetum report run"


def test_names_of_classes_are_drawn_as_they_are(recipe):
    """Neither as formulas, nor left out because they begin with an underscore."""
    mpl = pytest.importorskip("matplotlib")
    labels = np.array(["_none_", "a$x_$", "b^{$"])[np.load("colours.npz")["y_train"]]
    for i, (image, name) in enumerate(zip(np.load("colours.npz")["x_train"], labels)):
        Path("pool", name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(f"pool/{name}/{i}.png")
    tapetum.train(recipe, "run", ["data.images=pool", "data.test=null", "trainer.steps=2"])
    with mpl.rc_context({"svg.fonttype": "none"}):
        files = tapetum.plot("run")
    (drawn,) = (path.read_text() for path in files if path.name == "map_pca.svg")
    assert all(f">{name}<" in drawn for name in ("_none_", "a$x_$", "b^{$"))


def test_the_sample_is_bounded_and_keeps_labelled_images(run, monkeypatch):
    monkeypatch.setattr(run_review, "SAMPLE", 20)
    monkeypatch.setattr(run_review, "_LABELLED", 5)
    seen = review(open_trained_run(run))
    assert len(set(seen.sample.rows.tolist())) == len(seen.sample) == 20
    assert (seen.sample.truth >= 0).sum() == 5
    assert np.array_equal(seen.sample.truth, seen.pool_labels[seen.sample.rows])


@pytest.mark.parametrize(
    ("verb", "output", "message"),
    [
        ("report", "run", "run is a folder: give a file in it"),
        ("report", "colours.npz/page.html", "cannot be written"),
        ("plot", "colours.npz", "cannot be written"),
    ],
)
def test_mistakes_are_one_sentence(run, verb, output, message):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=message) as error:
        getattr(tapetum, verb)(run, output)
    assert "\n" not in str(error.value)


def test_packages_that_are_missing_are_named(run, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(ValueError, match=r"umap-learn is not installed: pip install 'tapetum\[umap\]'"):
        tapetum.plot(run, umap=True)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"matplotlib is not installed: pip install 'tapetum\[plots\]'"):
        tapetum.plot(run)
