"""One training of `ingredients.py`, and its judgement: a plain loop around the library's views, network and losses."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from ingredients_data import MOST_SUPPORTS, Indices, Pool
from ingredients_parts import Alignment, Average, cutout, make_gate, whiten
from ingredients_rungs import Settings
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from tapetum.evaluation.nearest_neighbours import nearest_neighbour_votes
from tapetum.evaluation.soft_neighbours import classify_by_neighbours
from tapetum.losses.classification import classification_loss
from tapetum.losses.paws import paws_loss
from tapetum.losses.simclr import nt_xent_loss
from tapetum.losses.suncet import suncet_loss
from tapetum.nn.batch_norm import batch_statistics, running_statistics_frozen
from tapetum.nn.heads import HeadConfig, build_heads
from tapetum.nn.small_net import SmallNet, SmallNetConfig
from tapetum.ops.randomness import make_keys, torch_seed
from tapetum.ops.soft_neighbours import smooth_one_hot
from tapetum.optim.optimizers import MuonConfig, ScheduleConfig, SGDConfig, build_optimizer, set_schedules

TEMPERATURE, SHARPEN = 0.1, 0.25
"""tau and T of PAWS; tau is SuNCEt's and SimCLR's, too."""
WHITENED_BY = 5000
"""Images whose patches whiten."""
NEIGHBOURS = 20
"""Votes of the floor."""
Found = dict[str, dict[str, float]]
"""Way of looking ("plain", "mirrored") -> judge -> top-1 in percent."""


class Learner(nn.Module):
    """Network, linear classifier and projector."""

    def __init__(self, widths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.backbone = SmallNet(SmallNetConfig(widths=widths))
        self.projector, _ = build_heads(HeadConfig(hidden=256, output=128, layers=2), widths[-1])
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C) logits and (B, D) projections of (B, 3, H, W) views."""
        features = self.backbone(views)
        return self.classifier(features), self.projector(features)


class Training:
    """Trains a learner as `settings` say, for `budget` units of work."""

    def __init__(self, pool: Pool, settings: Settings, seed: int, budget: float) -> None:
        torch.manual_seed(torch_seed(seed, "weights"))
        self.pool, self.settings, self.seed = pool, settings, seed
        self.learner = Learner(settings.widths, pool.num_classes).to(memory_format=torch.channels_last)
        if settings.whiten:
            first = pool.unlabelled(WHITENED_BY, seed, 0)
            whiten(self.learner.backbone.stem, torch.cat(list(pool.judged_views(first, settings.size))))
        self.steps = settings.steps_for(budget, pool.num_classes)
        self.units = sum(settings.step_cost(step / self.steps, pool.num_classes) for step in range(self.steps))
        self.averages = {d: Average(self.learner, d) for d in {settings.teacher, settings.average} if d}
        self.gate, self.align = make_gate(settings.gate, pool.num_classes), Alignment(pool.num_classes)
        self.classes = torch.arange(pool.num_classes)
        schedule = {"warmup_epochs": settings.warmup, "hold": settings.hold}  # an epoch is the whole training
        rates = {"lr": ScheduleConfig(peak=settings.lr, **schedule), "weight_decay": settings.weight_decay}
        is_muon = settings.optimizer == "muon"
        self.config = MuonConfig(kernel_lr=settings.muon_lr, **rates) if is_muon else SGDConfig(**rates)
        self.optimizer = build_optimizer(self.config, self.learner)
        self.mixed_in = (torch.empty(0), torch.empty(0))
        """Of each labelled image of the step: the label that is mixed into it, and its own share."""
        self.weights: list[float] = []
        """Mean weight of the pseudo-labels of each step."""
        self.right: list[float] = []
        """Share of that weight that lies on true labels: only reported, never learned from."""

    @property
    def judged(self) -> Learner:
        """What is judged after the training."""
        average = self.averages.get(self.settings.average)
        return self.learner if average is None else average.model  # type: ignore[return-value]

    def run(self) -> dict[str, Any]:
        """Train, and tell how long it took and how good the pseudo-labels were in the last tenth of the steps."""
        began, cpu = time.perf_counter(), time.process_time()
        self.learner.train()
        for step in range(self.steps):
            self._step(step)
        told: dict[str, Any] = {"steps": self.steps, "units": round(self.units)}
        told["seconds"] = round(time.perf_counter() - began, 1)
        told["cpu_seconds"] = round(time.process_time() - cpu, 1)
        if self.weights:
            last = max(1, self.steps // 10)
            told["pseudo_labels"] = {
                "weight": round(float(np.mean(self.weights[-last:])), 3),
                "right": round(float(np.mean(self.right[-last:])), 3),
            }
        return told

    def _step(self, step: int) -> None:
        set_schedules(self.optimizer, self.config, step, self.steps, self.steps)
        self.optimizer.zero_grad()
        self._loss(step).backward()
        self.optimizer.step()
        for average in self.averages.values():
            average.update(self.learner)

    def _loss(self, step: int) -> Tensor:
        s, share = self.settings, step / self.steps
        size = s.size_at(share)
        indices = self.pool.supports(s.all_labels, s.supports_per_class, self.seed, step)
        labels = torch.from_numpy(self.pool.truth[indices])
        supports = self._views(indices, s.support_view, size, step, "support views", s.support_cutout)
        if s.mixup:
            supports = self._mixed(supports, labels, step)
        if not s.sees_unlabelled(share):
            if s.before != "nothing":
                unlabelled = self.pool.unlabelled(s.images, self.seed, step)
                term = self._paws if s.before == "paws" else self._simclr
                return term(supports, labels, unlabelled, share / s.start, step, size)
            return self._supervised(*self.learner(supports), labels)
        weight = s.unlabelled_weight * (min(1.0, (share - s.start) / s.ramp) if s.ramp else 1.0)
        unlabelled = self.pool.unlabelled(s.images, self.seed, step)
        term = self._paws if s.unlabelled == "paws" else self._pseudo_labels
        return term(supports, labels, unlabelled, weight, step, size)

    def _mixed(self, supports: Tensor, labels: Tensor, step: int) -> Tensor:
        """Mix each labelled image with another."""
        random = np.random.default_rng([self.seed, step])
        others = torch.from_numpy(random.permutation(len(supports)))
        shares = torch.from_numpy(random.beta(self.settings.mixup, self.settings.mixup, len(supports))).float()
        self.mixed_in = (labels[others], shares)
        shares = shares[:, None, None, None]
        return shares * supports + (1 - shares) * supports[others]

    def _supervised(self, logits: Tensor, projections: Tensor, labels: Tensor) -> Tensor:
        if self.settings.mixup:
            others, shares = self.mixed_in
            losses = [-(self._smoothed(part) * log_softmax(logits, dim=1)).sum(dim=1) for part in (labels, others)]
            return (shares * losses[0] + (1 - shares) * losses[1]).mean()
        loss = classification_loss(logits, labels, self.settings.label_smoothing)
        if self.settings.suncet_weight:
            loss = loss + self.settings.suncet_weight * suncet_loss(projections, self._smoothed(labels), TEMPERATURE)
        return loss

    def _smoothed(self, labels: Tensor) -> Tensor:
        return smooth_one_hot(labels, self.classes, self.settings.label_smoothing)

    def _seen(self, indices: Indices, size: int, step: int, purpose: str) -> Tensor:
        """Views of unlabelled images to learn from."""
        return self._views(indices, self.settings.view, size, step, purpose, self.settings.cutout)

    def _views(self, indices: Indices, view: str, size: int, step: int, purpose: str, side: float) -> Tensor:
        """Views of a kind, with a grey square of this side if it is above 0."""
        views = self.pool.views(indices, view, size, self.seed, step, purpose)
        return cutout(views, side, make_keys(self.seed, "cutout " + purpose, step, indices)) if side else views

    def _of_two_views(self, supports: Tensor, indices: Indices, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Logits and projections of supports, then of the first view of each unlabelled image, then of the second."""
        views = [self._seen(indices, size, step, purpose) for purpose in ("first view", "second view")]
        found: tuple[Tensor, Tensor] = self.learner(torch.cat([supports, *views]))
        return found

    def _paws(self, supports: Tensor, labels: Tensor, indices: Indices, weight: float, step: int, size: int) -> Tensor:
        logits, z = self._of_two_views(supports, indices, step, size)
        n = len(supports)
        first, second = z[n:].detach().chunk(2)
        targets, anchors = torch.cat([second, first]), z[:n].detach()
        terms = paws_loss(z[n:], z[:n], self._smoothed(labels), targets, anchors, 0, TEMPERATURE, SHARPEN)
        loss = self._supervised(logits[:n], z[:n], labels) + weight * sum(terms)
        if self.settings.simclr_weight:
            loss = loss + self.settings.simclr_weight * nt_xent_loss(z[n:], 2, TEMPERATURE)
        return loss

    def _simclr(
        self, supports: Tensor, labels: Tensor, indices: Indices, weight: float, step: int, size: int
    ) -> Tensor:
        """SimCLR needs no labels, so it has its whole weight from the first step."""
        logits, z = self._of_two_views(supports, indices, step, size)
        n = len(supports)
        return self._supervised(logits[:n], z[:n], labels) + nt_xent_loss(z[n:], 2, TEMPERATURE)

    def _pseudo_labels(
        self, supports: Tensor, labels: Tensor, indices: Indices, weight: float, step: int, size: int
    ) -> Tensor:
        mild = self.pool.views(indices, "mild", size, self.seed, step, "labelled view")
        average = self.averages.get(self.settings.teacher)
        teacher = self.learner if average is None else average.model
        with torch.no_grad(), running_statistics_frozen(teacher):
            probabilities = teacher(mild)[0].softmax(dim=1)
        if self.settings.aligned:
            probabilities = self.align(probabilities)
        weights, pseudo_labels = self.gate(probabilities), probabilities.argmax(dim=1)
        self._note(weights, pseudo_labels.numpy() == self.pool.truth[indices])
        logits, z = self.learner(torch.cat([supports, self._seen(indices, size, step, "learning view")]))
        n = len(supports)
        picked = log_softmax(logits[n:], dim=1).gather(1, pseudo_labels[:, None])[:, 0]
        return self._supervised(logits[:n], z[:n], labels) - weight * (weights * picked).mean()

    def _note(self, weights: Tensor, is_right: np.ndarray) -> None:
        total = float(weights.sum())
        self.weights.append(total / len(weights))
        self.right.append(float(weights[torch.from_numpy(is_right)].sum()) / total if total else 0.0)


@torch.no_grad()
def judge(learner: Learner, pool: Pool, settings: Settings) -> Found:
    """Top-1 of the images that judge, plain and with the mean over each image and its mirror image."""
    learner.eval()
    labelled = pool.labelled(settings.all_labels).labelled
    labelled = labelled[:: -(-len(labelled) // MOST_SUPPORTS)]
    labels, truth = torch.from_numpy(pool.truth[labelled]), torch.from_numpy(pool.truth[pool.judged])
    with batch_statistics(learner):  # an untrained network has no running statistics
        seen, supports = (_outputs(learner, pool, rows, settings.judged_size) for rows in (pool.judged, labelled))
    found: Found = {}
    for way, (logits, queries), (_, anchors) in zip(("plain", "mirrored"), seen, supports, strict=True):
        neighbours = classify_by_neighbours(queries, anchors, labels, pool.num_classes, TEMPERATURE)
        found[way] = {"classifier": top1(logits, truth), "soft_neighbours": top1(neighbours, truth)}
    return found


def _outputs(learner: Learner, pool: Pool, rows: Indices, size: int) -> list[tuple[Tensor, Tensor]]:
    """Logits and projections of images, and their means over both mirror images."""
    pairs = [(learner(views), learner(views.flip(3))) for views in pool.judged_views(rows, size)]
    plain, mirrored = ([torch.cat([pair[side][k] for pair in pairs]) for k in range(2)] for side in range(2))
    return [tuple(plain), tuple((a + b) / 2 for a, b in zip(plain, mirrored, strict=True))]  # type: ignore[list-item]


def judge_pixels(pool: Pool) -> Found:
    """Top-1 by the votes of the nearest labelled images' pixels, less the mean of their channel."""
    labelled = pool.chosen.labelled
    rows, queries = (pool.images[torch.from_numpy(part)].float() for part in (labelled, pool.judged))
    mean = rows.mean(dim=(0, 2, 3), keepdim=True)
    labels, truth = torch.from_numpy(pool.truth[labelled]), torch.from_numpy(pool.truth[pool.judged])
    flat = ((part - mean).flatten(1) for part in (queries, rows))
    votes = nearest_neighbour_votes(*flat, labels, pool.num_classes, (NEIGHBOURS,))
    return {"plain": {"nearest_neighbours": top1(votes[NEIGHBOURS], truth)}}


def top1(scores: Tensor, truth: Tensor) -> float:
    """Share of rows whose largest score is that of their class, in percent."""
    return round(100 * float((scores.argmax(dim=1) == truth).float().mean()), 2)
