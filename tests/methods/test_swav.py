"""SwAV: its forward image by image, its queue, and four steps of the published training loop."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tapetum.data.batch import Batch, Views
from tapetum.methods.base import Progress
from tapetum.methods.swav import SwAV, SwAVConfig, code_metrics
from tapetum.nn.heads import HeadConfig
from tapetum.ops.sinkhorn import sinkhorn
from tapetum.optim.lars import LARS

pytestmark = pytest.mark.usefixtures("one_thread")


def by_hand(method: SwAV, batch: Batch, queue: Tensor | None = None) -> Tensor:
    """The loss of every pair of views and every image, one at a time, from the network's outputs."""
    groups, (num_large, num_small) = batch.views.groups, batch.views.counts
    num_images = len(groups[0]) // num_large
    features = torch.cat([method.backbone(groups[0]), method.backbone(groups[1])])
    views = normalize(method.projector(features), dim=1).split(num_images)
    losses = []
    for prototypes in method.prototypes.parameters():
        for position, assigning in enumerate(method.config.assigning_views):
            earlier = [] if queue is None else [queue[position] @ prototypes.T]
            codes = sinkhorn(torch.cat([*earlier, views[assigning] @ prototypes.T]), method.config.epsilon)
            codes = codes[-num_images:].detach()
            for number, view in enumerate(views):
                if number != assigning:
                    predictions = (view @ prototypes.T / method.config.temperature).softmax(1)
                    losses += [-(q * p.log()).sum() for q, p in zip(codes, predictions)]
    assert len(views) == num_large + num_small
    return torch.stack(losses).mean()


@pytest.mark.parametrize("views", [(0, 1), (1,), (0, 3, 1)])
@pytest.mark.parametrize("counts", [(7,), (7, 5, 4)])
def test_forward_and_gradients_by_hand(family, views, counts):
    method, batch = family.make("swav", assigning_views=views, num_prototypes=counts), family.batch_of(0)
    results = []
    for loss in (method(batch, family.progress_of(0)).loss, by_hand(method, batch)):
        method.zero_grad()
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in method.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_the_queue_fills_from_its_epoch_on_and_is_used_once_full(family):
    """Two batches long, from step 4 on: the first step that sees it is 6."""
    method = family.make("swav")
    shapes, carried = [], []
    for step in range(8):
        batch, queue = family.batch_of(step), method.queue
        output = method(batch, family.progress_of(step))
        expected = by_hand(method, batch, queue if step >= 6 else None)
        torch.testing.assert_close(output.loss, expected, rtol=1e-9, atol=1e-12)
        if step >= 6:
            assert not torch.isclose(output.loss, by_hand(method, batch), rtol=1e-6)
        carried.append(output.carry)
        method.after_step(output, batch)
        shapes.append(None if method.queue is None else method.queue.shape[1])
    assert shapes == [None] * 4 + [8, 16, 16, 16]
    assert torch.equal(method.queue, torch.cat([carried[7], carried[6]], dim=1)), "newest first"
    assert not method.queue.requires_grad


def test_published_steps():
    """Losses and prototypes of the published loop: queue, LARC and the norm of prototypes, without a network."""
    backbone = nn.Identity()
    backbone.num_features = 3
    config = SwAVConfig(
        num_prototypes=(4,), freeze_steps=0, queue_length=4, queue_start_epoch=0, head=HeadConfig(layers=0)
    )
    method = SwAV(config, backbone, num_classes=0, num_images=2)
    start = [[math.sin(1 + 3 * i + j) for j in range(3)] for i in range(4)]
    with torch.no_grad():
        method.prototypes[0].weight.copy_(torch.tensor(start))
    method.prototypes.normalise()
    optimizer = LARS(method.parameters(), lr=0.6, weight_decay=1e-6, lr_in_buffer=False)
    published = [
        (8.858720, [0.674404, 0.728876, 0.113223]),
        (8.423341, [0.673895, 0.728635, 0.113471]),
        (10.503498, [0.673331, 0.728481, 0.113869]),
        (9.587934, [0.672919, 0.728454, 0.114252]),
    ]
    for step, (loss, prototype) in enumerate(published):
        rows = [[math.cos(100 * step + 17 * v + 5 * b + d) for d in range(3)] for v in range(4) for b in range(2)]
        batch = Batch(views=Views((torch.tensor(rows),), (4,)), index=None)
        output = method(batch, Progress(step, 1, 4))
        optimizer.zero_grad()
        output.loss.backward()
        method.after_backward(Progress(step, 1, 4))
        optimizer.step()
        method.after_step(output, batch)
        assert output.loss.item() == pytest.approx(loss, rel=2e-5)
        ours, theirs = method.prototypes[0].weight[0].detach(), normalize(torch.tensor(prototype), dim=0)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6)


def test_prototypes_stay_of_unit_length_and_frozen_as_long_as_asked(family):
    run = family.trainer("swav", None, 4)  # frozen in two steps
    seen = [[p.detach().clone() for p in run.method.prototypes.parameters()]]
    after_step = run.method.after_step

    def note(output, batch):
        after_step(output, batch)
        seen.append([p.detach().clone() for p in run.method.prototypes.parameters()])

    run.method.after_step = note
    run.fit()
    torch.testing.assert_close(seen[0], seen[2], rtol=0, atol=1e-6)  # but for the rounding of their length
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(seen[2], seen[3]))
    for weights in seen[4]:
        torch.testing.assert_close(weights.norm(dim=1), torch.ones(len(weights), dtype=torch.float64))


def test_one_backbone_call_for_each_size_and_one_of_the_projector(family):
    method = family.make("swav")
    calls = []
    method.projector.register_forward_hook(lambda module, arguments, output: calls.append(len(output)))
    method(family.batch_of(0), family.progress_of(0))
    assert method.backbone.calls == [16, 16]
    assert calls == [32]


def test_codes_stop_gradients(family):
    """One assigning view of two: its own image gets gradient through nothing but its prediction, so none."""
    method = family.make("swav", assigning_views=(0,)).eval()  # evaluation mode: BatchNorm mixes images otherwise
    batch = family.batch_of(0)
    batch.views = Views((batch.views.groups[0].requires_grad_(),), (2,))
    method(batch, family.progress_of(0)).loss.backward()
    gradient = batch.views.groups[0].grad.flatten(1).abs().amax(1)
    assert (gradient[:8] == 0).all()
    assert (gradient[8:] > 0).all()


def test_code_metrics():
    metrics = code_metrics(torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0]], [[0, 0, 1.0], [1.0, 0, 0]]]))
    assert float(metrics["used_prototypes"]) == 2
    assert float(metrics["code_entropy"]) == pytest.approx(math.log(2) / 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queue_length": 20}, "queue_length is 20: use a multiple of data.batch_size, for example 16"),
        ({"queue_length": 5}, "queue_length is 5: use a multiple of data.batch_size, for example 8"),
        ({"assigning_views": (0, 4)}, r"assigning_views is \[0, 4\], but an image has 4 views"),
    ],
)
def test_what_does_not_fit_the_batch_is_refused(family, settings, message):
    with pytest.raises(ValueError, match=message):
        family.make("swav", **settings)(family.batch_of(0), family.progress_of(0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", -1.0),
        ("iterations", 0),
        ("freeze_steps", -1),
        ("queue_length", -8),
        ("queue_start_epoch", -1),
        ("num_prototypes", ()),
        ("num_prototypes", (5, 1)),
        ("assigning_views", (0, 0)),
        ("assigning_views", ()),
    ],
)
def test_bad_settings_name_field_and_value(field, value):
    shown = list(value) if isinstance(value, tuple) else value
    with pytest.raises(ValueError) as error:
        SwAVConfig(**{field: value})
    assert str(error.value).startswith(f"{field} is {shown}: ")


def test_a_predictor_is_refused():
    with pytest.raises(ValueError, match=r"^head.predictor is true"):
        SwAVConfig(head=HeadConfig(predictor=True))
