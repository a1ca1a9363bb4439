"""RoPAWS: what its forward hands to the loss, and the class prior, which PAWS has as well."""

import pytest
import torch

from tapetum.losses.paws import mean_entropy_loss
from tapetum.losses.ropaws import ropaws_loss
from tapetum.methods.paws import PAWSConfig
from tapetum.methods.ropaws import RoPAWSConfig
from tapetum.ops import precision
from tapetum.ops.precision import widest_float
from tapetum.ops.soft_neighbours import smooth_one_hot
from tapetum.recipe.recipe import load_recipe
from tapetum.runs.run import assemble

pytestmark = pytest.mark.usefixtures("one_thread")


def test_forward_by_hand(family):
    method, batch = family.make("ropaws", prior_temperature=0.5, prior_power=2.0), family.batch_of(0)
    output = method(batch, family.progress_of(0))
    z = method.projector(method.backbone(torch.cat([batch.support.groups[0], batch.views.groups[0]])))
    small = method.projector(method.backbone(batch.views.groups[1]))
    labels = smooth_one_hot(batch.support_labels.repeat(2), batch.support_classes, 0.1)
    match, mean_entropy, known = ropaws_loss(
        *(torch.cat([z[24:], small]), z[:24], labels, torch.cat([z[32:], z[24:32]]), z[:24]),
        *(2, 0.1, 0.25, 0.5, 2.0, 5.0),
    )
    torch.testing.assert_close(output.loss, match + mean_entropy)
    torch.testing.assert_close(output.metrics["known"], known.mean().detach())


@pytest.mark.parametrize("kind_of_paws", ["paws", "ropaws"])
def test_a_class_prior_is_what_the_mean_is_drawn_to(family, kind_of_paws):
    batch = family.batch_of(0)

    def mean_entropy(**settings):
        return family.make(kind_of_paws, **settings)(batch, family.progress_of(0)).metrics["mean_entropy"]

    torch.testing.assert_close(mean_entropy(class_prior=(2.0, 2.0, 2.0)), mean_entropy())
    assert not torch.isclose(mean_entropy(class_prior=(8.0, 1.0, 1.0)), mean_entropy())


def test_the_term_is_least_where_classes_come_out_as_the_prior_says():
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    at_prior = mean_entropy_loss(prior[None], 1.0, prior)
    torch.testing.assert_close(at_prior, -torch.tensor(3.0, dtype=torch.float64).log())
    for other in ([0.6, 0.3, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.7, 0.1, 0.2]):
        assert mean_entropy_loss(torch.tensor([other], dtype=torch.float64), 1.0, prior) > at_prior


def test_the_prior_is_that_of_the_classes_of_the_step(family):
    """In their order, scaled anew where a step has some of the classes."""
    method = family.make("paws", class_prior=(6.0, 1.0, 3.0))
    torch.testing.assert_close(method._class_prior(torch.tensor([2, 0])), torch.tensor([1 / 3, 2 / 3]).double())


def test_a_class_prior_has_a_type_that_the_device_has(monkeypatch):
    recipe = load_recipe("paws_digits", [f"method.class_prior={[6.0, *9 * [1.0]]}", "runtime.accelerator=cpu"])
    assert assemble(recipe).method.class_prior.dtype == torch.float64
    monkeypatch.setattr(precision, "widest_float", lambda device: widest_float(torch.device("mps")))
    method = assemble(recipe).method
    assert method.class_prior.dtype == torch.float32
    torch.testing.assert_close(method._class_prior(torch.tensor([1, 0])), torch.tensor([1 / 7, 6 / 7]))
    assert "class_prior" not in method.state_dict()


def test_a_prior_of_other_classes_is_refused(family):
    with pytest.raises(ValueError, match="class_prior has 2 numbers, but there are 3 classes: give one each"):
        family.make("paws", class_prior=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"class_prior is \[1.0, 0.0\]: give a number above 0"):
        PAWSConfig(class_prior=(1.0, 0.0))


@pytest.mark.parametrize(
    ("field", "value"), [("prior_temperature", 0.0), ("label_ratio", -1.0), ("prior_power", -0.5), ("sharpen", 0.0)]
)
def test_bad_settings_name_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"^{field} is {value}: use "):
        RoPAWSConfig(**{field: value})
