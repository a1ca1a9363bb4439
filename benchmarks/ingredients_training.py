"""One training of `ingredients.py`, and its judgement: a plain loop around the library's views, network and losses."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from ingredients_data import MOST_SUPPORTS, Indices, Pool
from ingredients_parts import Alignment, Average, cutout, make_gate, quarter_turns, warp, whiten
from ingredients_rungs import Settings
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from tapetum.evaluation.nearest_neighbours import nearest_neighbour_votes
from tapetum.evaluation.soft_neighbours import classify_by_neighbours
from tapetum.losses.fixmatch import neighbour_loss
from tapetum.losses.paws import paws_loss
from tapetum.losses.simclr import nt_xent_loss
from tapetum.losses.suncet import suncet_loss
from tapetum.nn.batch_norm import batch_statistics, running_statistics_frozen
from tapetum.nn.heads import HeadConfig, build_heads
from tapetum.nn.small_net import SmallNet, SmallNetConfig
from tapetum.ops.randomness import make_keys, torch_seed
from tapetum.ops.soft_neighbours import sharpen, smooth_one_hot
from tapetum.optim.muon import Muon
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
        self.turns = nn.Linear(widths[-1], 4)

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
        if isinstance(self.optimizer, Muon):
            self.optimizer.iterations = settings.muon_iterations
            self.optimizer.products = getattr(torch, settings.muon_products)
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
        targets = self._smoothed(torch.from_numpy(self.pool.truth[indices]))
        supports = self._views(indices, s.support_view, size, step, "support views", s.support_cutout, s.support_warp)
        unlabelled = self.pool.unlabelled(s.images, self.seed, step)
        extra = s.rotations * self._turns(unlabelled, step, size) if s.rotations else 0.0
        if s.sees_unlabelled(share):
            weight = s.unlabelled_weight * (min(1.0, (share - s.start) / s.ramp) if s.ramp else 1.0)
            term = self._paws if s.unlabelled == "paws" else self._pseudo_labels
            return extra + term(supports, targets, unlabelled, weight, step, size)
        if s.before != "nothing":
            term = self._paws if s.before == "paws" else self._simclr
            return extra + term(supports, targets, unlabelled, share / s.start, step, size)
        if s.mixup:
            supports, targets = self._mixed(supports, targets, step)
        return extra + self._supervised(*self.learner(supports), targets)

    def _mixed(self, views: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Mix each image and what is to be learned of it with another."""
        random = np.random.default_rng([self.seed, step])
        others = torch.from_numpy(random.permutation(len(views)))
        shares = torch.from_numpy(random.beta(self.settings.mixup, self.settings.mixup, len(views))).float()
        if self.settings.mixed == "all":
            shares = shares.maximum(1 - shares)
        a, b = shares[:, None, None, None], shares[:, None]
        return a * views + (1 - a) * views[others], b * targets + (1 - b) * targets[others]

    def _supervised(self, logits: Tensor, projections: Tensor, targets: Tensor) -> Tensor:
        loss = cross_entropy(logits, targets)
        if self.settings.suncet_weight:
            loss = loss + self.settings.suncet_weight * suncet_loss(projections, targets, TEMPERATURE)
        return loss

    def _turns(self, indices: Indices, step: int, size: int) -> Tensor:
        """Tell by which quarter turns one more view of each image was turned."""
        views, turns = quarter_turns(self._seen(indices, size, step, "turned view"))
        return cross_entropy(self.learner.turns(self.learner.backbone(views)), turns)

    def _smoothed(self, labels: Tensor) -> Tensor:
        return smooth_one_hot(labels, self.classes, self.settings.label_smoothing)

    def _seen(self, indices: Indices, size: int, step: int, purpose: str) -> Tensor:
        """Views of unlabelled images to learn from."""
        s = self.settings
        return self._views(indices, s.view, size, step, purpose, s.cutout, s.warp)

    def _views(
        self, indices: Indices, view: str, size: int, step: int, purpose: str, side: float, strength: float = 0.0
    ) -> Tensor:
        """Views of a kind, with a grey square of this side, and turned so strongly, if these are above 0."""
        views = self.pool.views(indices, view, size, self.seed, step, purpose)
        if strength:
            views = warp(views, strength, make_keys(self.seed, "warp " + purpose, step, indices))
        return cutout(views, side, make_keys(self.seed, "cutout " + purpose, step, indices)) if side else views

    def _of_two_views(self, supports: Tensor, indices: Indices, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Logits and projections of supports, then of the first view of each unlabelled image, then of the second."""
        views = [self._seen(indices, size, step, purpose) for purpose in ("first view", "second view")]
        found: tuple[Tensor, Tensor] = self.learner(torch.cat([supports, *views]))
        return found

    def _paws(self, supports: Tensor, wanted: Tensor, indices: Indices, weight: float, step: int, size: int) -> Tensor:
        logits, z = self._of_two_views(supports, indices, step, size)
        n = len(supports)
        first, second = z[n:].detach().chunk(2)
        targets, anchors = torch.cat([second, first]), z[:n].detach()
        terms = paws_loss(z[n:], z[:n], wanted, targets, anchors, 0, TEMPERATURE, SHARPEN)
        loss = self._supervised(logits[:n], z[:n], wanted) + weight * sum(terms)
        if self.settings.simclr_weight:
            loss = loss + self.settings.simclr_weight * nt_xent_loss(z[n:], 2, TEMPERATURE)
        return loss

    def _simclr(
        self, supports: Tensor, wanted: Tensor, indices: Indices, weight: float, step: int, size: int
    ) -> Tensor:
        """SimCLR needs no labels, so it has its whole weight from the first step."""
        logits, z = self._of_two_views(supports, indices, step, size)
        n = len(supports)
        return self._supervised(logits[:n], z[:n], wanted) + nt_xent_loss(z[n:], 2, TEMPERATURE)

    def _pseudo_labels(
        self, supports: Tensor, wanted: Tensor, indices: Indices, weight: float, step: int, size: int
    ) -> Tensor:
        s, n = self.settings, len(supports)
        if s.whole:
            weak = next(self.pool.judged_views(indices, s.judged_size))
        else:
            weak = self.pool.views(indices, "mild", size, self.seed, step, "labelled view")
        probabilities = self._assignments(weak)
        weights, pseudo_labels = self.gate(probabilities), probabilities.argmax(dim=1)
        self._note(weights, pseudo_labels.numpy() == self.pool.truth[indices])
        if s.soften:
            assigned = sharpen(probabilities, s.soften)
        else:
            assigned = one_hot(pseudo_labels, self.pool.num_classes).float()
        views = torch.cat([supports, self._seen(indices, size, step, "learning view")])
        targets = torch.cat([wanted, assigned])
        if s.mixup and s.mixed == "all":
            views, targets = self._mixed(views, targets, step)
        elif s.mixup:
            views[:n], targets[:n] = self._mixed(supports, wanted, step)
        logits, z = self.learner(views)
        unlabelled = (weights * cross_entropy(logits[n:], targets[n:], reduction="none")).mean()
        if s.neighbour_weight:
            term = neighbour_loss(z[n:], z[:n], targets[:n], targets[n:], weights, TEMPERATURE)
            unlabelled = unlabelled + s.neighbour_weight * term
        return self._supervised(logits[:n], z[:n], targets[:n]) + weight * unlabelled

    @torch.no_grad()
    def _assignments(self, views: Tensor) -> Tensor:
        """Class probabilities (B, C) of weak views."""
        average = self.averages.get(self.settings.teacher)
        teacher = self.learner if average is None else average.model
        with running_statistics_frozen(teacher):
            sides = [views, views.flip(3)] if self.settings.both_sides else [views]
            probabilities = torch.stack([teacher(side)[0].softmax(dim=1) for side in sides]).mean(dim=0)
        return self.align(probabilities) if self.settings.aligned else probabilities

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
