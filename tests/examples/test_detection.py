"""The detectors of examples/detection train on eight drawn images, from a backbone that Tapetum trained."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import tapetum
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.recipe.recipe import load_recipe

pytest.importorskip("pycocotools", reason="measures detections: pip install 'tapetum[detection]'")
pytest.importorskip("transformers", reason="has DETR: pip install 'tapetum[detection]'")

RUN = """
extends: supervised_digits
backbone: {kind: resnet, depth: 20, stem: imagenet}
data: {images: colours.npz, test: null, labels_per_class: null, held_out_per_class: null}
views: {mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4]}
support: {images_per_class: 2}
trainer: {steps: 1}
"""
SMALL = """
detector: %s
backbone: {weights: %s, depth: 20, stem: imagenet}
data: {train_images: %s, train_annotations: %s, test_images: %s, test_annotations: %s, short_edges: [64]}
optimizer: {kind: sgd, lr: 0.01, backbone_lr: 0.001}
trainer: {steps: 3, batch_size: 4, log_every: 1, save_every: 2, device: cpu}
"""
DETECTORS = {
    "faster_rcnn": "{kind: faster_rcnn, channels: 8, hidden: 8, anchor_sizes: [8, 16, 32, 64], proposals: 20}",
    "detr": "{kind: detr, num_queries: 5, width: 8, heads: 2, layers: 2, feedforward: 8}",
}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, detection):
    """The drawn images, and the run whose backbone the detectors begin with."""
    folder = tmp_path_factory.mktemp("detection")
    detection("shapes").make_shapes(folder, train=8, test=4)
    draws = np.random.default_rng(0)
    images, labels = draws.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), np.arange(24) % 3
    np.savez(folder / "colours.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    (folder / "run.yaml").write_text(RUN)
    tapetum.train(folder / "run.yaml", folder / "run", [f"data.images={folder / 'colours.npz'}"])
    return folder


@pytest.fixture(params=DETECTORS)
def kind(request):
    return request.param


@pytest.fixture
def recipe(folder, tmp_path):
    """Writes the recipe of a small detector and returns its path."""

    def write(kind):
        path, parts = tmp_path / f"{kind}.yaml", ("train", "train.json", "test", "test.json")
        path.write_text(SMALL % (DETECTORS[kind], folder / "run", *(folder / part for part in parts)))
        return str(path)

    return write


@pytest.fixture
def prepare(detection, recipe, tmp_path):
    """Builds a training of a kind of detector."""

    def build(kind, *overrides):
        loaded = detection("recipe").load_recipe(recipe(kind), list(overrides))
        return detection("training").prepare(loaded, tmp_path / "out")

    return build


def test_a_detector_trains_and_leaves_its_files(detection, recipe, kind, tmp_path):
    out = tmp_path / "out"
    assert detection("detect").main([recipe(kind), "--output", str(out), "trainer.evaluate_every=2"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["step"] == 3
    assert {"AP", "AP50", "AP75"} <= summary.keys()
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert len(rows[0]) >= 6  # step, lr, seconds, the loss and its parts
    with (out / "evaluations.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "3"]


def test_a_backbone_begins_with_exactly_the_weights_of_the_run(detection, prepare, folder, kind):
    training = prepare(kind)
    begin = "method.backbone."
    of_run = {n.removeprefix(begin): t for n, t in read_weights(folder / "run").items() if n.startswith(begin)}
    name_of = detection("detr").their_name if kind == "detr" else str
    loaded = training.detector.backbone.state_dict()
    counters = {name for name in of_run if name.endswith("num_batches_tracked")}  # frozen BatchNorm counts nothing
    assert {name_of(name) for name in of_run.keys() - counters} == loaded.keys()
    assert all(torch.equal(tensor, loaded[name_of(name)]) for name, tensor in of_run.items() if name not in counters)
    assert f"{len(of_run)} tensors of the backbone" in training.weights


def test_transformers_resnet_computes_what_ours_does(detection, prepare, folder):
    images = torch.rand(2, 3, 64, 96)
    ours = prepare("faster_rcnn").detector.eval().backbone(images)
    theirs = prepare("detr").detector.eval().backbone(images).feature_maps
    torch.testing.assert_close(theirs[-1], ours["2"])


def test_new_weights_of_detr_are_as_large_as_published(prepare):
    model = prepare("detr", "detector.width=64", "detector.feedforward=192").detector.model
    spread = {name: tensor.std().item() for name, tensor in model.named_parameters() if tensor.dim() > 1}
    layer = "model.decoder.layers.1.mlp.fc1.weight"
    assert spread[layer] == pytest.approx((2 / (64 + 192)) ** 0.5, rel=0.1)  # Glorot
    assert spread["model.query_position_embeddings.weight"] == pytest.approx(1.0, rel=0.2)
    assert spread["class_labels_classifier.weight"] == pytest.approx((1 / (3 * 64)) ** 0.5, rel=0.2)  # torch's own


class Echo(nn.Module):
    """In the place of a detector's network: finds what it was last trained with."""

    def forward(self, images, targets=None, *, pixel_mask=None, labels=None):
        if targets is not None:  # Faster R-CNN in training
            self.known = [{**target, "scores": torch.ones(len(target["labels"]))} for target in targets]
            return {"loss_all": torch.zeros(())}
        if pixel_mask is None:
            return self.known
        self.known = labels or self.known
        (target,) = self.known
        logits = 9.0 * nn.functional.one_hot(target["class_labels"], 4)[None]
        losses = dict.fromkeys(("loss_ce", "loss_bbox", "loss_giou"), torch.zeros(()))
        return SimpleNamespace(loss=torch.zeros(()), loss_dict=losses, logits=logits, pred_boxes=target["boxes"][None])


def test_classes_and_boxes_find_their_way_back(prepare, kind):
    detector = prepare(kind).detector
    detector.model = Echo()
    image = torch.zeros(3, 50, 70, dtype=torch.uint8)
    boxes, labels = torch.tensor([[10.0, 20.0, 30.0, 45.0], [0.0, 0.0, 70.0, 50.0]]), torch.tensor([2, 0])
    detector.train()([image], [{"boxes": boxes, "labels": labels}])
    if kind == "faster_rcnn":
        assert detector.model.known[0]["labels"].tolist() == [3, 1]  # torchvision's 0 is the background
    (found,) = detector.eval().detect([image])
    assert torch.equal(found["labels"], labels)
    torch.testing.assert_close(found["boxes"], boxes)


def test_what_is_frozen_stays_and_the_rest_moves(prepare, kind):
    training = prepare(kind)
    before = {name: tensor.clone() for name, tensor in training.detector.state_dict().items()}
    training.run()
    after = training.detector.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    low, high = (("layer1", "layer2"), ("stages.0", "stages.1"))[kind == "detr"]
    frozen = {name for name in before if "backbone" in name and (low in name or "embedder" in name)}
    assert frozen
    assert not frozen & moved
    convolutions = [name for name in before if high in name and before[name].dim() == 4]
    assert convolutions
    assert set(convolutions) <= moved
    assert not any("running" in name or "normalization" in name for name in moved)


def test_batch_norm_is_trained_where_the_recipe_says_so(prepare, kind):
    training = prepare(kind, "backbone.batch_norm=trained", "backbone.frozen_stages=0")
    norms = [m for m in training.detector.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 21  # of a ResNet-20: one for each convolution, two of them shortcuts
    before = [norm.running_mean.clone() for norm in norms]
    training.run()
    assert not any(torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True))
    assert all(parameter.requires_grad for parameter in training.detector.parameters())


def test_an_interrupted_training_ends_with_the_same_bits(detection, recipe, kind, tmp_path, monkeypatch):
    command, script = [recipe(kind), "--output"], detection("detect")
    assert script.main([*command, str(tmp_path / "whole")]) == 0
    step = detection("training").Training._step

    def breaks_off(training, batch):
        if training.step == 2:
            raise KeyboardInterrupt
        return step(training, batch)

    with monkeypatch.context() as patch:
        patch.setattr(detection("training").Training, "_step", breaks_off)
        assert script.main([*command, str(tmp_path / "parts")]) == 130
    assert script.main([*command, str(tmp_path / "parts")]) == 0
    whole, parts = (read_weights(tmp_path / part / "checkpoint.safetensors") for part in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert any(name.startswith("optimizer.") for name in whole)
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_normalisation_is_the_runs_unless_the_recipe_sets_it(prepare):
    assert prepare("detr").detector.transform.image_mean == (0.4, 0.5, 0.6)
    assert prepare("detr", "data.mean=[0.1, 0.1, 0.1]").detector.transform.image_mean == (0.1, 0.1, 0.1)
    assert prepare("detr", "backbone.weights=null").detector.transform.image_mean[0] == 0.485


def test_the_two_learning_rates_fall_together(detection, prepare):
    training = prepare("detr", "optimizer.drops=[1, 2]")
    training.run()
    rates = [group["lr"] for group in training.optimizer.param_groups]
    assert rates == pytest.approx([0.001 / 100, 0.01 / 100])
    optimizer = detection("recipe").OptimizerConfig(kind="sgd", lr=1.0, backbone_lr=1.0, warmup_steps=10)
    factor = detection("training").learning_rate_factor
    assert [factor(optimizer, step, [20]) for step in (0, 5, 10, 20)] == pytest.approx([0.001, 0.5005, 1.0, 0.1])


def test_parts_of_a_step_have_the_gradient_of_the_whole(prepare):
    """Each image has one box, so every part weighs as much as its images."""
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    whole, parts = (prepare("detr", "detector.dropout=0.0", f"trainer.micro_batch={size}") for size in (4, 2))
    rows = [training._step([(image, target) for image in images]) for training in (whole, parts)]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-4)
    for ours, theirs in zip(whole.detector.parameters(), parts.detector.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("changed, complaint", [
    ("backbone.depth=18", "backbone.weights: .* choose the backbone that these weights belong to"),
    ("backbone.weights=nowhere.pth", "there is nothing at nowhere.pth"),
    ("data.test_annotations=nowhere.json", "there is no file nowhere.json"),
    ("data.train_images=nowhere", "there is no folder nowhere"),
    ("detector.anchor_sizes=[8, 16]", "anchor_sizes has 2 sizes, but the backbone's pyramid has 4 levels"),
    ("trainer.steps=null", "trainer: steps is null and epochs is null: give one of them"),
    ("trainer.batch_size=many", "trainer.batch_size is 'many': it should be a valid integer"),
    ("optimizer.backbone_lrs=1", "optimizer.backbone_lrs is not a known key: did you mean 'backbone_lr'"),
    ("data.lr=1", "data.lr is not a known key: it belongs to another section"),
    ("detector.kind=yolo", "detector.kind is 'yolo': choose one of 'faster_rcnn', 'detr'"),
    ("optimizer=null", "optimizer is null: it should be a section"),
    ("optimizer.lr=1e30", "the loss is .* lower optimizer.lr"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(detection, recipe, tmp_path, capsys, changed, complaint):
    code = detection("detect").main([recipe("faster_rcnn"), "--output", str(tmp_path / "out"), changed])
    assert code == 2
    assert_one_sentence(capsys, complaint)


@pytest.mark.parametrize("key, value, complaint", [
    ("category_id", 7, "annotation 1 of .*train.json has category_id 7, which is not in categories: add it there"),
    ("image_id", 99, "annotation 1 of .*train.json has image_id 99, which is not in images: add it there"),
])  # fmt: skip
def test_annotations_that_do_not_fit_are_named(detection, recipe, folder, tmp_path, capsys, key, value, complaint):
    content = json.loads((folder / "train.json").read_text())
    content["annotations"][0][key] = value
    (tmp_path / "train.json").write_text(json.dumps(content))
    changed = f"data.train_annotations={tmp_path / 'train.json'}"
    assert detection("detect").main([recipe("detr"), "--output", str(tmp_path / "out"), changed]) == 2
    assert_one_sentence(capsys, complaint)


def test_the_folder_of_another_recipe_is_not_continued(detection, recipe, tmp_path, capsys):
    command = [recipe("faster_rcnn"), "--output", str(tmp_path / "out"), "trainer.steps=1"]
    assert detection("detect").main(command) == 0
    assert detection("detect").main([*command, "seed=1"]) == 2
    assert_one_sentence(capsys, "is another recipe: choose another --output")


def test_published_recipes_can_be_read(detection):
    folder = Path(detection("recipe").__file__).parent
    names = [f"{kind}_{data}" for kind in DETECTORS for data in ("coco", "shapes")]
    recipes = {name: detection("recipe").load_recipe(folder / f"{name}.yaml") for name in names}
    detr, faster = recipes["detr_coco"], recipes["faster_rcnn_coco"]
    assert (detr.optimizer.lr, detr.optimizer.backbone_lr, detr.optimizer.weight_decay) == (1e-4, 5e-5, 1e-4)
    assert (detr.trainer.epochs, detr.optimizer.drops, detr.trainer.batch_size) == (300, (200,), 64)
    backbone = load_recipe(folder / "cifar_resnet20.yaml").backbone
    for name in ("detr_shapes", "faster_rcnn_shapes"):
        wanted = recipes[name].backbone
        assert (wanted.depth, wanted.width, wanted.stem) == (backbone.depth, backbone.width, backbone.stem)
    assert (faster.trainer.steps, faster.optimizer.drops, faster.trainer.batch_size) == (90000, (60000, 80000), 16)


def assert_one_sentence(capsys, complaint):
    text = capsys.readouterr().err
    assert text.startswith("detect: error: ")
    assert text.count("\n") == 1
    assert re.search(complaint, text), text
