"""FixMatch: its terms by hand, its teacher, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tapetum.data.batch import Views
from tapetum.engine.sharding import shard
from tapetum.losses.fixmatch import aligned, mean_probabilities, neighbour_loss, pseudo_label_loss
from tapetum.losses.suncet import suncet_loss
from tapetum.methods.base import Progress, StepOutput
from tapetum.methods.fixmatch import CLASS_MEAN_DECAY, FixMatchConfig
from tapetum.ops.soft_neighbours import smooth_one_hot
from tapetum.recipe.recipe import load_recipe
from tapetum.runs.run import assemble

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = {
    "threshold": 0.47,
    "even_classes": False,
    "teacher_decay": 0.0,
    "suncet_weight": 0.0,
    "neighbour_weight": 0.0,
    "unlabelled_ramp": 0.0,
}


def slow_probabilities(logits: list[list[list[float]]]) -> list[list[float]]:
    """The mean over views (V, B, C) of softmax, number by number."""
    found = []
    for image in zip(*logits, strict=True):
        views = [[math.exp(x) / sum(map(math.exp, view)) for x in view] for view in image]
        found.append([sum(column) / len(views) for column in zip(*views, strict=True)])
    return found


def test_losses_equal_slow_plain_ones():
    torch.manual_seed(0)
    weak, strong = 2 * torch.randn(2, 5, 3, dtype=torch.float64), 2 * torch.randn(4, 5, 3, dtype=torch.float64)
    expected = slow_probabilities(weak.tolist())
    probabilities = mean_probabilities(weak.flatten(0, 1), 2)
    torch.testing.assert_close(probabilities, torch.tensor(expected, dtype=torch.float64))

    mean = [0.5, 0.2, 0.3]
    even = [[p / m for p, m in zip(row, mean, strict=True)] for row in expected]
    even = [[p / sum(row) for p in row] for row in even]
    found = aligned(probabilities, torch.tensor(mean, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(even, dtype=torch.float64))

    weights = [max(row) for row in even]
    total = 0.0
    for view in strong.tolist():
        for logits, row, weight in zip(view, even, weights, strict=True):
            total -= weight * (logits[row.index(max(row))] - math.log(sum(map(math.exp, logits))))
    largest, labels = found.max(dim=1)
    loss = pseudo_label_loss(strong.flatten(0, 1), labels, largest)
    assert float(loss) == pytest.approx(total / 20, rel=1e-12)


def test_neighbour_loss_equals_a_slow_plain_one():
    torch.manual_seed(0)
    strong, supports = (torch.randn(n, 4, dtype=torch.float64) for n in (6, 5))  # 2 views of 3 images
    labels = smooth_one_hot(torch.tensor([0, 0, 1, 2, 2]), torch.arange(3), 0.1, torch.float64)
    known = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 1]])  # the second is of a class that the step lacks
    weights = torch.tensor([0.7, 0.9, 0.4], dtype=torch.float64)
    total = 0.0
    for row, view in enumerate(strong.tolist()):
        near = []
        for support in supports.tolist():
            lengths = math.hypot(*view) * math.hypot(*support)
            near.append(math.exp(sum(a * b for a, b in zip(view, support, strict=True)) / lengths / 0.1))
        image = row % 3
        for c in range(3):
            if known[image, c]:
                share = sum(weight * float(labels[s, c]) for s, weight in enumerate(near)) / sum(near)
                total -= float(weights[image]) * math.log(share)
    found = neighbour_loss(strong, supports, labels, known, weights, 0.1)
    assert float(found) == pytest.approx(total / 6, rel=1e-12)


def test_forward_and_gradients_by_hand(family):
    method, batch = family.make("fixmatch", **PLAIN, label_smoothing=0.2), family.batch_of(0)
    output = method(batch, family.progress_of(0))
    weak, strong = batch.views.groups
    labels = batch.support_labels.repeat(2)
    logits = method.classifier(method.backbone(batch.support.groups[0]))
    with torch.no_grad():
        p = method.classifier(method.backbone(weak)).softmax(1).unflatten(0, (2, 8)).mean(0)
    kept = p.amax(1) >= 0.47
    assert 0 < kept.sum() < len(kept)  # the threshold matters
    each = cross_entropy(method.classifier(method.backbone(strong)), p.argmax(1).repeat(2), reduction="none")
    expected = cross_entropy(logits, labels, label_smoothing=0.2) + (each * kept.repeat(2)).sum() / 16
    results = []
    for loss in (output.loss, expected):
        method.zero_grad()
        loss.backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in method.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    assert float(output.metrics["pseudo_label_weight"]) == pytest.approx(float(kept.double().mean()))


def test_supports_and_strong_views_of_one_size_share_a_call(family):
    method, batch = family.make("fixmatch", **PLAIN), family.batch_of(0)
    batch.views = Views((batch.views.groups[0], batch.views.groups[0].flip(3)), (2, 2))
    method(batch, family.progress_of(0))
    assert method.backbone.calls == [24 + 16, 16]


def test_suncet_trains_the_projector_that_embeds(family):
    method, batch = family.make("fixmatch", **PLAIN | {"suncet_weight": 0.5}), family.batch_of(0)
    output = method(batch, family.progress_of(0))
    z = method.projector(method.backbone(batch.support.groups[0]))
    smoothed = smooth_one_hot(batch.support_labels.repeat(2), batch.support_classes, 0.0)
    torch.testing.assert_close(output.metrics["suncet"], suncet_loss(z, smoothed, 0.1))
    parts = output.metrics["supervised"] + 0.5 * output.metrics["suncet"] + output.metrics["pseudo_labels"]
    torch.testing.assert_close(output.metrics["loss"], parts)
    torch.testing.assert_close(method.eval().embed(batch.support.groups[0]).shape, torch.Size([24, 6]))
    plain = family.make("fixmatch", **PLAIN)
    assert plain.projector is None
    assert [one.predicts_by for one in (method, plain)] == ["soft_neighbours", "classifier"]


def test_a_single_labelled_image_is_refused(family):
    batch = family.batch_of(0)
    batch.support, batch.support_labels = Views((batch.support.groups[0][:1],), (1,)), batch.support_labels[:1]
    with pytest.raises(ValueError, match=r"^support.batch_size is 1, but BatchNorm"):
        family.make("fixmatch", **PLAIN | {"suncet_weight": 0.5})(batch, family.progress_of(0))


def test_neighbours_learn_pseudo_labels_too(family):
    changes = {"suncet_weight": 0.5, "neighbour_weight": 0.4, "label_smoothing": 0.1}
    method, batch = family.make("fixmatch", **PLAIN | changes), family.batch_of(0)
    output = method(batch, family.progress_of(0))
    weak, strong = batch.views.groups
    features = torch.cat([method.backbone(batch.support.groups[0]), method.backbone(strong)])
    with torch.no_grad():
        p = method.classifier(method.backbone(weak)).softmax(1).unflatten(0, (2, 8)).mean(0)
    weights, known = (p.amax(1) >= 0.47).double(), torch.eye(3).double()[p.argmax(1)]
    z = torch.nn.functional.normalize(method.projector(features), dim=1)
    smoothed = smooth_one_hot(batch.support_labels.repeat(2), torch.arange(3), 0.1).double()
    near = (z[24:] @ z[:24].T / 0.1).softmax(1) @ smoothed
    term = -(weights.repeat(2) * (known.repeat(2, 1) * near.log()).sum(1)).mean()
    torch.testing.assert_close(output.metrics["neighbours"], term.detach())
    taught = output.metrics["pseudo_labels"] + 0.4 * term.detach()
    parts = output.metrics["supervised"] + 0.5 * output.metrics["suncet"] + taught
    torch.testing.assert_close(output.metrics["loss"], parts)
    torch.testing.assert_close(
        torch.autograd.grad(output.loss, method.projector[-1].weight)[0],
        torch.autograd.grad(0.4 * term + 0.5 * suncet_loss(z[:24], smoothed, 0.1), method.projector[-1].weight)[0],
    )


def test_neighbours_without_a_projector_are_refused():
    with pytest.raises(ValueError, match=r"^neighbour_weight is 0\.3, but suncet_weight is 0, .*: set suncet_weight"):
        FixMatchConfig(neighbour_weight=0.3)


def test_even_classes_divides_by_a_running_mean(family):
    method, batch = family.make("fixmatch", **PLAIN | {"even_classes": True, "threshold": None}), family.batch_of(0)
    with torch.no_grad():
        p = method.classifier(method.backbone(batch.views.groups[0])).softmax(1).unflatten(0, (2, 8)).mean(0)
    output = method(batch, family.progress_of(0))
    mean = torch.full((3,), 1 / 3).double() * CLASS_MEAN_DECAY + (1 - CLASS_MEAN_DECAY) * p.mean(0)
    assert method.class_mean.tolist() == pytest.approx([1 / 3] * 3)  # until the step has been taken
    method.after_step(output, batch)
    torch.testing.assert_close(method.class_mean, mean)
    weights = aligned(p, mean).amax(1)
    torch.testing.assert_close(output.metrics["pseudo_label_weight"], weights.mean())


def test_the_running_mean_moves_once_for_all_batches_of_a_step(family):
    method = family.make("fixmatch", **PLAIN | {"even_classes": True})
    first = method.class_mean.clone()
    parts = [torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.1, 0.2, 0.7]).double()]
    for part in parts:
        method.after_step(StepOutput(torch.zeros(()), {}, carry=(0, part)), family.batch_of(0))
    once = first.lerp((parts[0] + parts[1]) / 2, 1 - CLASS_MEAN_DECAY)
    torch.testing.assert_close(method.class_mean, once)
    method.after_step(StepOutput(torch.zeros(()), {}, carry=(1, parts[0])), family.batch_of(1))
    torch.testing.assert_close(method.class_mean, once.lerp(parts[0], 1 - CLASS_MEAN_DECAY))


def test_teacher_is_an_average_that_gives_the_pseudo_labels_and_learns_by_no_gradient(family):
    method, batch = family.make("fixmatch", **PLAIN | {"teacher_decay": 0.9}), family.batch_of(0)
    first = {name: tensor.clone() for name, tensor in method.teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in (*method.backbone.parameters(), *method.classifier.parameters()):
            parameter.add_(1.0)
    output = method(batch, Progress(60, 4, 100))
    assert method.backbone.calls == [24, 16]  # supports and strong views; the teacher saw the weak ones
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    output.loss.backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    method.after_step(output, batch)
    learner = nn.Sequential(method.backbone, method.classifier).state_dict()
    method.after_step(output, batch)  # of the step's second batch, which changes nothing more
    decay = min(0.9, 61 / 71)
    for name, mean in method.teacher.state_dict().items():
        if mean.is_floating_point():
            torch.testing.assert_close(mean, decay * first[name] + (1 - decay) * learner[name], msg=name)


def test_a_teacher_refuses_weights_in_parts(family):
    method = family.make("fixmatch")
    with pytest.raises(
        ValueError, match=r"^runtime.strategy is fsdp, .*: use ddp, or set method.teacher_decay to 0\.$"
    ):
        shard(method, torch.optim.SGD(method.parameters(), 0.1), torch.device("cpu"))


def test_labels_come_first(family):
    method, batch = family.make("fixmatch", unlabelled_start=0.5, unlabelled_ramp=0.2), family.batch_of(0)
    assert method.first_with_views(100) == 50
    views, batch.views = batch.views, None
    early = method(batch, Progress(49, 4, 100))
    assert "pseudo_labels" not in early.metrics
    batch.views = views
    for step, weight in ((50, 0.0), (60, 0.5), (70, 1.0), (90, 1.0)):
        metrics = method(batch, Progress(step, 4, 100)).metrics
        taught = metrics["pseudo_labels"] + 0.3 * metrics["neighbours"]
        expected = metrics["supervised"] + 0.5 * metrics["suncet"] + weight * taught
        torch.testing.assert_close(metrics["loss"], expected)


def test_without_small_views_it_says_what_is_missing(tmp_path):
    np.savez(tmp_path / "noise.npz", x_train=np.zeros((20, 8, 8), dtype=np.uint8), y_train=np.arange(20) % 2)
    settings = [f"data.images={tmp_path / 'noise.npz'}", "data.test=null", "data.labels_per_class=null"]
    with pytest.raises(ValueError, match=r"^views.small is null, but fixmatch learns from small views"):
        assemble(load_recipe("paws_digits", [*settings, "method.kind=fixmatch"]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", 1.5),
        ("threshold", -0.1),
        ("unlabelled_weight", -1.0),
        ("unlabelled_start", 1.0),
        ("unlabelled_ramp", 1.1),
        ("teacher_decay", 1.0),
        ("label_smoothing", 1.0),
        ("suncet_weight", -0.5),
        ("neighbour_weight", -0.5),
    ],
    ids=lambda value: str(value),
)
def test_bad_settings_name_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"^{field} is {value}: use "):
        FixMatchConfig(**{field: value})


def test_the_teacher_starts_from_the_weights_that_the_recipe_starts_from(family):
    method = family.make("fixmatch", teacher_decay=0.9)
    with torch.no_grad():
        for parameter in (*method.backbone.parameters(), *method.classifier.parameters()):
            parameter.add_(1.0)
    method.starts_from_weights()
    learner = nn.Sequential(method.backbone, method.classifier).state_dict()
    for name, tensor in method.teacher.state_dict().items():
        assert torch.equal(tensor, learner[name]), name
