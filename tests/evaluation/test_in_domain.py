"""Resemblance to labelled images: its scale, its order, and what images of no class change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tapetum.evaluation import in_domain
from tapetum.evaluation.in_domain import learn_domain


def around(centre: int, count: int, spread: float = 0.2, seed: int = 0) -> torch.Tensor:
    """(count, 16) vectors around one axis, of various lengths."""
    generator = torch.Generator().manual_seed(100 * seed + centre)
    rows = torch.eye(16)[centre] + spread * torch.randn(count, 16, generator=generator)
    return rows * (0.5 + torch.rand(count, 1, generator=generator))


def known(count: int = 60) -> torch.Tensor:
    return torch.cat([around(0, count // 2), around(1, count // 2)])


NOTHING = torch.empty(0, 16)


def plain_scores(queries, rows, own=False):
    """The docstring's formula, one image after the other."""
    found = []
    for i, query in enumerate(normalize(queries, dim=1)):
        cosines = [float(query @ row) for j, row in enumerate(normalize(rows, dim=1)) if not (own and i == j)]
        found.append(0.1 * np.log(np.mean(np.exp(np.array(cosines) / 0.1))))
    return np.array(found)


def test_a_share_is_that_of_the_labelled_images_that_score_less():
    rows, queries = known(), torch.cat([around(0, 30, seed=1), around(5, 30, seed=1)])
    shares = learn_domain(rows, NOTHING).shares(queries).numpy()
    own, scores = plain_scores(rows, rows, own=True), plain_scores(queries, rows)
    below = (own[None] < scores[:, None]).mean(axis=1)
    assert np.abs(shares - below).max() <= 1 / 60
    assert shares.min() > 0
    assert shares.max() < 1


def test_the_order_of_scores_is_kept_beyond_the_labelled_images_too():
    rows, queries = known(), around(7, 50)
    shares = learn_domain(rows, NOTHING).shares(queries).numpy()
    assert shares.max() < 1 / 60
    order = plain_scores(queries, rows).argsort()
    assert (np.diff(shares[order]) > 0).all()


def test_new_images_of_the_classes_are_spread_evenly():
    shares = learn_domain(known(400), NOTHING).shares(torch.cat([around(c, 1000, seed=2) for c in (0, 1)])).numpy()
    for share in (0.05, 0.25, 0.5, 0.9):
        assert (shares < share).mean() == pytest.approx(share, abs=0.06)


def test_chosen_images_alone_can_make_the_scale():
    """As if training had moved the first ones together."""
    rows = torch.cat([around(0, 100, spread=0.05), around(0, 100)])
    new = around(0, 500, seed=3)
    by_all, by_some = (learn_domain(rows, NOTHING, judged).shares(new) for judged in (None, torch.arange(100, 200)))
    assert float((by_all < 0.5).double().mean()) > 0.8
    assert float((by_some < 0.5).double().mean()) == pytest.approx(0.5, abs=0.12)


def test_images_of_no_class_that_are_labelled_so_count_against_their_like():
    rows, strangers = known(), around(0, 60, seed=4) + 0.8 * torch.eye(16)[9]
    before = learn_domain(rows, NOTHING).shares(strangers[20:])
    after = learn_domain(rows, strangers[:20]).shares(strangers[20:])
    assert float(after.median()) < 0.5 * float(before.median())
    same = learn_domain(rows, strangers[:20]).shares(torch.cat([around(c, 200, seed=5) for c in (0, 1)]))
    assert float((same < 0.05).double().mean()) < 0.15


def test_lengths_and_chunks_change_nothing(monkeypatch):
    rows, queries = known(), around(0, 33, seed=6)
    whole = learn_domain(rows, around(3, 7))
    monkeypatch.setattr(in_domain, "SCORES_AT_ONCE", 7 * len(rows))
    parts = learn_domain(3 * rows, 0.2 * around(3, 7))
    np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-6)
    np.testing.assert_allclose(parts.shares(5 * queries), whole.shares(queries), atol=1e-5)


def test_two_labelled_images_are_enough():
    domain = learn_domain(torch.eye(2), torch.empty(0, 2))
    shares = domain.shares(torch.tensor([[1.0, 0.1], [-1.0, -1.0]]))
    assert shares[0] > 0.5 > shares[1]


def test_many_labelled_images_are_sampled(monkeypatch):
    monkeypatch.setattr(in_domain, "_MOST_JUDGED", 10)
    assert len(learn_domain(known(), NOTHING).scores) == 10
