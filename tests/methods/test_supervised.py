"""The supervised baseline: cross-entropy of the support views, and nothing else."""

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax

from tapetum.data.batch import Batch, Views
from tapetum.methods.base import Progress
from tapetum.methods.supervised import Supervised, SupervisedConfig

pytestmark = pytest.mark.usefixtures("one_thread")

PROGRESS = Progress(step=0, steps_per_epoch=10, total_steps=100)
LABELS = torch.tensor([2, 0, 0, 1])


class Backbone(nn.Sequential):
    num_features = 5

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5))


def make(smoothing: float = 0.1) -> Supervised:
    torch.manual_seed(0)
    return Supervised(SupervisedConfig(label_smoothing=smoothing), Backbone(), num_classes=3, num_images=9)


def make_batch() -> Batch:
    images = torch.randn(2 * len(LABELS), 3, 2, 2, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([1, 2, 0])  # their order is PAWS's business
    return Batch(None, None, Views((images,), (2,)), LABELS, classes)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_by_hand(smoothing):
    method, batch = make(smoothing), make_batch()
    output = method(batch, PROGRESS)
    logits = method.classifier(method.backbone(batch.support.groups[0]))
    expected = []
    for row, scores in enumerate(log_softmax(logits, dim=1)):
        expected.append(-(1 - smoothing) * scores[LABELS[row % 4]] - smoothing * scores.mean())
    torch.testing.assert_close(output.loss, torch.stack(expected).mean())
    assert torch.equal(output.metrics["loss"], output.loss.detach())
    hits = [int(scores.argmax()) == int(LABELS[row % 4]) for row, scores in enumerate(logits)]
    assert float(output.metrics["accuracy"]) == pytest.approx(sum(hits) / 8)
    assert not any(metric.requires_grad for metric in output.metrics.values())


def test_it_learns():
    method, batch = make(), make_batch()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    losses = []
    for _ in range(30):
        output = method(batch, PROGRESS)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.metrics["loss"]))
    assert losses[-1] < losses[0] / 2


def test_embed_and_classify():
    method, images = make().eval(), make_batch().support.groups[0]
    assert torch.equal(method.embed(images), method.backbone(images))
    assert torch.equal(method.classify(images), method.classifier(method.embed(images)))
    assert (method.uses_views, method.uses_support, method.predicts_by) == (False, True, "classifier")


def test_the_loss_is_float32_under_autocast():
    method = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(make_batch(), PROGRESS)
    assert {output.loss.dtype, output.metrics["accuracy"].dtype} == {torch.float32}


def test_bad_smoothing_names_field_and_value():
    with pytest.raises(ValueError, match=r"^label_smoothing is 1.0: use "):
        SupervisedConfig(label_smoothing=1.0)
