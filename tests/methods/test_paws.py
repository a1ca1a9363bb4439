"""PAWS: its forward against the losses called by hand, image by image, and what must not matter to it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tapetum.data.batch import Batch, Views
from tapetum.losses.paws import SMALLEST_TARGET
from tapetum.losses.suncet import suncet_loss
from tapetum.methods.base import Progress
from tapetum.methods.paws import PAWS, PAWSConfig
from tapetum.nn.heads import HeadConfig
from tapetum.ops.soft_neighbours import sharpen, smooth_one_hot, soft_neighbours

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_IMAGES, NUM_SMALL = 4, 3
LABELS = torch.tensor([0, 4, 0, 1, 0])  # uneven, in no order, some of 5 classes
CLASSES = torch.tensor([4, 0, 1])
PROGRESS = Progress(step=0, steps_per_epoch=10, total_steps=100)


class Backbone(nn.Module):
    """Takes any size, has running statistics, and calls that can be counted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.num_features = 8
        self.calls: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        return torch.relu(self.norm(self.conv(images))).mean((2, 3))


def make(head: dict | None = None, **settings) -> PAWS:
    torch.manual_seed(0)
    config = PAWSConfig(head=HeadConfig(**{"output": 6, "hidden": 8} | (head or {})), **settings)
    return PAWS(config, Backbone(), num_classes=5, num_images=NUM_IMAGES).double().train()


def make_batch(small: bool = True, support_views: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(1)

    def images(count: int, size: int) -> Tensor:
        return torch.randn(count, 3, size, size, dtype=torch.float64, generator=generator)

    large, support = images(2 * NUM_IMAGES, 8), images(support_views * len(LABELS), 8)
    little = images(NUM_SMALL * NUM_IMAGES, 6)
    return Batch(
        views=Views((large, little), (2, NUM_SMALL)) if small else Views((large,), (2,)),
        index=torch.arange(NUM_IMAGES),
        support=Views((support,), (support_views,)),
        support_labels=LABELS,
        support_classes=CLASSES,
    )


def by_hand(method: PAWS, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy and -H(mean), one image and view at a time, from the network's outputs in training mode."""
    num_supports = len(batch.support.groups[0])
    features = method.backbone(torch.cat([batch.support.groups[0], batch.views.groups[0]]))
    h = method.projector(features)
    z = h if method.predictor is None else method.predictor(h)
    anchors = list(z[num_supports:].split(NUM_IMAGES))
    if len(batch.views.groups) > 1:
        h_small = method.projector(method.backbone(batch.views.groups[1]))
        z_small = h_small if method.predictor is None else method.predictor(h_small)
        anchors += z_small.split(NUM_IMAGES)
    labels = smooth_one_hot(LABELS.repeat(batch.support.counts[0]), CLASSES, method.config.label_smoothing)
    labels = labels.double()
    tau, sharpness = method.config.temperature, method.config.sharpen
    targets_from = h[num_supports:].detach().split(NUM_IMAGES)
    losses, predictions = [], []
    for image in range(NUM_IMAGES):
        pseudo = [
            sharpen(soft_neighbours(view[image : image + 1], h[:num_supports].detach(), labels, tau), sharpness)
            for view in targets_from
        ]
        for number, view in enumerate(anchors):
            target = pseudo[1 - number] if number < 2 else (pseudo[0] + pseudo[1]) / 2
            target = target * (target >= SMALLEST_TARGET)
            p = soft_neighbours(view[image : image + 1], z[:num_supports], labels, tau)
            losses.append(-(target * p.log()).sum())
            predictions.append(sharpen(p, sharpness))
    mean = torch.cat(predictions).mean(0)
    return torch.stack(losses).mean(), (mean * mean.log()).sum()


def gradients(method: PAWS, loss: Tensor) -> dict[str, Tensor]:
    method.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("me_max", [False, True])
def test_forward_and_gradients_by_hand(small, predictor, me_max):
    method, batch = make({"predictor": predictor}, me_max=me_max), make_batch(small)
    output = method(batch, PROGRESS)
    ours = gradients(method, output.loss)
    match, mean_entropy = by_hand(method, batch)
    theirs = gradients(method, match + mean_entropy if me_max else match)
    torch.testing.assert_close(output.metrics["cross_entropy"], match.detach())
    torch.testing.assert_close(output.metrics["mean_entropy"], mean_entropy.detach())
    torch.testing.assert_close(output.loss, match + mean_entropy if me_max else match)
    assert ours.keys() == theirs.keys() == dict(method.named_parameters()).keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-8, atol=1e-10, msg=name)


def test_targets_come_from_h_and_anchors_from_z():
    """With a predictor of its own for z: whatever it does, targets stay; and they are not those of z."""
    method, batch = make({"predictor": True}), make_batch()
    with torch.no_grad():
        method.predictor.fc2.weight.zero_()
        method.predictor.fc2.bias.copy_(torch.linspace(-1, 1, 6))
    output = method(batch, PROGRESS)
    # All anchors and supports are one vector now, so every prediction is the supports' mean label; targets are not.
    labels = smooth_one_hot(LABELS, CLASSES, 0.1).mean(0).double()
    match, _ = by_hand(method, batch)
    torch.testing.assert_close(output.metrics["cross_entropy"], match.detach())
    flat = sharpen(labels[None], 0.25)
    assert not torch.isclose(output.metrics["cross_entropy"], -(flat * labels.log()).sum(), rtol=1e-3)


def test_gradients_reach_all_images_and_do_not_pass_through_targets():
    method, batch = make(), make_batch()
    leaves = [group.requires_grad_() for group in (*batch.views.groups, batch.support.groups[0])]
    method(batch, PROGRESS).loss.backward()
    for leaf in leaves:
        assert (leaf.grad.flatten(1).abs().amax(1) > 0).all()


def test_the_backbone_is_called_once_for_each_size():
    method, batch = make(), make_batch()
    method(batch, PROGRESS)
    assert method.backbone.calls == [2 * len(LABELS) + 2 * NUM_IMAGES, NUM_SMALL * NUM_IMAGES]


@pytest.mark.parametrize("predictor", [False, True])
def test_small_views_do_not_move_running_statistics(predictor):
    buffers = []
    for small in (False, True):
        method = make({"predictor": predictor})
        method(make_batch(small), PROGRESS)
        buffers.append(dict(method.named_buffers()))
    assert any(name.startswith("projector.bn1") for name in buffers[0])
    for name, buffer in buffers[0].items():
        assert torch.equal(buffer, buffers[1][name]), name
        assert "num_batches" not in name or int(buffer) == 1
    assert not torch.equal(buffers[1]["backbone.norm.running_mean"], torch.zeros(8, dtype=torch.float64))
    assert method.backbone.norm.track_running_stats


def test_order_of_supports_and_classes_does_not_matter():
    def loss(order: list[int], classes: list[int]) -> Tensor:
        batch = make_batch(support_views=1)
        batch.support = Views((batch.support.groups[0][order],), (1,))
        batch.support_labels, batch.support_classes = LABELS[order], torch.tensor(classes)
        return make()(batch, PROGRESS).loss

    expected = loss([0, 1, 2, 3, 4], [0, 1, 4])
    torch.testing.assert_close(loss([4, 2, 0, 3, 1], [0, 1, 4]), expected)
    torch.testing.assert_close(loss([0, 1, 2, 3, 4], [1, 4, 0]), expected)


def test_a_support_sets_labels_matter():
    batch = make_batch()
    expected = make()(batch, PROGRESS).loss
    batch.support_labels = LABELS[[1, 0, 2, 3, 4]]
    assert not torch.isclose(make()(batch, PROGRESS).loss, expected)


def test_supervised_term():
    batch = make_batch()
    method = make(supervised_weight=0.5, paws_weight=0.25, label_smoothing=0.2)
    output = method(batch, PROGRESS)
    match, mean_entropy = by_hand(method, batch)
    features = method.backbone(torch.cat([batch.support.groups[0], batch.views.groups[0]]))[: 2 * len(LABELS)]
    supervised = cross_entropy(method.classifier(features), LABELS.repeat(2), label_smoothing=0.2)
    torch.testing.assert_close(output.metrics["supervised"], supervised.detach())
    torch.testing.assert_close(output.loss, 0.25 * (match + mean_entropy) + 0.5 * supervised)
    output.loss.backward()
    assert method.classifier.weight.grad.abs().sum() > 0
    assert method.classify(batch.views.groups[0]).shape == (2 * NUM_IMAGES, 5)


def test_without_the_supervised_term_there_is_no_classifier():
    method = make()
    assert method.classifier is None
    assert method.classify(make_batch().views.groups[0]) is None
    assert "supervised" not in method(make_batch(), PROGRESS).metrics


@pytest.mark.parametrize("predictor", [False, True])
def test_suncet_term(predictor):
    batch, method = make_batch(), make({"predictor": predictor}, suncet_weight=0.7)
    output = method(batch, PROGRESS)
    h = method.projector(method.backbone(torch.cat([batch.support.groups[0], batch.views.groups[0]])))
    z = (h if method.predictor is None else method.predictor(h))[: 2 * len(LABELS)]
    expected = suncet_loss(z, smooth_one_hot(LABELS.repeat(2), CLASSES, 0.1), 0.1)
    torch.testing.assert_close(output.metrics["suncet"], expected.detach())
    without = make({"predictor": predictor})(batch, PROGRESS).loss
    torch.testing.assert_close(output.loss, without + 0.7 * expected)


def test_the_weight_may_rise_from_nothing():
    batch, total = make_batch(), PROGRESS.total_steps
    whole = make(paws_weight=0.5)(batch, PROGRESS).loss
    for step, share in [(0, 0.0), (20, 0.5), (40, 1.0), (99, 1.0)]:
        output = make(paws_weight=0.5, paws_ramp=0.4)(batch, Progress(step, 10, total))
        torch.testing.assert_close(output.loss, share * whole)


@pytest.mark.parametrize("predictor", [False, True])
def test_without_views_it_learns_by_the_supervised_terms(predictor):
    method, batch = (
        make({"predictor": predictor}, supervised_weight=0.5, suncet_weight=0.7, paws_start=0.5),
        make_batch(),
    )
    assert method.first_with_views(101) == 50
    whole = method(batch, PROGRESS)
    batch.views = batch.index = None
    output = method(batch, PROGRESS)
    assert set(output.metrics) == {"loss", "supervised", "suncet", "embedding_std", "effective_rank"}
    torch.testing.assert_close(output.loss, 0.5 * output.metrics["supervised"] + 0.7 * output.metrics["suncet"])
    # Batch statistics are those of the supports alone, so the terms are not the same numbers as beside views.
    assert output.metrics["suncet"] != whole.metrics["suncet"]
    output.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.backbone.parameters())


@pytest.mark.parametrize("head", [{"layers": 2}, {"layers": 1, "predictor": True}])
def test_a_single_labelled_image_without_views_is_refused(head):
    batch = make_batch()
    batch.support, batch.support_labels = Views((batch.support.groups[0][:1],), (1,)), LABELS[:1]
    method = make(head, supervised_weight=1.0, paws_start=0.5)
    assert torch.isfinite(method(batch, PROGRESS).loss), "views are beside it"
    batch.views = batch.index = None
    with pytest.raises(ValueError, match=r"^support.batch_size is 1, but BatchNorm"):
        method(batch, PROGRESS)


def test_the_weight_rises_from_where_views_come_in():
    batch, total = make_batch(), PROGRESS.total_steps
    settings = {"supervised_weight": 0.0, "suncet_weight": 1e-9, "paws_weight": 0.5}
    whole = make(**settings)(batch, PROGRESS).loss
    for step, share in [(50, 0.0), (60, 0.5), (70, 1.0), (99, 1.0)]:
        output = make(**settings, paws_start=0.5, paws_ramp=0.2)(batch, Progress(step, 10, total))
        torch.testing.assert_close(output.loss, share * whole, atol=1e-8, rtol=1e-6)


def test_labels_alone_teach_nothing_without_a_supervised_term():
    with pytest.raises(ValueError, match=r"paws_start is 0.5, but nothing would be learned before it: set supervised"):
        PAWSConfig(paws_start=0.5)


def test_metrics_are_detached_numbers():
    output = make(supervised_weight=1.0)(make_batch(), PROGRESS)
    spread = {"embedding_std", "effective_rank"}
    assert set(output.metrics) == {"loss", "cross_entropy", "mean_entropy", "supervised"} | spread
    assert all(metric.ndim == 0 and not metric.requires_grad for metric in output.metrics.values())
    assert torch.equal(output.metrics["loss"], output.loss.detach())


def test_embed_is_the_projection():
    method, batch = make({"predictor": True}).eval(), make_batch()
    images = batch.views.groups[0]
    assert torch.equal(method.embed(images), method.projector(method.backbone(images)))
    assert method.embed(images).shape == (2 * NUM_IMAGES, 6)


def test_the_loss_is_float32_or_better_under_autocast():
    method, batch = make().float(), make_batch()
    batch.views = Views(tuple(group.float() for group in batch.views.groups), batch.views.counts)
    batch.support = Views((batch.support.groups[0].float(),), batch.support.counts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(batch, PROGRESS)
    assert {output.loss.dtype, *(metric.dtype for metric in output.metrics.values())} == {torch.float32}
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("sharpen", -1.0),
        ("label_smoothing", 1.0),
        ("supervised_weight", -0.1),
        ("suncet_weight", -0.1),
        ("paws_weight", -1.0),
        ("paws_ramp", 1.5),
        ("paws_start", 1.0),
        ("paws_start", -0.1),
    ],
)
def test_bad_settings_name_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"^{field} is {value}: use "):
        PAWSConfig(**{field: value})


def test_even_rows_that_sharpening_would_make_zero_are_refused():
    even = torch.full((1, 1000), 1e-3)
    assert sharpen(even, 0.05).isnan().all()
    with pytest.raises(ValueError, match=r"^sharpen is 0.05, .* of 1000 classes become 0: use 0.079 or more\.$"):
        PAWS(PAWSConfig(sharpen=0.05), Backbone(), num_classes=1000, num_images=1)
    torch.testing.assert_close(sharpen(even, 0.08), even)
