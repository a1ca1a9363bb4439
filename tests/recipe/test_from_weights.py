"""fit --init and --frozen: what is taken over from runs, files and timm."""

from dataclasses import asdict

import pytest
import torch

from tapetum.data.sources.open_source import open_source
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.nn.backbones import ResNetConfig, SmallNetConfig, TimmConfig, WideResNetConfig
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
    assert recipe.method.head is None
    fitted("second", init="first", steps=2)
    recipe = load_recipe("second/recipe.yaml")
    assert (recipe.init, recipe.optimizer.backbone_lr, recipe.method.kind) == ("first", 0.1, "paws")


def test_a_file_is_of_a_network_that_is_recognised(capsys):
    train("paws_digits", "first", ["trainer.steps=1", "data.test=null"])
    torch.save({n[16:]: t for n, t in read_weights("first").items() if n.startswith("method.backbone.")}, "weights.pth")
    assert fitted("run", ["backbone.pool=max"], frozen="weights.pth")["steps"] == 0
    assert "recognised by the tensors of the file" in capsys.readouterr().out
    assert load_recipe("run/recipe.yaml").backbone == load_recipe("first/recipe.yaml").backbone
    # What the user says of the network wins.
    with pytest.raises(ValueError, match=r"init: .*weights\.pth.*choose the backbone that these weights belong to"):
        fitted("other", ["backbone.kind=small_net"], frozen="weights.pth")
    torch.save({"a": torch.ones(1)}, "odd.pth")
    with pytest.raises(ValueError, match=r"^odd\.pth: no network that is recognised has these tensors \(a, \.\.\.\)"):
        fitted("odd", init="odd.pth")


SECTIONS = {
    "backbone": {"kind": "small_net"},
    "views": {"large": {"size": 28}, "small": {"size": 14}, "mean": [0.3], "std": [0.2], "evaluation": {"crop": 28}},
    "optimizer": {"lr": {}},
}
COLOURED = SECTIONS | {"views": SECTIONS["views"] | {"mean": [0.3] * 3, "std": [0.2] * 3}}
VIT = TimmConfig(name="vit_small_patch8_224", options={"dynamic_img_size": True})


@pytest.mark.parametrize("config", [ResNetConfig(depth=50, width=2, stem="imagenet"), VIT])
def test_networks_for_photographs_say_size_and_colours(config):
    sections, choices = start_from("a.pth", COLOURED, frozen=False, network=(config, 3))
    assert sections["backbone"] == asdict(config)
    assert (sections["init"], sections["optimizer"]["backbone_lr"]) == ("a.pth", 0.1)
    views = sections["views"]
    assert (views["large"]["size"], views["small"], views["evaluation"]) == (224, None, {"crop": 224, "resize": 256})
    assert (views["mean"], views["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert [choice.what for choice in choices] == ["network", "views", "backbone", "optimizer"]
    assert choices[0].value == (VIT.name if config == VIT else "resnet 50, 2 times as wide")
    grey, _ = start_from("a.pth", SECTIONS, frozen=True, network=(config, 3))
    assert (grey["views"]["mean"], grey["views"]["std"]) == ([0.449], [0.226])


@pytest.mark.parametrize("config", [ResNetConfig(depth=18, stem="small"), WideResNetConfig(), SmallNetConfig()])
def test_networks_for_small_images_leave_views_as_they_were_chosen(config):
    sections, choices = start_from("a.pth", COLOURED, frozen=True, network=(config, 3))
    assert (sections["backbone"], sections["views"]) == (asdict(config), COLOURED["views"])
    assert [choice.what for choice in choices] == ["network", "training"]


@pytest.mark.parametrize("shrink_to", [96, None])
def test_images_are_read_as_the_run_reads_them(tmp_path, monkeypatch, shrink_to):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "run").mkdir()
    settings = f"extends: paws_digits\ndata: {{shrink_to: {shrink_to or 'null'}}}\n"
    (tmp_path / "run" / "recipe.yaml").write_text(settings)
    chosen = COLOURED | {"data": {"workers": 2, "shrink_to": None}}
    sections, choices = start_from("run", chosen, frozen=True)
    assert sections["data"] == {"workers": 0 if shrink_to else 2, "shrink_to": shrink_to}
    assert [choice.value for choice in choices if choice.what == "reading"] == (["96 pixels"] if shrink_to else [])
    assert chosen["data"]["shrink_to"] is None


def test_images_have_the_channels_of_the_network():
    message = r"a\.pth is of a network for images of 1 channels, but these have 3: give images, or weights"
    with pytest.raises(ValueError, match=message):
        start_from("a.pth", COLOURED, frozen=True, network=(SmallNetConfig(), 1))


@pytest.mark.slow
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
