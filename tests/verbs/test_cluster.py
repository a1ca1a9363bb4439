"""cluster: what the table and the contact sheets show, by prototypes and by k-means, and what stopping it loses."""

from __future__ import annotations

import csv
import importlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tapetum
from tapetum.data.images.stores import ArrayStore
from tapetum.evaluation.clustering import by_prototypes
from tapetum.reporting.pictures import contact_sheet
from tapetum.runs.trained_run import open_trained_run
from tapetum.system.interruption import Interrupted

PROTOTYPES = {
    "swav": ["method.num_prototypes=[4, 6]", "method.freeze_steps=0", "support=null"],
    "deepcluster": ["method.num_prototypes=[4, 6]", "support=null"],
    "sela": ["method.num_prototypes=[4, 6]", "support=null"],
    "suave": [],
}


def train(recipe: Path, kind: str = "swav") -> Path:
    tapetum.train(recipe, "run", [f"method.kind={kind}", *PROTOTYPES[kind], "trainer.steps=4"])
    return Path("run")


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", PROTOTYPES)
def test_clusters_are_the_first_set_of_prototypes(recipe, kind, capsys):
    run = train(recipe, kind)
    result = tapetum.cluster(run, "colours.npz", "out")
    said = capsys.readouterr().out.splitlines()
    rows = table("out/clusters.csv")
    trained = open_trained_run(run)
    images = torch.from_numpy(np.load("colours.npz")["x_test"])[:, :, 1:9, 1:9].float() / 255  # the middle 8x8 pixels
    method = trained.parts.method.eval()
    with torch.no_grad():
        projections = torch.nn.functional.normalize(method.projector(method.backbone((images - 0.4) / 0.3)), dim=1)
        shares = (projections @ next(method.prototypes.parameters()).T / 0.1).softmax(dim=1)
    assert [int(row["cluster"]) for row in rows] == shares.argmax(dim=1).tolist()
    np.testing.assert_allclose([float(row["confidence"]) for row in rows], shares.amax(dim=1), rtol=1e-3)
    assert result["clusters"] == {int(k): n for k, n in sorted(Counter(row["cluster"] for row in rows).items())}
    assert (result["images"], result["unreadable"], result["by"]) == (30, 0, "prototypes")
    assert sorted(path.stem for path in Path("out/sheets").iterdir()) == [f"{k:04}" for k in result["clusters"]]
    assert said[-1].startswith("Next: tapetum embed run")


def test_clusters_average_over_the_views_that_predictions_average_over(recipe):
    looks = ["method.kind=swav", *PROTOTYPES["swav"], "views.evaluation.mirrored=true"]
    tapetum.train(recipe, "run", [*looks, "views.evaluation.scales=[0.5, 1.0]", "trainer.steps=4"])
    trained = open_trained_run("run")
    embedder, store = trained.parts.embedder, trained.parts.data.store
    ((_, found),) = by_prototypes(embedder, store, np.arange(5), 5)
    ((_, images),) = embedder.stream_images(store, [np.arange(5)])
    with torch.no_grad():
        views = [half for view in (images, small(images)) for half in (view, view.flip(3))]
        logits = torch.stack([embedder.method.eval().cluster(view) for view in views]).mean(dim=0)
    torch.testing.assert_close(found, logits.softmax(dim=1))


def small(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(images, size=(4, 4), mode="bilinear", antialias=True)


def test_kmeans_finds_the_colours(recipe):
    tapetum.train(recipe, "run", ["trainer.steps=30"])
    result = tapetum.cluster("run", "colours.npz", "out", clusters=3)
    clusters = np.array([int(row["cluster"]) for row in table("out/clusters.csv")])
    truth = np.load("colours.npz")["y_test"]
    majority = sum(np.bincount(truth[clusters == k]).max() for k in np.unique(clusters))
    assert majority >= 27
    assert (result["by"], sum(result["clusters"].values())) == ("k-means", 30)
    tapetum.cluster("run", "colours.npz", "again", clusters=3)
    assert Path("again/clusters.csv").read_bytes() == Path("out/clusters.csv").read_bytes()


@pytest.mark.parametrize("clusters", [None, 2])
def test_images_that_cannot_be_read_say_why(recipe, clusters, capsys):
    run = train(recipe)
    Path("photos").mkdir()
    for i, colour in enumerate([(250, 0, 0), (0, 250, 0), (0, 0, 250)]):
        Image.new("RGB", (30, 20), colour).save(f"photos/{i}.png")
    Path("photos/1b.png").write_bytes(b"no picture")
    result = tapetum.cluster(run, "photos", "out", clusters=clusters)
    rows = table("out/clusters.csv")
    assert [row["path"] for row in rows] == ["0.png", "1.png", "1b.png", "2.png"]
    assert [bool(row["cluster"]) for row in rows] == [True, True, False, True]
    assert "1b.png cannot be read" in rows[2]["problem"]
    assert result["unreadable"] == 1
    assert "1 images could not be read" in capsys.readouterr().out


def test_the_surest_images_come_first_on_a_sheet(recipe):
    run = train(recipe)
    tapetum.cluster(run, "colours.npz", "out", clusters=2)
    rows = table("out/clusters.csv")
    members = [i for i, row in enumerate(rows) if row["cluster"] == "0"]
    members.sort(key=lambda i: (-float(rows[i]["confidence"]), i))
    store = ArrayStore(np.load("colours.npz")["x_test"])
    contact_sheet(store, members[:24]).save("expected.jpg", quality=85)
    assert Path("out/sheets/0000.jpg").read_bytes() == Path("expected.jpg").read_bytes()
    assert contact_sheet(store, range(24)).size == (12 * 66, 2 * 66)


@pytest.mark.parametrize("clusters", [None, 3])
def test_an_interrupted_table_goes_on_where_it_was(recipe, monkeypatch, clusters, capsys):
    run = train(recipe)
    monkeypatch.setattr("tapetum.verbs.cluster.BATCH_SIZE", 7)
    tapetum.cluster(run, "colours.npz", "whole", clusters=clusters)
    module = importlib.import_module("tapetum.verbs.cluster")
    written = 0

    class Stopping(module.ResumableFile):
        def append(self, content, counts):
            nonlocal written
            written += 1
            if written == 3:
                raise KeyboardInterrupt
            super().append(content, counts)

    with monkeypatch.context() as patch:
        patch.setattr(module, "ResumableFile", Stopping)
        with pytest.raises(Interrupted, match="Stopped after 14 of 30 images"):
            tapetum.cluster(run, "colours.npz", "out", clusters=clusters)
    assert not Path("out/clusters.csv").exists()
    tapetum.cluster(run, "colours.npz", "out", clusters=clusters)
    assert "14 of 30 images are done already" in capsys.readouterr().err
    assert Path("out/clusters.csv").read_bytes() == Path("whole/clusters.csv").read_bytes()
    assert sorted(path.name for path in Path("out").iterdir()) == ["clusters.csv", "clusters.csv.sha256", "sheets"]


@pytest.mark.parametrize("clusters", [None, 3])
def test_stopped_while_sheets_are_drawn_it_goes_on_there(recipe, monkeypatch, clusters):
    run = train(recipe)
    tapetum.cluster(run, "colours.npz", "whole", clusters=clusters)
    module = importlib.import_module("tapetum.verbs.cluster")

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "contact_sheet", stop)
        with pytest.raises(Interrupted, match="Stopped after 30 of 30 images"):
            tapetum.cluster(run, "colours.npz", "out", clusters=clusters)
    monkeypatch.setattr(module, "_rows", stop)  # no image is embedded again
    tapetum.cluster(run, "colours.npz", "out", clusters=clusters)
    assert Path("out/clusters.csv").read_bytes() == Path("whole/clusters.csv").read_bytes()
    assert sorted(path.name for path in Path("out").iterdir()) == ["clusters.csv", "clusters.csv.sha256", "sheets"]
    for sheet in Path("whole/sheets").iterdir():
        assert Path("out/sheets", sheet.name).read_bytes() == sheet.read_bytes()


def test_mistakes_are_one_sentence(recipe):
    run = train(recipe)
    tapetum.train(recipe, "paws", ["trainer.steps=1"])
    with pytest.raises(ValueError, match="paws has no prototypes: give --clusters K"):
        tapetum.cluster("paws", "colours.npz", "out")
    with pytest.raises(ValueError, match="clusters is 1: use 2 or more"):
        tapetum.cluster(run, "colours.npz", "out", clusters=1)
    Path("pool").mkdir()
    with pytest.raises(ValueError, match="pool/out/sheets lies among the images of pool"):
        tapetum.cluster(run, "pool", "pool/out", clusters=3)
    with pytest.raises(ValueError, match="clusters is 31, but 30 images can be read"):
        tapetum.cluster(run, "colours.npz", "out", clusters=31)
    tapetum.cluster(run, "colours.npz", "out", clusters=3)
    with pytest.raises(ValueError, match="out/sheets exists already"):
        tapetum.cluster(run, "colours.npz", "out", clusters=3)
