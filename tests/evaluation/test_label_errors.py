"""Confident learning: against a plain version of the paper, against cleanlab, and on labels that were flipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tapetum.evaluation.label_errors import RANKINGS, find_label_errors


def noisy(count: int = 600, classes: int = 5, share: float = 0.1, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Probabilities (N, C) that are mostly right, given labels (N,) and true labels (N,); some classes are rare."""
    draw = np.random.default_rng(seed)
    true = draw.choice(classes, count, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    given = np.where(draw.random(count) < share, (true + draw.integers(1, classes, count)) % classes, true)
    scores = draw.normal(size=(count, classes)) + 3 * np.eye(classes)[true]
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return torch.from_numpy(shares), torch.from_numpy(given), torch.from_numpy(true)


def plain(shares: list[list[float]], labels: list[int]) -> tuple[list[float], list[int]]:
    """The docstring's formulas, one image after the other: thresholds, and errors in their order."""
    classes, images = range(len(shares[0])), range(len(labels))
    thresholds = []
    for j in classes:
        own = [shares[i][j] for i in images if labels[i] == j]
        thresholds.append(sum(own) / len(own) if own else float("inf"))
    number, may_be = 0, []
    for i in images:
        if max(classes, key=lambda j: shares[i][j]) == labels[i] or labels.count(labels[i]) == 1:
            continue
        may_be.append(i)
        sure = [j for j in classes if shares[i][j] >= thresholds[j] - 1e-6]
        number += bool(sure) and max(sure, key=lambda j: shares[i][j]) != labels[i]
    return thresholds, sorted(may_be, key=lambda i: shares[i][labels[i]])[:number]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_the_formulas_say(seed):
    shares, given, _ = noisy(200, 4, 0.2, seed)
    found = find_label_errors(shares, given)
    thresholds, errors = plain(shares.tolist(), given.tolist())
    np.testing.assert_allclose(found.thresholds, thresholds)
    assert found.ranked.tolist() == errors
    assert len(errors) > 10


def test_the_two_rankings():
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.45, 0.3, 0.25], [0.9, 0.1, 0.0]])
    labels = torch.tensor([0, 0, 1])
    by = {way: find_label_errors(shares, labels, way).doubt for way in RANKINGS}
    np.testing.assert_allclose(by["self_confidence"], [0.5, 0.55, 0.9])
    np.testing.assert_allclose(by["normalised_margin"], [0.5, 0.425, 0.9], rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_cleanlab_ranks_the_same(seed):
    filters, rank = pytest.importorskip("cleanlab.filter"), pytest.importorskip("cleanlab.rank")
    shares, given, _ = noisy(seed=seed)
    for ours, theirs in zip(RANKINGS, ("self_confidence", "normalized_margin")):
        found = find_label_errors(shares, given, ours)
        scores = rank.get_label_quality_scores(given.numpy(), shares.numpy(), method=theirs)
        np.testing.assert_allclose(found.doubt, 1 - scores, atol=1e-9)
        way = {"filter_by": f"low_{theirs}", "return_indices_ranked_by": theirs, "n_jobs": 1}
        issues = filters.find_label_issues(given.numpy(), shares.numpy(), **way)
        likeliest = shares.argmax(dim=1).numpy() == given.numpy()
        assert len(found.ranked) > 30
        assert [i for i in issues.tolist() if not likeliest[i]] == found.ranked.tolist()[: sum(~likeliest[issues])]
        assert abs(len(issues) - len(found.ranked)) <= 2


def test_flipped_labels_come_first():
    shares, given, true = noisy(2000, 5, 0.05)
    found = find_label_errors(shares, given)
    wrong = given != true
    assert wrong[found.ranked[:50]].double().mean() > 0.9
    assert (found.suggested == true)[found.ranked[:50]].double().mean() > 0.9
    assert 0.5 * int(wrong.sum()) < len(found.ranked) < int(wrong.sum())  # some images are not sure of anything


@pytest.mark.parametrize("at_least", [0, 10, 150, 10_000])
def test_the_list_of_errors_goes_on_to_the_labels_most_in_doubt(at_least):
    shares, given, _ = noisy(200, 4, 0.2)
    found = find_label_errors(shares, given)
    errors, order = set(found.ranked.tolist()), (1 - shares[torch.arange(200), given]).argsort(descending=True).tolist()
    others = [row for row in order if row not in errors][: max(0, at_least - len(errors))]
    assert 10 < len(errors) < 150
    assert found.most_doubtful(at_least).tolist() == [row for row in order if row in errors or row in others]
    assert (found.suggested != given).all()
    best = shares.argmax(dim=1)
    assert torch.equal(found.suggested[best != given], best[best != given])


def test_right_labels_are_let_be():
    shares = 0.05 + 0.85 * torch.eye(3).repeat(20, 1)
    found = find_label_errors(shares, torch.arange(60) % 3)
    assert found.ranked.tolist() == []


def test_the_only_label_of_a_class_is_no_error_and_a_class_may_have_none():
    shares = torch.tensor([[0.9, 0.1, 0.0, 0.0]] * 4 + [[0.1, 0.9, 0.0, 0.0]] * 4 + [[0.9, 0.1, 0.0, 0.0]])
    found = find_label_errors(shares, torch.tensor([0] * 4 + [1] * 4 + [2]))
    assert not found.is_error.any()
    assert torch.isinf(found.thresholds[3])


def test_predictions_that_agree_are_no_errors_whatever_an_image_is_sure_to_be():
    shares = torch.tensor([[0.9, 0.1]] * 6 + [[0.54, 0.46]] * 2 + [[0.55, 0.45]] * 8)
    found = find_label_errors(shares, torch.tensor([0] * 8 + [1] * 8))
    np.testing.assert_allclose(found.thresholds, [0.81, 0.45])  # two are sure to be 1, but 0 is likelier still
    assert found.ranked.tolist() == []


@pytest.mark.parametrize(
    ("shares", "labels", "rank_by", "message"),
    [
        (torch.ones(3), [0, 1, 1], "self_confidence", r"probabilities have shape \(3,\)"),
        (torch.ones(2, 2), [0, 1, 1], "self_confidence", r"labels \(3,\): give \(N, C\) and \(N,\)"),
        (torch.full((2, 2), torch.nan), [0, 1], "self_confidence", "not all finite"),
        (torch.ones(2, 2), [0, 2], "self_confidence", r"labels span 0\.\.2: give 0\.\.1"),
        (torch.ones(2, 2), [0, 1], "entropy", "rank_by is 'entropy': use one of self_confidence, normalised_margin"),
    ],
)
def test_mistakes(shares, labels, rank_by, message):
    with pytest.raises(ValueError, match=message):
        find_label_errors(shares, torch.tensor(labels), rank_by)
