"""Fine-tuning beside a slow plain version of the published ones, and what it freezes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import tapetum
from tapetum.data.batch import Batch, Views
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.methods.base import Progress
from tapetum.methods.finetune import Finetune, FinetuneConfig
from tapetum.optim.optimizers import ScheduleConfig, SGDConfig, build_optimizer, set_schedules

pytestmark = pytest.mark.usefixtures("one_thread")

PROGRESS = Progress(step=0, steps_per_epoch=3, total_steps=6)


class Backbone(nn.Sequential):
    num_features = 6

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.ReLU())


def make(**settings: object) -> Finetune:
    torch.manual_seed(0)
    return Finetune(FinetuneConfig(**settings), Backbone(), num_classes=3, num_images=9).double()


def make_batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (8,), generator=generator)
    images = torch.randn(8, 3, 2, 2, generator=generator, dtype=torch.float64)
    return Batch(None, None, Views((images,), (1,)), labels, torch.arange(3))


def train(method: Finetune, config: SGDConfig, steps: int = 6) -> list[Tensor]:
    optimizer = build_optimizer(config, method.train())
    losses = []
    for step in range(steps):
        set_schedules(optimizer, config, step, 3, steps)
        loss = method(make_batch(step), PROGRESS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def test_paws_fine_tuning_is_the_published_one():
    """fc1 and bn1 of the projector stay, a zero classifier follows, one rate for all, cosine, Nesterov, no decay."""
    method = make(projector_layers=1)
    torch.manual_seed(0)
    backbone = Backbone()
    plain = nn.Sequential(backbone, nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    plain[1].load_state_dict(method.projector.fc1.state_dict())
    nn.init.zeros_(plain[4].weight)
    nn.init.zeros_(plain[4].bias)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    expected = []
    for step in range(6):
        batch = make_batch(step)
        loss = cross_entropy(plain(batch.support.groups[0]), batch.support_labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        expected.append(loss.detach())
    losses = train(method, SGDConfig(lr=ScheduleConfig(peak=0.02), nesterov=True))
    torch.testing.assert_close(torch.stack(losses), torch.stack(expected), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(method.backbone.state_dict(), backbone.state_dict(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(method.classifier.weight, plain[4].weight, rtol=1e-12, atol=1e-12)


def test_swav_fine_tuning_is_the_published_one():
    """Two learning rates that both drop to a fifth at the milestones."""
    method, plain = make(classifier_start="uniform"), make(classifier_start="uniform")
    groups = [{"params": plain.backbone.parameters(), "lr": 0.01}, {"params": plain.classifier.parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1], gamma=0.2)
    for epoch in range(2):
        for step in range(3):
            batch = make_batch(3 * epoch + step)
            logits = plain.classifier(plain.backbone(batch.support.groups[0]))
            optimizer.zero_grad()
            cross_entropy(logits, batch.support_labels).backward()
            optimizer.step()
        schedule.step()
    lr = ScheduleConfig(peak=0.2, shape="step", milestones=(1.0,), gamma=0.2)
    train(method, SGDConfig(lr=lr, nesterov=False, backbone_lr=0.05))
    torch.testing.assert_close(method.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)


def test_linear_evaluation_trains_the_classifier_alone():
    """On features of evaluation mode, with decay of weights and biases, and a rate that is constant within an epoch."""
    method = make(freeze_backbone=True, classifier_start="normal")
    before = {name: tensor.clone() for name, tensor in method.backbone.state_dict().items()}
    classifier = nn.Linear(6, 3).double()
    classifier.load_state_dict(method.classifier.state_dict())
    assert 0 < float(classifier.weight.detach().abs().max()) < 0.05
    assert not bool(classifier.bias.any())
    optimizer = torch.optim.SGD(classifier.parameters(), momentum=0.9, lr=0.3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    backbone = method.backbone.eval()
    for epoch in range(2):
        for step in range(3):
            batch = make_batch(3 * epoch + step)
            optimizer.zero_grad()
            cross_entropy(classifier(backbone(batch.support.groups[0])), batch.support_labels).backward()
            optimizer.step()
        schedule.step()
    lr = ScheduleConfig(peak=0.3, per_epoch=True)
    train(method, SGDConfig(lr=lr, nesterov=False, weight_decay=1e-2, exclude=False))
    torch.testing.assert_close(method.classifier.state_dict(), classifier.state_dict(), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(before[name], tensor) for name, tensor in method.backbone.state_dict().items())


def test_frozen_statistics_stay_and_are_used():
    method = make(freeze_statistics=True)
    before = {name: tensor.clone() for name, tensor in method.named_buffers()}
    losses = train(method, SGDConfig(lr=ScheduleConfig(peak=0.1)))
    assert all(torch.equal(before[name], tensor) for name, tensor in method.named_buffers())
    assert losses[-1] != losses[0]
    batch = make_batch(0)
    assert torch.equal(method(batch, PROGRESS).loss, method.eval()(batch, PROGRESS).loss)


def test_a_run_becomes_a_classifier(tmp_path, monkeypatch):
    """The first layer of the projector comes along where it is kept; what is new and what is unused is said."""
    monkeypatch.chdir(tmp_path)
    tapetum.train("paws_digits", "run", ["trainer.steps=5"])
    settings = ["method={kind: finetune, projector_layers: 1}", "support={batch_size: 32}", "init=run", "seed=1"]
    summary = tapetum.train("paws_digits", "start", [*settings, "trainer={steps: 0}"])
    start, run = read_weights("start"), read_weights("run")
    for name in ("backbone.stem.weight", "projector.fc1.weight", "projector.bn1.running_mean"):
        assert torch.equal(start[f"method.{name}"], run[f"method.{name}"]), name
    assert not bool(start["method.classifier.weight"].any())
    assert summary["test"]["predicts_by"] == "classifier"
    trained = tapetum.train("paws_digits", "tuned", [*settings, "trainer={steps: 60}"])
    assert trained["test_top1"] == trained["test"]["classifier"]["top1"] > 50


def test_a_single_labelled_image_cannot_be_normalised():
    batch = make_batch(0)
    batch.support, batch.support_labels = Views((batch.support.groups[0][:1],), (1,)), batch.support_labels[:1]
    with pytest.raises(ValueError, match=r"^support.batch_size is 1, but BatchNorm .*: set it to 2 or more\.$"):
        make(projector_layers=1)(batch, PROGRESS)
    frozen = make(projector_layers=1, freeze_statistics=True).train()
    assert torch.isfinite(frozen(batch, PROGRESS).loss), "it needs no other images"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"projector_layers": 3}, "projector_layers is 3: use 0, 1 or 2"),
        ({"projector_hidden": 0}, "projector_hidden is 0: use 1 or more, or null"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**settings)
