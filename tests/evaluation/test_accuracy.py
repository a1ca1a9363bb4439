"""Soft nearest-neighbour evaluation against plain numpy, and what it leaves behind."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tapetum.data.images.stores import ArrayStore
from tapetum.data.labels.labels import Labels
from tapetum.data.views.draw import EvaluationViewConfig, ViewConfig, ViewsConfig
from tapetum.evaluation import embedding, soft_neighbours
from tapetum.evaluation.accuracy import (
    Neighbourhood,
    Tally,
    accuracy,
    embed_supports,
    evaluate_by,
    read_evaluation,
)
from tapetum.evaluation.embedding import Embedder, own_batches
from tapetum.evaluation.soft_neighbours import classify_by_neighbours
from tapetum.methods.base import Method

pytestmark = pytest.mark.usefixtures("one_thread")

VIEWS = ViewsConfig(
    large=ViewConfig(size=4, scale=(0.5, 1.0), count=2),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
    evaluation=EvaluationViewConfig(crop=4),
)


CPU = torch.device("cpu")


@dataclass
class OnCPU:
    """The least that a Compute can be."""

    device: torch.device = CPU

    def place_images(self, images: Tensor) -> Tensor:
        return images

    def autocast(self):
        return nullcontext()


class Pixels(Method):
    """Embeds an image as its pixels after batch normalisation, and classifies by its first ones."""

    def __init__(self, classifies: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3)
        self.classifies = classifies
        self.seen: list[int] = []

    def embed(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append(len(images))
        return self.norm(images).flatten(1)

    def classify(self, images: Tensor) -> Tensor | None:
        return images.flatten(1)[:, :3] if self.classifies else None


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 6, 6), dtype=np.uint8)


def labels(values: list[int], classes: int) -> Labels:
    names = tuple(str(i) for i in range(len(values)))
    return Labels(tuple("abcdefghij"[:classes]), names, np.array(values, dtype=np.int64))


def embedded(pixels: np.ndarray) -> np.ndarray:
    """The middle 4x4 pixels, normalised."""
    middle = pixels[:, :, 1:5, 1:5] / 255
    shifted = (middle - np.reshape(VIEWS.mean, (3, 1, 1))) / np.reshape(VIEWS.std, (3, 1, 1))
    return shifted.reshape(len(pixels), -1) / np.sqrt(1 + 1e-5)


def plain_evaluation(queries, truth, supports, support_labels, num_classes):
    """Top-1, top-5 and per class in percent, one query at a time."""
    hits = {c: [] for c in range(num_classes)}
    top5 = []
    for query, true_class in zip(queries, truth, strict=True):
        scores = np.zeros(num_classes)
        for support, c in zip(supports, support_labels, strict=True):
            cosine = query @ support / np.linalg.norm(query) / np.linalg.norm(support)
            scores[c] += np.exp(cosine / 0.1)
        ranked = np.argsort(-scores)
        hits[true_class].append(ranked[0] == true_class)
        top5.append(true_class in ranked[:5])
    every = [hit for of_class in hits.values() for hit in of_class]
    per_class = {c: 100 * np.mean(of_class) for c, of_class in hits.items() if of_class}
    return 100 * np.mean(every), 100 * np.mean(top5), per_class


def result_of(method, pool, pool_labels, test, test_labels):
    embedder = Embedder(method, VIEWS, OnCPU())
    supports = embed_supports(embedder, pool, pool_labels)
    return evaluate_by(embedder, supports, pool_labels.classes, test=test, test_labels=test_labels)


@pytest.mark.parametrize(("num_classes", "classifies"), [(7, False), (3, True)])
def test_plain_version(num_classes, classifies):
    generator = np.random.default_rng(2)
    pool, test = images(40, 0), images(60, 1)
    pool_values = [int(v) for v in generator.integers(-1, num_classes, 40)]  # some are not labelled
    test_values = [int(v) for v in generator.integers(-1, num_classes - 1, 60)]  # the last class has no image
    method = Pixels(classifies)
    result = result_of(
        method, ArrayStore(pool), labels(pool_values, num_classes), ArrayStore(test), labels(test_values, num_classes)
    )
    known, judged = np.array(pool_values) >= 0, np.array(test_values) >= 0
    top1, top5, per_class = plain_evaluation(
        embedded(test[judged]),
        np.array(test_values)[judged],
        embedded(pool[known]),
        np.array(pool_values)[known],
        num_classes,
    )
    ours = result.soft_neighbours
    assert (ours.top1, ours.top5, ours.count) == (pytest.approx(top1), pytest.approx(top5), int(judged.sum()))
    assert ours.per_class == pytest.approx({"abcdefghij"[c]: value for c, value in per_class.items()})
    assert len(per_class) == num_classes - 1
    assert sum(method.seen) == known.sum() + judged.sum()
    assert (result.classifier is not None) == classifies
    assert result.headline is ours
    if classifies:
        first = embedded(test[judged])[:, :3].argmax(1) == np.array(test_values)[judged]
        assert result.classifier.top1 == pytest.approx(100 * first.mean())
        assert result.as_dict()["classifier"]["top1"] == result.classifier.top1


def test_the_headline_is_what_the_method_predicts_by():
    class ByClassifier(Pixels):
        predicts_by = "classifier"

    store, known = ArrayStore(images(9, 0)), labels([0, 1, 2] * 3, 3)
    result = result_of(ByClassifier(classifies=True), store, known, store, known)
    assert result.headline is result.classifier
    assert result.soft_neighbours.top1 == 100  # every image is its own nearest neighbour


def test_probabilities_are_those_of_the_published_temperature():
    p = classify_by_neighbours(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.arange(2), 2)
    assert float(p[0, 0]) == pytest.approx(1 / (1 + np.exp(-np.sqrt(0.5) / 0.1)), rel=1e-4)
    p = classify_by_neighbours(torch.tensor([[1.0, 0.2]]), torch.eye(2), torch.arange(2), 2)
    assert float(p[0, 0]) == pytest.approx(1 / (1 + np.exp(-0.8 / np.sqrt(1.04) / 0.1)), rel=1e-4)


def test_chunks_change_nothing():
    generator = torch.Generator().manual_seed(0)
    queries, supports = torch.randn(50, 8, generator=generator), torch.randn(20, 8, generator=generator)
    values = torch.arange(20) % 4
    whole = classify_by_neighbours(queries, supports, values, 4)
    torch.testing.assert_close(classify_by_neighbours(queries, supports, values, 4, chunk=7), whole)
    assert whole.shape == (50, 4)


def test_a_class_without_supports_has_probability_zero():
    p = classify_by_neighbours(torch.eye(2), torch.eye(2), torch.tensor([0, 2]), 4)
    assert p[:, [1, 3]].abs().max() == 0


def test_fewer_than_five_classes():
    result = accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([0, 0]), ["a", "b"])
    assert (result.top1, result.top5, result.count) == (50.0, 100.0, 2)
    assert result.per_class == {"a": 50.0}


def test_top5_looks_at_five():
    scores = torch.arange(7.0).flip(0).repeat(7, 1)  # class 0 first, class 6 last, for every image
    result = accuracy(scores, torch.arange(7), list("abcdefg"))
    assert result.top1 == pytest.approx(100 / 7)
    assert result.top5 == pytest.approx(500 / 7)


@pytest.mark.parametrize("training", [True, False])
def test_the_method_is_left_as_it_was(training):
    method = Pixels(classifies=True).train(training)
    method.frozen.eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    generator = torch.random.get_rng_state()
    outputs = Embedder(method, VIEWS, OnCPU()).outputs(ArrayStore(images(5, 0)), np.arange(5), batch_size=2)
    assert (method.training, method.norm.training, method.frozen.training) == (training, training, False)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert (outputs.embeddings.shape, outputs.logits.shape) == ((5, 48), (5, 3))
    assert method.seen == [2, 2, 1]


def test_the_modes_return_after_an_error():
    method = Pixels(classifies=False).train()
    views = replace(VIEWS, evaluation=EvaluationViewConfig(crop=9))
    with pytest.raises(ValueError, match="crop is 9"):
        Embedder(method, views, OnCPU()).outputs(ArrayStore(images(2, 0)), np.arange(2))
    assert method.training


@pytest.mark.parametrize("count", [7, 999, 1000, 2345])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_shares_of_a_pool_are_batches_that_all_processes_have_at_once(count, processes):
    shares = [own_batches(count, rank, processes) for rank in range(processes)]
    for rank, share in enumerate(shares):
        assert np.array_equal(np.sort(np.concatenate(share)), np.arange(rank, count, processes))
        assert all(len(part) for part in share)
    whole = own_batches(count, 0, 1)
    if processes in (1, 2, 4):
        for together, batch in zip(zip(*shares), whole, strict=True):
            assert np.array_equal(np.sort(np.concatenate(together)), batch)


def test_every_batch_of_a_pool_has_images_of_every_class():
    classes = np.repeat(np.arange(10), 130)
    assert [len(set(classes[batch])) for batch in own_batches(1300, 0, 1)] == [10, 10, 10]


def test_of_a_pool_only_what_is_asked_for_is_kept(monkeypatch):
    monkeypatch.setattr(embedding, "BATCH_SIZE", 64)
    pixels, method = images(200, 0), Pixels(classifies=False)
    rows = Embedder(method, VIEWS, OnCPU()).own_share(ArrayStore(pixels), np.arange(200), lambda rows: rows[:, :2] * 3)
    np.testing.assert_allclose(rows.numpy(), 3 * embedded(pixels)[:, :2], rtol=1e-5, atol=1e-6)
    assert method.seen == [67, 67, 66]


def test_images_come_in_the_order_of_their_indices():
    pixels = images(6, 0)
    order = np.array([4, 1, 1, 0])
    embedder = Embedder(Pixels(classifies=False), VIEWS, OnCPU())
    outputs = embedder.outputs(ArrayStore(pixels), order, batch_size=3)
    np.testing.assert_allclose(outputs.embeddings.numpy(), embedded(pixels[order]), rtol=1e-5, atol=1e-6)
    assert outputs.logits is None


def test_only_the_nearest_vote_and_the_temperature_weighs_them(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    queries, supports = torch.randn(9, 8, generator=generator), torch.randn(20, 8, generator=generator)
    values = torch.arange(20) % 4
    found = classify_by_neighbours(queries, supports, values, 4, 0.3, most=5, chunk=4)
    for row, query in enumerate(queries):
        cosines = torch.cosine_similarity(query[None], supports)
        nearest = cosines.argsort(descending=True)[:5]
        weights = (cosines[nearest] / 0.3).exp()
        expected = torch.zeros(4).index_add_(0, values[nearest], weights / weights.sum())
        torch.testing.assert_close(found[row], expected)
    whole = classify_by_neighbours(queries, supports, values, 4, 0.3)
    torch.testing.assert_close(classify_by_neighbours(queries, supports, values, 4, 0.3, most=20), whole)
    assert not torch.allclose(found, whole)
    monkeypatch.setattr(soft_neighbours, "SCORES_AT_ONCE", 40)  # fewer than one-hot rows of the supports take
    monkeypatch.setattr(soft_neighbours, "hard_labels", None)
    torch.testing.assert_close(classify_by_neighbours(queries, supports, values, 4, 0.3), whole)
    with pytest.raises(ValueError, match="temperature is 0: use a number above 0"):
        Neighbourhood(temperature=0)
    with pytest.raises(ValueError, match="top_k is 0: use 1 or more"):
        Neighbourhood(most=0)


def test_a_tally_of_batches_is_the_accuracy_of_all():
    generator = torch.Generator().manual_seed(0)
    scores, truth = torch.randn(50, 7, generator=generator), torch.randint(0, 6, (50,), generator=generator)
    tally = Tally("abcdefg")
    for part in range(0, 50, 8):
        tally.add(scores[part : part + 8], truth[part : part + 8])
    assert tally.accuracy() == accuracy(scores, truth, "abcdefg")
    hits = (scores.argmax(dim=1) == truth).double()
    assert tally.accuracy().top1 == 100 * float(hits.mean())
    assert set(tally.accuracy().per_class) == set("abcdef")


def test_an_evaluation_survives_json():
    store, known = ArrayStore(images(9, 0)), labels([0, 1, 2] * 3, 3)
    evaluation = result_of(Pixels(classifies=True), store, known, store, known)
    assert read_evaluation(json.loads(json.dumps(evaluation.as_dict()))) == evaluation


class WithParts(Pixels):
    """Its own embedding doubles the backbone's; the predictor turns the sign."""

    def __init__(self):
        super().__init__(classifies=False)
        self.backbone, self.predictor = (lambda x: x.flatten(1)), (lambda h: -h)

    def embed(self, images):
        return 2 * self.backbone(images)


def test_features_of_a_methods_parts():
    store = ArrayStore(images(4, 0))
    own = Embedder(WithParts(), VIEWS, OnCPU())
    rows = {
        name: replace(own, features=name).outputs(store, np.arange(4)).embeddings
        for name in ("own", "backbone", "predictor")
    }
    assert torch.equal(rows["own"], 2 * rows["backbone"])
    assert torch.equal(rows["predictor"], -rows["own"])
    with pytest.raises(ValueError, match="features is predictor, which this method does not have: leave it out"):
        Embedder(Pixels(classifies=False), VIEWS, OnCPU(), "predictor").outputs(store, np.arange(4))


def test_supports_are_not_classified(monkeypatch):
    """Their logits are not used, and the classifier runs the whole network again."""
    method = Pixels(classifies=True)
    monkeypatch.setattr(method, "classify", lambda images: pytest.fail("supports were classified"))
    embedder = Embedder(method, VIEWS, OnCPU())
    assert len(embed_supports(embedder, ArrayStore(images(6, 0)), labels([0, 1, 0, 1, 0, 1], 2)).labels) == 6
