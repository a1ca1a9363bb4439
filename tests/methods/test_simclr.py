"""SimCLR and SimCLR+CT: their forwards against the losses called by hand."""

import pytest
import torch

from tapetum.data.batch import Views
from tapetum.losses.simclr import nt_xent_loss
from tapetum.losses.suncet import suncet_loss
from tapetum.methods.simclr import SimCLRConfig
from tapetum.methods.suncet import SuNCEtConfig
from tapetum.nn.heads import HeadConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("key_gradient", [False, True])
def test_simclr_by_hand(family, key_gradient):
    method, batch = family.make("simclr", key_gradient=key_gradient, temperature=0.2), family.batch_of(0)
    output = method(batch, family.progress_of(0))
    features = torch.cat([method.backbone(group) for group in batch.views.groups])
    expected = nt_xent_loss(method.projector(features), 4, 0.2, key_gradient)
    results = []
    for loss in (output.loss, expected):
        method.zero_grad()
        loss.backward()
        results.append([p.grad.clone() for p in method.parameters()])
    torch.testing.assert_close(output.loss, expected)
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("step", [0, 5, 6])
def test_suncet_is_part_of_the_loss_in_the_first_epochs(family, step):
    """1.5 epochs of 4 steps."""
    method, batch = family.make("suncet", supervised_weight=0.5, simclr_weight=2.0), family.batch_of(0)
    output = method(batch, family.progress_of(step))
    supports = batch.support.groups[0] if step < 6 else batch.support.groups[0][:0]
    large, small = batch.views.groups
    z = method.projector(torch.cat([method.backbone(torch.cat([supports, large])), method.backbone(small)]))
    expected = 2.0 * nt_xent_loss(z[len(supports) :], 4, 0.1, key_gradient=False)
    if step < 6:
        one_hot = torch.eye(3, dtype=torch.float64)[batch.support_labels].repeat(2, 1)
        expected = expected + 0.5 * suncet_loss(z[: len(supports)], one_hot, 0.1)
    torch.testing.assert_close(output.loss, expected)
    assert ("suncet" in output.metrics) == (step < 6)
    assert method.backbone.calls[:2] == [len(supports) + 16, 16]


def test_explicit_labels_of_uneven_classes(family):
    """Their order does not matter, which labels they are does."""
    method, batch = family.make("suncet"), family.batch_of(0)
    batch.support.counts, images = (1,), batch.support.groups[0][:5]

    def suncet(order, labels):
        batch.support.groups, batch.support_labels = (images[order],), torch.tensor(labels)[order]
        return method(batch, family.progress_of(0)).metrics["suncet"]

    some = suncet([0, 1, 2, 3, 4], [0, 1, 0, 1, 0])
    torch.testing.assert_close(suncet([3, 0, 4, 2, 1], [0, 1, 0, 1, 0]), some)
    assert (suncet([0, 1, 2, 3, 4], [0, 0, 0, 1, 1]) - some).abs() > 1e-3


def test_suncet_alone_trains_on_labels_and_leaves_statistics_as_they_are(family):
    method, batch = family.make("suncet", simclr_weight=0.0, freeze_statistics=True, supervised_epochs=0.0), None
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    losses = []
    for _ in range(40):
        batch = family.batch_of(0)
        output = method.train()(batch, family.progress_of(9))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in method.named_buffers())
    one_hot = torch.eye(3, dtype=torch.float64)[batch.support_labels].repeat(2, 1)
    expected = suncet_loss(method.eval().embed(batch.support.groups[0]), one_hot, 0.1)
    torch.testing.assert_close(method.train()(batch, family.progress_of(9)).loss, expected)
    assert method.projector.training
    assert set(method.backbone.calls) == {24}


@pytest.mark.parametrize("which", ["simclr", "suncet"])
def test_too_little_to_compare_is_refused(family, which):
    batch = family.batch_of(0)
    batch.views.groups, batch.views.counts = (batch.views.groups[0][:8],), (1,)
    with pytest.raises(ValueError, match=r"^views.large.count is 1"):
        family.make(which)(batch, family.progress_of(0))
    batch.views.groups, batch.views.counts = (batch.views.groups[0][:2],), (2,)
    with pytest.raises(ValueError, match=r"^data.batch_size is 1"):
        family.make(which)(batch, family.progress_of(0))


def test_a_single_labelled_image_alone_is_refused(family):
    batch = family.batch_of(0)
    batch.support, batch.support_labels = Views((batch.support.groups[0][:1],), (1,)), batch.support_labels[:1]
    with pytest.raises(ValueError, match=r"^support.batch_size is 1, but BatchNorm"):
        family.make("suncet", simclr_weight=0.0)(batch, family.progress_of(0))


@pytest.mark.parametrize("field", ["supervised_epochs", "supervised_weight", "simclr_weight"])
def test_bad_settings_name_field_and_value(field):
    with pytest.raises(ValueError, match=f"^{field} is -1.0: use 0 or more"):
        SuNCEtConfig(**{field: -1.0})


@pytest.mark.parametrize("config", [SimCLRConfig, SuNCEtConfig])
def test_a_predictor_is_refused(config):
    with pytest.raises(ValueError, match=r"^head.predictor is true"):
        config(head=HeadConfig(predictor=True))
