"""Suggestions: against slow plain versions, and on blobs where everybody sees what to label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tapetum.evaluation import coverage
from tapetum.evaluation.coverage import by_balls, by_clusters, by_distance, clusters_of, pure_radius, typicality
from tapetum.evaluation.doubt import by_gradients, margins
from tapetum.evaluation.suggestion import (
    FEW_PER_CLASS,
    NEED_LABELS,
    WAYS,
    Labelled,
    default_way,
    distinct,
    suggest_from,
)
from tapetum.ops.randomness import make_keys, uniform

NOBODY = np.array([], dtype=np.int64)
SIZES = (60, 40, 25, 15)


def blobs(sizes=SIZES, spread=0.05, seed=0):
    """Unit rows around one axis each, and the blob of each row; the first row of a blob is its axis."""
    generator = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.eye(8)[of] + spread * generator.normal(size=(len(of), 8))
    rows[np.cumsum((0, *sizes[:-1]))] = np.eye(8)[: len(sizes)]
    return normalize(torch.from_numpy(rows).float(), dim=1), of


def cloud(count=90, seed=1):
    return normalize(torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 5))).float(), dim=1)


def pool(rows, labelled=NOBODY, labels=NOBODY, classes=(), seed=0):
    return Labelled(rows, np.asarray(labelled, np.int64), np.asarray(labels, np.int64), classes, seed)


def distances(rows):
    return (rows[:, None] - rows[None]).double().norm(dim=2)


def known(rows):
    """The cloud with labels of three classes."""
    return pool(rows, [3, 10, 20, 30, 41], [0, 1, 2, 0, 1], ("ash", "birch", "cedar"))


@pytest.fixture
def small_parts(monkeypatch):
    """So few cosines at a time that every function needs many parts, the last of which is shorter."""
    monkeypatch.setattr(coverage, "_SCORES_AT_ONCE", 7 * 90)


# Slow plain versions


def plain_balls(rows, labelled, count, radius):
    near = distances(rows) <= radius
    covered, picked, gains = near[labelled].any(dim=0), [], []
    for _ in range(count):
        counts = [-1 if i in labelled or i in picked else int((near[i] & ~covered).sum()) for i in range(len(rows))]
        picked.append(int(np.argmax(counts)))
        gains.append(max(counts))
        covered = covered | near[picked[-1]]
    return picked, gains


@pytest.mark.parametrize("labelled", [[], [4, 50]])
@pytest.mark.usefixtures("small_parts")
def test_balls_are_those_of_the_greedy_cover(labelled):
    rows = cloud()
    picked, gains = plain_balls(rows, labelled, 12, 0.7)
    assert gains[-1] > 0
    found = by_balls(rows, np.array(labelled, np.int64), 12, 0.7)
    assert (found.indices.tolist(), found.gains.tolist(), found.radius) == (picked, gains, 0.7)


def test_once_all_is_covered_smaller_balls_go_on():
    rows = cloud()
    found = by_balls(rows, np.array([4]), 89, radius=2.1)  # the label covers everything
    assert sorted([4, *found.indices.tolist()]) == list(range(90))
    again = by_balls(rows, np.array([4]), 3, radius=2.1 * 0.75)
    assert found.indices[:3].tolist() == again.indices.tolist()


def test_images_that_are_the_same_to_the_network_end_too():
    rows = normalize(torch.ones(6, 3), dim=1)
    assert by_balls(rows, np.array([2]), 9, 0.5).indices.tolist() == [0, 1, 3, 4, 5]
    assert sorted(by_distance(rows, np.array([2]), 9).tolist()) == [0, 1, 3, 4, 5]
    assert len(suggest_from(pool(rows), 6, "typiclust")) == 6


@pytest.mark.usefixtures("small_parts")
def test_the_radius_is_the_largest_that_is_pure_enough():
    rows, clusters = cloud(), clusters_of(cloud(), 6, make_keys(0))
    radius = pure_radius(rows, clusters, make_keys(1), purity=0.8)

    def purity(at):
        inside = distances(rows) <= at
        return np.mean([bool((clusters[inside[i]] == clusters[i]).all()) for i in range(len(rows))])

    assert purity(radius * 0.98) >= 0.8 > purity(radius * 1.02)


@pytest.mark.usefixtures("small_parts")
def test_typicality_is_one_over_the_mean_distance_to_neighbours_in_the_cluster():
    rows, clusters = cloud(), clusters_of(cloud(), 3, make_keys(0))
    clusters[7] = 3  # alone
    expected = []
    for i in range(len(rows)):
        inside = [j for j in range(len(rows)) if clusters[j] == clusters[i] and j != i]
        if not inside:
            expected.append(0.0)
            continue
        nearest = distances(rows)[i, inside].sort().values[: max(1, min(20, (len(inside) + 1) // 2))]
        expected.append(1 / (float(nearest.mean()) + 1e-5))
    np.testing.assert_allclose(typicality(rows, clusters), expected, rtol=1e-4)


def test_clusters_with_the_fewest_labels_have_their_turn_first_and_small_ones_the_last():
    clusters = torch.tensor([0] * 12 + [1] * 9 + [2] * 3 + [3] * 7)
    score = torch.arange(31).flip(0).float() % 10  # with equal ones, of which the first is meant
    labelled = np.array([0, 1, 13, 29])
    had, picked = {0: 2, 1: 1, 2: 0, 3: 1}, []
    sizes = {0: 12, 1: 9, 2: 3, 3: 7}
    while len(picked) < 27:
        open_ones = {
            c: [i for i in range(31) if clusters[i] == c and i not in labelled and i not in picked] for c in had
        }
        turn = min((c for c in had if open_ones[c]), key=lambda c: (sizes[c] <= 5, had[c], -sizes[c]))
        picked.append(max(open_ones[turn], key=lambda i: (float(score[i]), -i)))
        had[turn] += 1
    assert by_clusters(clusters, labelled, score, 40).tolist() == picked
    assert by_clusters(clusters, labelled, score, 5).tolist() == picked[:5]


@pytest.mark.parametrize("labelled", [[], [4, 50]])
@pytest.mark.usefixtures("small_parts")
def test_the_farthest_are_those_of_greedy_k_center(labelled):
    rows = cloud()
    far, picked = distances(rows), []
    for _ in range(10):
        centres = [*labelled, *picked]
        if not centres:
            picked.append(int((rows @ rows.mean(dim=0)).argmax()))
            continue
        nearest = far[:, centres].amin(dim=1)
        nearest[centres] = -1
        picked.append(int(nearest.argmax()))
    assert by_distance(rows, np.array(labelled, np.int64), 10).tolist() == picked


def test_gradients_are_drawn_as_from_the_whole_matrix_of_them():
    known_ones = known(cloud())
    rows, shares, labelled = known_ones.rows, known_ones.shares(), known_ones.labelled
    key = make_keys(5)
    residuals = shares - torch.nn.functional.one_hot(shares.argmax(dim=1), 3)
    gradients = (residuals[:, :, None] * rows[:, None, :]).reshape(len(rows), -1).double()
    numbers = uniform(make_keys(int(key), np.arange(8)), 1)[:, 0]
    is_open = torch.ones(len(rows), dtype=torch.bool)
    is_open[labelled] = False
    picked = [int(torch.where(is_open, gradients.norm(dim=1), -1).argmax())]
    for number in numbers[1:]:
        is_open[picked[-1]] = False
        nearest = (gradients[:, None] - gradients[None, picked]).square().sum(dim=2).amin(dim=1)
        total = torch.where(is_open, nearest, 0.0).cumsum(dim=0)
        picked.append(int((total <= number * total[-1]).sum()))
    assert by_gradients(rows, shares, labelled, 8, key).tolist() == picked
    assert not set(picked) & set(labelled.tolist())


def test_equal_gradients_are_drawn_too():
    rows, shares = normalize(torch.ones(5, 2), dim=1), torch.full((5, 2), 0.5)
    assert sorted(by_gradients(rows, shares, np.array([1]), 9, make_keys(0)).tolist()) == [0, 2, 3, 4]


def test_margins():
    shares = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]])
    assert margins(shares).tolist() == pytest.approx([0.2, 0.8])


# Where everybody sees what to label


@pytest.mark.parametrize("way", ["typiclust", "probcover", "kcenter"])
def test_the_first_labels_are_one_of_each_blob(way):
    rows, of = blobs()
    found = suggest_from(pool(rows, classes=("ash", "birch", "cedar", "oak")), len(SIZES), way)
    assert sorted(of[one.image] for one in found) == [0, 1, 2, 3]


def test_the_largest_blob_comes_first_and_its_middle_is_typical():
    rows, of = blobs()
    found = suggest_from(pool(rows), 4, "typiclust")
    assert [of[one.image] for one in found] == [0, 1, 2, 3]
    axes = np.cumsum((0, *SIZES[:-1]))
    for one, axis in zip(found, axes):  # nearer to the blob's axis than three quarters of its images
        assert (rows[of == of[one.image]] @ rows[axis] < rows[one.image] @ rows[axis]).float().mean() > 0.75
    assert found[0].reason == "typical of 60 similar images"


@pytest.mark.parametrize("way", ["typiclust", "probcover", "kcenter"])
def test_what_has_a_label_is_covered(way):
    rows, of = blobs()
    labelled = [int(np.flatnonzero(of == b)[5]) for b in (0, 2)]
    found = suggest_from(pool(rows, labelled, [0, 1], ("ash", "birch", "cedar", "oak")), 2, way)
    assert sorted(of[one.image] for one in found) == [1, 3]


@pytest.mark.parametrize("way", NEED_LABELS)
def test_doubt_is_between_classes(way):
    """Two blobs with a bridge between them: what lies on the bridge is in doubt."""
    angles = torch.cat([torch.linspace(0, 0.2, 20), torch.linspace(0.7, 0.85, 6), torch.linspace(1.35, 1.55, 20)])
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    given = pool(rows, [0, 45], [0, 1], ("ash", "birch"))
    first = suggest_from(given, 1, way)[0]
    assert 20 <= first.image < 26
    assert "ash (" in first.reason
    assert "birch (" in first.reason


@pytest.mark.parametrize("way", WAYS)
def test_each_way_suggests_unlabelled_images_once_and_the_same_ones_again(way):
    given = known(cloud())
    found = suggest_from(given, 12, way)
    indices = [one.image for one in found]
    assert len(set(indices)) == 12
    assert not set(indices) & set(given.labelled.tolist())
    assert suggest_from(given, 12, way) == found
    assert all(one.reason for one in found)
    assert sorted(one.image for one in suggest_from(given, 1000, way)) == sorted(
        set(range(90)) - set(given.labelled.tolist())
    )


def test_another_seed_draws_others():
    drawn = [[one.image for one in suggest_from(pool(cloud(), seed=seed), 10, "random")] for seed in (0, 1)]
    assert drawn[0] != drawn[1]


@pytest.mark.usefixtures("small_parts")
def test_parts_hold_no_more_than_they_should():
    for others in (1, 13, 90, 10_000):
        parts = list(coverage._parts(cloud(), others))
        assert torch.equal(torch.cat([part for _, part in parts]), cloud())
        assert all(len(part) == 1 or len(part) * others <= 7 * 90 for _, part in parts)
        assert [first for first, _ in parts] == np.cumsum([0, *(len(part) for _, part in parts[:-1])]).tolist()


@pytest.mark.parametrize("way", ["typiclust", "probcover", "kcenter", "doubt"])
def test_parts_change_nothing(way, monkeypatch):
    given = known(cloud())
    found = suggest_from(given, 12, way)
    monkeypatch.setattr(coverage, "_SCORES_AT_ONCE", 7 * 90)
    assert suggest_from(given, 12, way) == found


def test_of_copies_one_stays_and_labelled_ones_always():
    copies = [[0, 3], [2, 5, 6], [7, 8]]
    assert distinct(10, copies, np.array([5, 7, 8])).tolist() == [0, 1, 4, 5, 7, 8, 9]
    assert distinct(3, [], NOBODY).tolist() == [0, 1, 2]


def test_coverage_comes_first_and_doubt_later():
    assert default_way(0, 0) == default_way(50, 1) == default_way(3 * FEW_PER_CLASS - 1, 3) == "typiclust"
    assert default_way(3 * FEW_PER_CLASS, 3) == "doubt"


def test_mistakes_are_one_sentence():
    with pytest.raises(ValueError, match="by is 'typiclsut': choose one of typiclust, probcover"):
        suggest_from(pool(cloud()), 3, "typiclsut")
    one_class = pool(cloud(), [1, 2], [0, 0], ("ash",))
    for way in NEED_LABELS:
        with pytest.raises(ValueError, match=f"by is {way}, which needs labels of two classes"):
            suggest_from(one_class, 3, way)
    assert len(suggest_from(one_class, 3, "typiclust")) == 3
