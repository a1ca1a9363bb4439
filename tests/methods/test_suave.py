"""Suave: its two terms by hand, and its prototypes as a classifier."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from tapetum.losses.swav import swapped_prediction_loss
from tapetum.methods.suave import SuaveConfig
from tapetum.ops.sinkhorn import sinkhorn

pytestmark = pytest.mark.usefixtures("one_thread")


def test_forward_and_gradients_by_hand(family):
    method, batch = family.make("suave", label_smoothing=0.2), family.batch_of(0)
    output = method(batch, family.progress_of(0))
    large, small = batch.views.groups
    features = torch.cat([method.backbone(torch.cat([batch.support.groups[0], large])), method.backbone(small)])
    scores = normalize(method.projector(features), dim=1) @ method.prototypes[0].weight.T
    views = scores[12:].unflatten(0, (4, 8))
    codes = torch.stack([sinkhorn(view, 0.05) for view in views[:2]])
    swapped = swapped_prediction_loss(views, codes, (0, 1), 0.1)
    supervised = cross_entropy(scores[:12] / 0.1, batch.support_labels.repeat(2), label_smoothing=0.2)
    expected = (32 * swapped + 12 * supervised) / 44
    results = []
    for loss in (output.loss, expected):
        method.zero_grad()
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in method.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    assert method.backbone.calls[:2] == [12 + 16, 16]


def test_there_is_a_prototype_for_each_class_and_it_classifies(family):
    run = family.trainer("suave", None, 60)
    run.fit()
    method, batch = run.method.eval(), family.batch_of(0)
    assert [len(weight) for weight in method.prototypes.parameters()] == [family.NUM_CLASSES]
    method.train()  # so few steps leave running statistics behind
    logits = method.classify(batch.support.groups[0])
    accuracy = (logits.argmax(1) == batch.support_labels.repeat(2)).double().mean()
    assert logits.shape == (12, family.NUM_CLASSES)
    assert accuracy > 0.8


@pytest.mark.parametrize(("field", "value"), [("label_smoothing", 1.0), ("epsilon", 0.0), ("queue_length", -1)])
def test_bad_settings_name_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"^{field} is {value}: use "):
        SuaveConfig(**{field: value})
