"""DeepCluster-v2: what its bank, its clusters and its loss are made of."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from tapetum.methods.deepcluster import DeepClusterConfig
from tapetum.nn.batch_norm import batch_statistics
from tapetum.nn.heads import HeadConfig
from tapetum.nn.memory_bank import UNKNOWN
from tapetum.ops.kmeans import kmeans

pytestmark = pytest.mark.usefixtures("one_thread")


def begun(family, **settings):
    method = family.make("deepcluster", **settings)
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    return method


def test_forward_by_hand(family):
    """Every view of an image has the label that the image's cluster had when the epoch began."""
    method, batch = begun(family), family.batch_of(0)
    output = method(batch, family.progress_of(0))
    features = torch.cat([method.backbone(group) for group in batch.views.groups])
    views = normalize(method.projector(features), dim=1).split(8)
    losses = [
        cross_entropy(view @ prototypes.T / 0.1, labels[batch.index])
        for prototypes, labels in zip(method.prototypes.parameters(), method.labels)
        for view in views
    ]
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())
    torch.testing.assert_close(output.carry, torch.stack(views[:2]).detach())
    assert output.metrics["used_prototypes"] == len(method.labels[-1][batch.index].unique())


def test_prototypes_are_the_centroids_of_the_banks_in_turn(family):
    method = begun(family, iterations=30)
    for step in range(4):
        output = method(family.batch_of(step), family.progress_of(step))
        method.after_step(output, family.batch_of(step))
    method.before_epoch(family.progress_of(4), family.embed_all(method))
    assert not torch.equal(method.bank.rows(0), method.bank.rows(1))
    for head, prototypes in enumerate(method.prototypes.parameters()):
        rows, other = method.bank.rows(head % 2), method.bank.rows(head % 2 + 1)
        assert torch.equal(method.labels[head, : family.NUM_IMAGES], kmeans(rows, prototypes, 0)[1])
        # Clustering on from there changes nothing, on this bank alone.
        torch.testing.assert_close(kmeans(rows, prototypes, 3)[0], prototypes)
        assert not torch.allclose(kmeans(other, prototypes, 3)[0], prototypes)


def test_images_held_out_have_no_label_and_those_left_over_keep_theirs(family):
    method = begun(family)
    before = method.bank.rows(0).clone()
    seen = set()
    for step in range(4):
        batch = family.batch_of(step)
        seen |= set(batch.index.tolist())
        output = method(batch, family.progress_of(step))
        method.after_step(output, batch)
        assert torch.equal(method.bank.rows(0)[batch.index], output.carry[0])
    left_over = sorted(set(range(family.NUM_IMAGES)) - seen)
    assert len(left_over) == 2
    assert torch.equal(method.bank.rows(0)[left_over], before[left_over])
    assert (method.labels[:, family.NUM_IMAGES :] == UNKNOWN).all()
    assert (method.labels[:, : family.NUM_IMAGES] >= 0).all()


def test_the_first_bank_is_normalised_by_the_images_and_moves_no_statistics(family):
    method = family.make("deepcluster")
    before = {name: buffer.clone() for name, buffer in method.named_buffers()}
    embed_all = family.embed_all(method)
    method.before_epoch(family.progress_of(0), embed_all)
    assert all(torch.equal(buffer, before[name]) for name, buffer in method.named_buffers())
    with batch_statistics(method):
        expected = embed_all(lambda embeddings: normalize(method.projector(embeddings), dim=1))[1]
    torch.testing.assert_close(method.bank.rows(0), expected)
    assert not torch.allclose(embed_all(method.eval().projector)[1], expected, atol=0.1)


def test_images_that_an_untrained_network_hardly_tells_apart_are_told_apart(family):
    """Smaller than the eps of BatchNorm: what is left of images in a deep network without normalisation."""
    method = family.make("deepcluster")
    with torch.no_grad():
        method.backbone.conv.weight.mul_(1e-4)
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    rows = method.bank.rows(0)
    assert (rows - rows.mean(0)).norm() / rows.norm() > 0.2


def test_each_set_starts_from_other_images(family):
    """Two sets on one bank."""
    method = begun(family, num_prototypes=(5, 5), assigning_views=(0,), iterations=1)
    assert not torch.equal(method.prototypes[0].weight, method.prototypes[1].weight)


def test_a_bank_of_other_images_is_refused(family):
    state = begun(family).local_state()
    with pytest.raises(ValueError, match="holds 35 images, but now there are 36: start a new run"):
        family.make("deepcluster").load_local_state({**state, "labels": state["labels"][:, 1:]})


def test_layers_that_were_trained_keep_their_statistics_for_the_first_bank(family):
    method = family.make("deepcluster")
    method.backbone.norm.running_mean.fill_(0.3)
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    rows, other = method.bank.rows(0), family.make("deepcluster")
    other.before_epoch(family.progress_of(0), family.embed_all(other))
    assert not torch.allclose(rows, other.bank.rows(0), atol=1e-3)


def test_prototypes_are_not_trained(family):
    run = family.trainer("deepcluster", None, 3)  # within the first epoch
    run.fit()
    assert all(p.grad is None for p in run.method.prototypes.parameters())
    assert not any(name.startswith("optimizer.prototypes") for name in family.state_of(run))


def test_more_prototypes_than_images_are_refused(family):
    with pytest.raises(ValueError, match="num_prototypes has 40, but there are only 34 images"):
        begun(family, num_prototypes=(40,))


def test_a_view_that_is_not_there_is_refused(family):
    method = begun(family, assigning_views=(0, 4))
    with pytest.raises(ValueError, match=r"assigning_views is \[0, 4\], but an image has 4 views"):
        method(family.batch_of(0), family.progress_of(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "iterations is 0: use 1 or more"),
        ({"num_prototypes": (1,)}, r"num_prototypes is \[1\]: give"),
        ({"assigning_views": (-1,)}, r"assigning_views is \[-1\]: name"),
        ({"head": HeadConfig(predictor=True)}, "head.predictor is true"),
    ],
)
def test_bad_settings_name_field_and_value(settings, message):
    with pytest.raises(ValueError, match=message):
        DeepClusterConfig(**settings)
