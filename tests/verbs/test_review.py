"""review: which labels it doubts, whose predictions it shows, what its page and tables hold."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from html_page import Page
from PIL import Image

import tapetum
from tapetum.evaluation.label_errors import find_label_errors
from tapetum.runs.second_look import out_of_sample
from tapetum.runs.trained_run import open_trained_run

LEARNS = ["trainer.steps=30", "data.labels_per_class=null", "data.test=null", "data.held_out_per_class=null"]


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def colours(folder: str, count: int = 60, wrong: int = 4) -> dict[str, str]:
    """Images of three colours, two thirds of them labelled, some of these wrongly; returns the true colours."""
    generator, names = np.random.default_rng(0), {}
    Path(folder).mkdir()
    lines = ["path,label"]
    for i in range(count):
        pixels = generator.integers(0, 100, (10, 10, 3))
        pixels[..., i % 3] += 150
        name = f"{i:02}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(Path(folder, name))
        names[name] = "rgb"[i % 3]
        if i < 2 * count // 3:
            lines.append(f"{name},{'rgb'[(i + (i < wrong)) % 3]}")
    Path("labels.csv").write_text("\n".join(lines) + "\n")
    return names


def trained(recipe: Path, *changes: str) -> dict[str, str]:
    names = colours("pool")
    tapetum.train(recipe, "run", [*LEARNS, "data.images=pool", "data.labels=labels.csv", *changes])
    return names


def test_wrong_labels_come_first_with_what_they_should_be(recipe, capsys):
    names = trained(recipe, "method={kind: swav, num_prototypes: [6], freeze_steps: 0}", "data.labels=none")
    lines = Path("run/recipe.yaml").read_text().replace("labels: none", "labels: labels.csv")
    Path("run/recipe.yaml").write_text(lines)
    found = tapetum.review("run", "out")
    rows = table("out/label_errors.csv")
    assert list(rows[0]) == ["path", "label", "suggested", "doubt"]
    assert {row["path"] for row in rows[:4]} == {"00.png", "01.png", "02.png", "03.png"}
    assert all(row["suggested"] == names[row["path"]] != row["label"] for row in rows[:4])
    doubts = [float(row["doubt"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)
    assert (found["labels"], found["label_errors"], found["predictions"]) == (40, len(rows), 20)
    assert found["basis"].endswith("by the other labelled images, with a network that has seen no label.")
    said = capsys.readouterr().out
    assert f"{len(rows)} of 40 labels are probably wrong. Each of 40 labels was predicted by the other" in said
    assert "So many speak against the run" not in said


def test_a_run_that_learned_nothing_is_blamed_rather_than_the_labels(recipe, capsys):
    colours("pool")
    lines = Path("labels.csv").read_text().splitlines()
    mixed = [f"{line.partition(',')[0]},{'rgb'[(i // 3) % 3]}" for i, line in enumerate(lines[1:])]
    Path("labels.csv").write_text("\n".join([lines[0], *mixed]) + "\n")  # labels that say nothing of the colours
    tapetum.train(recipe, "run", [*LEARNS, "data.images=pool", "data.labels=labels.csv", "trainer.steps=1"])
    found = tapetum.review("run", "out")
    assert found["label_errors"] > 10
    assert "So many speak against the run rather than the labels" in capsys.readouterr().out


def test_the_twentieth_of_labels_that_trained_the_network_is_listed_if_it_agrees_with_all(recipe, capsys):
    """It may agree because it has learned mistakes."""
    colours("pool", wrong=0)
    tapetum.train(recipe, "run", [*LEARNS, "data.images=pool", "data.labels=labels.csv"])
    found = tapetum.review("run", "out")
    rows = table("out/label_errors.csv")
    assert (found["label_errors"], found["listed"], len(rows)) == (0, 2, 2)
    assert all(row["suggested"] != row["label"] for row in rows)
    doubts = [float(row["doubt"]) for row in rows]
    sample = out_of_sample(open_trained_run("run"))
    expected = 1 - sample.probabilities.gather(1, sample.labels[:, None])[:, 0]
    np.testing.assert_allclose(doubts, expected.sort(descending=True).values[:2], rtol=1e-5)
    assert "So label_errors.csv goes on, to the 2 labels that are most in doubt." in capsys.readouterr().out
    assert "So the list goes on, to the 2 labels most in doubt." in Page(Path("out/review.html").read_text()).text


def test_the_network_that_has_seen_the_labels_is_told_of(recipe):
    trained(recipe, "trainer.steps=2", "data.held_out_per_class=5")
    basis = tapetum.review("run", "out")["basis"]
    assert "was trained on 25 of the labels and may have learned their mistakes. A run of `tapetum fit" in basis


def test_no_image_takes_part_in_its_own_prediction(recipe):
    trained(recipe, "trainer.steps=2")
    run = open_trained_run("run")
    sample = out_of_sample(run)
    rows = torch.nn.functional.normalize(run.supports.embeddings, dim=1)
    shares = torch.softmax((rows @ rows.T).fill_diagonal_(-torch.inf) / 0.1, dim=1)
    expected = torch.stack([shares[:, run.supports.labels == c].sum(dim=1) for c in range(3)], dim=1)
    np.testing.assert_allclose(sample.probabilities, expected, atol=1e-5)
    assert sample.rows.tolist() == list(range(40))
    assert sample.labels.tolist() == run.supports.labels.tolist()


def test_with_folds_the_runs_that_have_not_seen_a_label_predict_it(recipe):
    colours("pool")
    quick = ["data.batch_size=8", "support.images_per_class=2", "runtime.threads=1"]
    tapetum.fit(images="pool", labels="labels.csv", output="run", steps=8, folds=3, overrides=quick)
    run = open_trained_run("run")
    sample = out_of_sample(run)
    assert sample.basis == "Each of 40 labels was predicted by one of 3 short runs that had not seen it."
    assert sample.rows.tolist() == list(range(40))
    for fold in range(3):
        part = open_trained_run(f"run/folds/{fold + 1}-of-3")
        right = sample.probabilities.argmax(dim=1) == sample.labels
        hits = right[torch.from_numpy(np.isin(sample.rows, part.held_out.labelled))].double().mean()
        judged = part.evaluate(part.parts.data.store, part.held_out)
        assert 100 * float(hits) == pytest.approx(judged.headline.top1)
    errors = find_label_errors(sample.probabilities, sample.labels)
    assert tapetum.review("run", "out")["label_errors"] == len(errors.ranked)
    shutil.rmtree("run/folds/2-of-3")
    assert "by the other labelled images" in out_of_sample(open_trained_run("run")).basis


def test_folds_of_other_labels_do_not_count(recipe):
    colours("pool")
    quick = ["data.batch_size=8", "support.images_per_class=2", "runtime.threads=1"]
    tapetum.fit(images="pool", labels="labels.csv", output="run", steps=4, folds=2, overrides=quick)
    lines = Path("labels.csv").read_text().splitlines()
    Path("labels.csv").write_text("\n".join(lines[:-3]) + "\n")
    assert "by the other labelled images" in out_of_sample(open_trained_run("run")).basis


def test_predictions_are_those_of_predict_least_certain_first(recipe):
    trained(recipe, "trainer.steps=2")
    tapetum.review("run", "out")
    tapetum.predict("run", "pool", "p.csv", neighbours=5)
    rows, of = table("out/predictions.csv"), {row["path"]: row for row in table("p.csv")}
    assert sorted(row["path"] for row in rows) == [f"{i}.png" for i in range(40, 60)]
    sure = [float(row["confidence"]) for row in rows]
    assert sure == sorted(sure)
    for row in rows:
        same = of[row["path"]]
        assert list(row) == list(same)
        assert (row["label"], row["neighbour_1"], row["neighbour_5_label"]) == (
            *(same["label"], same["neighbour_1"], same["neighbour_5_label"]),
        )
        assert float(row["in_domain"]) == pytest.approx(float(same["in_domain"]), abs=1e-4)


def test_images_of_none_of_the_classes_are_answered(recipe):
    trained(recipe, "trainer.steps=2")
    with open("labels.csv", "a") as file:
        file.write("50.png,none of these\n51.png,none of these\n")
    assert tapetum.review("run", "out")["predictions"] == 18
    assert {"50.png", "51.png"}.isdisjoint(row["path"] for row in table("out/predictions.csv"))


def test_copies_with_different_labels_are_listed(recipe):
    trained(recipe, "trainer.steps=2")
    noise = np.random.default_rng(7).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    photograph = Image.fromarray(noise).resize((40, 40), Image.Resampling.BICUBIC)
    photograph.save("pool/10.png")
    photograph.resize((36, 36)).save("pool/11.jpg")
    os.remove("pool/11.png")
    lines = Path("labels.csv").read_text().replace("11.png", "11.jpg").splitlines()
    Path("labels.csv").write_text("\n".join(line for line in lines if line[0] != "0"))  # the first are unlabelled now
    found = tapetum.review("run", "out")
    assert found["conflicts"] == 1
    assert table("out/conflicts.csv") == [
        {"group": "1", "path": "10.png", "label": "g"},
        {"group": "1", "path": "11.jpg", "label": "b"},
    ]
    assert "Copies with different labels" in Page(Path("out/review.html").read_text()).text


def test_the_page_stands_alone_and_escapes_names(recipe):
    Path("pool").mkdir()
    lines = []
    for i in range(24):
        name = f'<script>alert({i})&".png' if i % 2 else f"=HYPERLINK({i}).png"
        noise = np.random.default_rng(i).integers(0, 255, (10, 10, 3)).astype(np.uint8)
        Image.fromarray(noise).save(Path("pool", name))
        quoted = name.replace('"', '""')
        lines += [f'"{quoted}",{"<b>red" if i % 3 else "=blue()"}'] if i < 16 else []
    Path("labels.csv").write_text("\n".join(lines) + "\n")
    changes = ["data.images=pool", "data.labels=labels.csv", "trainer.steps=1", "data.batch_size=8"]
    tapetum.train(recipe, "run", [*LEARNS, *changes])
    tapetum.review("run", "out")
    text = Path("out/review.html").read_text()
    page = Page(text)
    assert {"script", "b", "link", "iframe"}.isdisjoint(page.tags)
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "default-src 'none'" in text
    assert "<script>alert(" in page.text
    for name in ("label_errors.csv", "conflicts.csv", "predictions.csv"):
        for row in table(f"out/{name}"):
            assert not any(value.startswith(("=", "+", "-", "@")) for value in row.values() if value)
    assert {row["path"] for row in table("out/predictions.csv")} >= {"./=HYPERLINK(16).png"}
    assert {row["label"] for row in table("out/predictions.csv")} <= {"'=blue()", "<b>red"}


def test_everything_labelled_leaves_no_predictions(recipe):
    names = colours("pool", count=12, wrong=0)
    Path("labels.csv").write_text("".join(f"{name},{label}\n" for name, label in names.items()))
    changes = ["data.images=pool", "data.labels=labels.csv", "trainer.steps=1", "data.batch_size=8"]
    tapetum.train(recipe, "run", [*LEARNS, *changes])
    assert tapetum.review("run", "out")["predictions"] == 0
    assert table("out/predictions.csv") == []


def test_added_images_are_neighbours(recipe):
    trained(recipe, "trainer.steps=2")
    Path("more").mkdir()
    shutil.copy("pool/45.png", "more/copy.png")
    tapetum.add_class("run", "more", name="violet")
    tapetum.review("run", "out")
    row = next(row for row in table("out/predictions.csv") if row["path"] == "45.png")
    assert (Path(row["neighbour_1"]).name, row["neighbour_1_label"]) == ("copy.png", "violet")


@pytest.mark.parametrize("verb", ["review"])
def test_mistakes(recipe, verb):
    tapetum.train(
        recipe, "run", ["trainer.steps=1", "method={kind: swav, num_prototypes: [6]}", "data.labels=none", *LEARNS[1:]]
    )
    with pytest.raises(ValueError, match="was trained without labels, so it has no classes to predict"):
        tapetum.review("run", "out")
    assert not Path("out").exists()
    with pytest.raises(ValueError, match="run is not empty"):
        tapetum.review("run", "run")
