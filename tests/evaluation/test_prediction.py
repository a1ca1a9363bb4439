"""Predictions are those of the evaluation, and their neighbours make them."""

import weakref

import pytest
import torch

from tapetum.evaluation import prediction
from tapetum.evaluation.embedding import Outputs
from tapetum.evaluation.prediction import Supports, predict_from
from tapetum.evaluation.soft_neighbours import classify_by_neighbours

pytestmark = pytest.mark.usefixtures("one_thread")


def world(num_supports: int = 12) -> tuple[Outputs, Supports]:
    generator = torch.Generator().manual_seed(1)
    queries, supports = torch.randn(30, 5, generator=generator), torch.randn(num_supports, 5, generator=generator)
    logits = torch.randn(30, 4, generator=generator)
    return Outputs(queries, logits), Supports(supports, torch.arange(num_supports) % 3, 4)  # class 3 has no support


def test_scores_are_logarithms_of_the_published_evaluation():
    outputs, supports = world()
    found = predict_from(outputs, supports, "soft_neighbours", 3)
    expected = classify_by_neighbours(outputs.embeddings, supports.embeddings, supports.labels, 4)
    torch.testing.assert_close(found.scores.exp(), expected)
    assert torch.equal(found.labels, expected.argmax(dim=1))
    assert torch.isfinite(found.scores).all()


def test_all_neighbours_together_are_the_prediction():
    outputs, supports = world()
    found = predict_from(outputs, supports, "soft_neighbours", 100)
    assert found.neighbours.shape == (30, 12)
    assert (found.weights.diff(dim=1) <= 0).all()
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(30))
    shares = torch.zeros(30, 4).scatter_add_(1, supports.labels[found.neighbours], found.weights)
    torch.testing.assert_close(torch.softmax(found.scores, dim=1), shares)


def test_a_support_is_its_own_nearest_neighbour():
    _, supports = world()
    found = predict_from(Outputs(7 * supports.embeddings, None), supports, "soft_neighbours", 1)
    assert found.neighbours[:, 0].tolist() == list(range(12))


def test_a_classifier_decides_by_its_logits_and_has_neighbours_all_the_same():
    outputs, supports = world()
    found = predict_from(outputs, supports, "classifier", 2)
    assert torch.equal(found.scores, outputs.logits)
    assert torch.equal(found.neighbours, predict_from(outputs, supports, "soft_neighbours", 2).neighbours)


def test_left_out_supports_are_predicted_by_the_others():
    _, supports = world()
    own = torch.tensor([7, 2])
    found = predict_from(Outputs(supports.embeddings[own], None), supports, "soft_neighbours", 100, own)
    assert found.neighbours.shape == (2, 11)
    for i, left_out in enumerate(own.tolist()):
        kept = torch.arange(12) != left_out
        others = Supports(supports.embeddings[kept], supports.labels[kept], 4)
        alone = predict_from(Outputs(supports.embeddings[left_out, None], None), others, "soft_neighbours", 11)
        torch.testing.assert_close(found.scores[i], alone.scores[0])
        torch.testing.assert_close(found.nearest[i], alone.nearest[0])
        assert left_out not in found.neighbours[i]


@pytest.mark.parametrize("predicts_by", ["soft_neighbours", "classifier"])
@pytest.mark.parametrize("own", [None, torch.arange(30) % 12])
def test_many_images_and_classes_are_predicted_by_parts(monkeypatch, predicts_by, own):
    outputs, supports = world()
    expected = predict_from(outputs, supports, predicts_by, 3, own)
    monkeypatch.setattr(prediction, "SCORES_AT_ONCE", 47)  # three images at a time, and no matrix of labels
    compared, shares = [], prediction._shares
    monkeypatch.setattr(
        prediction, "_shares", lambda queries, *of: compared.append(len(queries)) or shares(queries, *of)
    )
    for found, whole in zip(predict_from(outputs, supports, predicts_by, 3, own), expected, strict=True):
        torch.testing.assert_close(found, whole)
    assert compared == [3] * 10


@pytest.mark.parametrize("predicts_by", ["classifier", "soft_neighbours"])
def test_memory_is_that_of_one_part(monkeypatch, predicts_by):
    outputs, supports = world()
    earlier, compute = [], prediction._shares

    def shares(*given):
        assert all(seen() is None for seen in earlier[:-1])  # the last one is let go when this one is made
        found = compute(*given)
        earlier.append(weakref.ref(found[0].untyped_storage()))
        return found

    monkeypatch.setattr(prediction, "_shares", shares)
    monkeypatch.setattr(prediction, "SCORES_AT_ONCE", 7 * 12)
    predict_from(outputs, supports, predicts_by, 0)
    assert len(earlier) == 5
