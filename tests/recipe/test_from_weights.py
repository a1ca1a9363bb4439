"""fit --init and --frozen: what is taken over from runs, files and timm."""

import pytest
import torch

from tapetum.data.sources.open_source import open_source
from tapetum.interchange.weight_files import read_weights
from tapetum.recipe.from_weights import start_from
from tapetum.recipe.recipe import load_recipe
from tapetum.verbs.fit import fit
from tapetum.verbs.train import train

timm = pytest.importorskip("timm")
NAME = "resnet10t.c3_in1k"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)


def fitted(output, overrides=(), **arguments):
    given = {"images": "digits", "labels": None, "labels_per_class": 4} | arguments
    return fit(output=output, overrides=["runtime.threads=1", "data.batch_size=16", *overrides], **given)


def test_a_run_is_taken_as_it_is_or_trained_on(capsys):
    train("paws_digits", "first", ["trainer.steps=2", "data.test=null"])
    frozen = fitted("frozen", frozen="first")
    said = capsys.readouterr().out
    assert "the weights stay as they are" in said
    assert "learning rate" not in said
    first, kept, recipe = read_weights("first"), read_weights("frozen"), load_recipe("frozen/recipe.yaml")
    for name in (n for n in kept if n.startswith("method.backbone")):
        assert torch.equal(kept[name], first[name])
    assert frozen["steps"] == 0
    assert frozen["heldout"]["soft_neighbours"]["count"] == 10
    source = load_recipe("paws_digits")
    assert (recipe.backbone, recipe.views.evaluation) == (source.backbone, source.views.evaluation)
    assert (recipe.views.mean, recipe.views.large.size) == (source.views.mean, source.views.large.size)
    fitted("second", init="first", steps=2)
    recipe = load_recipe("second/recipe.yaml")
    assert (recipe.init, recipe.optimizer.backbone_lr, recipe.method.kind) == ("first", 0.1, "paws")


def test_a_file_needs_the_network_said(tmp_path):
    train("paws_digits", "first", ["trainer.steps=1", "data.test=null"])
    torch.save({n[16:]: t for n, t in read_weights("first").items() if n.startswith("method.backbone.")}, "weights.pth")
    network = ["backbone.stem=16", "backbone.widths=[32, 64, 128]", "backbone.pool=max"]
    assert fitted("run", network, frozen="weights.pth")["steps"] == 0
    with pytest.raises(ValueError, match=r"init: .*weights\.pth.*choose the backbone that these weights belong to"):
        fitted("other", frozen="weights.pth")


def test_timm_says_size_and_colours(monkeypatch):
    asked = []
    create = timm.create_model

    def without_network(name, pretrained, **arguments):
        asked.append((name, pretrained))
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", without_network)
    fitted("run", ["data.pool=false"], frozen=f"timm:{NAME}")
    recipe, config = load_recipe("run/recipe.yaml"), timm.get_pretrained_cfg(NAME)
    assert asked == [(NAME, True)]
    assert (recipe.backbone.kind, recipe.backbone.name, recipe.backbone.pretrained) == ("timm", NAME, True)
    size = config.input_size[-1]
    assert recipe.views.large.size == recipe.views.evaluation.crop == size
    assert recipe.views.evaluation.resize == round(size / config.crop_pct)
    assert open_source("digits").store.channels == 1
    assert recipe.views.mean == (pytest.approx(sum(config.mean) / 3, abs=1e-4),)
    # Once there is a checkpoint, the published weights are not asked for again.
    from tapetum.verbs.evaluate import evaluate

    evaluate("run", "digits")
    assert asked[1:] == [(NAME, False)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18.a1_in2k", r"has no weights for 'resnet18.a1_in2k': the nearest names are .*resnet18"),
        ("zzz", "`timm.list_pretrained\\(\\)` prints all names"),
    ],
)
def test_unknown_weights(name, message):
    with pytest.raises(ValueError, match=message):
        start_from(f"timm:{name}", {"views": {}}, frozen=True)


def test_frozen_weights_are_not_trained():
    with pytest.raises(ValueError, match="frozen is a, so nothing is trained: leave out init, minutes"):
        fitted("run", frozen="a", steps=3)
