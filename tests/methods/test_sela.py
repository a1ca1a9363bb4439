"""SeLa-v2: what differs from DeepCluster-v2."""

import pytest
import torch

from tapetum.methods.sela import SeLaConfig
from tapetum.ops.sinkhorn import sinkhorn

pytestmark = pytest.mark.usefixtures("one_thread")


def test_labels_are_the_largest_codes_over_all_images(family):
    method = family.make("sela")
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    for head, prototypes in enumerate(method.prototypes.parameters()):
        codes = sinkhorn(method.bank.rows(head) @ prototypes.T, 0.05, method.config.iterations)
        assert torch.equal(method.labels[head, : family.NUM_IMAGES], codes.argmax(1))


def test_every_prototype_gets_its_share(family):
    """Hard labels of 34 images for 4 prototypes: 8.5 each, but for rounding."""
    method = family.make("sela", num_prototypes=(4,), epsilon=0.005, iterations=200)
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    counts = torch.bincount(method.labels[0, : family.NUM_IMAGES], minlength=4)
    assert counts.min() >= 6
    assert counts.max() <= 11


def test_prototypes_are_learned_and_stay_of_unit_length(family):
    run = family.trainer("sela", None, 3)
    before = [p.detach().clone() for p in run.method.prototypes.parameters()]
    run.fit()
    for old, new in zip(before, run.method.prototypes.parameters()):
        assert (old - new).abs().max() > 1e-3
        torch.testing.assert_close(new.detach().norm(dim=1), torch.ones(len(new), dtype=torch.float64))


@pytest.mark.parametrize(("field", "value"), [("epsilon", 0.0), ("iterations", 0)])
def test_bad_settings_name_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"^{field} is {value}: use "):
        SeLaConfig(**{field: value})
