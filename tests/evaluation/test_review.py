"""What figures and pages are made of: maps, curves, counts."""

import numpy as np
import pytest
import torch

from tapetum.data.images.stores import ArrayStore
from tapetum.engine.loggers import read_curves
from tapetum.evaluation.calibration import reliability
from tapetum.evaluation.review import Judged, Predicted, principal_components, smooth
from tapetum.reporting.cards import confusions, examples, hardest, least_certain


def predicted(truth, labels, confidence) -> Predicted:
    count = len(truth)
    return Predicted(
        store=ArrayStore(np.zeros((count, 3, 4, 4), np.uint8)),
        rows=np.arange(count),
        labels=np.array(labels),
        confidence=np.array(confidence),
        truth=np.array(truth),
        neighbours=np.zeros((count, 1), np.int64),
        weights=np.ones((count, 1)),
        embeddings=np.eye(count),
    )


def judged(truth, labels, confidence) -> Judged:
    found = predicted(truth, labels, confidence)
    right = torch.from_numpy(found.labels == found.truth)
    return Judged(found, "some images", reliability(torch.from_numpy(found.confidence), right))


def test_confusions_and_their_examples():
    seen = judged([0, 0, 0, 1, 1, 2, 2], [1, 1, 0, 1, 0, 1, 2], [0.5, 0.9, 0.8, 0.7, 0.6, 0.4, 0.3])
    counts = seen.confusion(3)
    assert counts.tolist() == [[1, 2, 0], [1, 1, 0], [0, 1, 1]]
    assert seen.top1 == pytest.approx(100 * 3 / 7)
    assert seen.interval[0] < seen.top1 < seen.interval[1]
    assert confusions(counts) == [(0, 1), (1, 0), (2, 1)]
    assert examples(seen.predicted, 0, 1).tolist() == [1, 0]
    assert hardest(seen.predicted).tolist() == [1, 4, 0, 5]


def test_the_least_certain_are_unlabelled():
    assert least_certain(predicted([-1, 0, -1, -1], [0, 1, 0, 1], [0.9, 0.1, 0.4, 0.6])).tolist() == [2, 3, 0]


def test_known_classes_are_shown_before_predicted_ones():
    assert predicted([-1, 0, 2], [1, 1, 2], [1, 1, 1]).shown_classes.tolist() == [1, 0, 2]


def test_principal_components_against_the_singular_value_decomposition():
    points = np.random.default_rng(0).normal(size=(50, 6)) * np.array([5, 3, 1, 1, 0.5, 0.1])
    ours = principal_components(points)
    centred = points - points.mean(0)
    left, values, _ = np.linalg.svd(centred)
    theirs = left[:, :2] * values[:2]
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(principal_components(points[::-1])[::-1], ours, rtol=1e-6, atol=1e-9)  # signs, too
    assert principal_components(points[:, :1]).shape == (50, 2)


def test_curves_skip_what_is_empty_or_not_finite(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss,eval/x\n1,2.5,\n2,nan,50\n3,1.5,\n")
    curves = read_curves(tmp_path / "metrics.csv")
    assert {name: (steps.tolist(), values.tolist()) for name, (steps, values) in curves.items()} == {
        "step": ([1, 2, 3], [1, 2, 3]),
        "train/loss": ([1, 3], [2.5, 1.5]),
        "eval/x": ([2], [50]),
    }
    assert read_curves(tmp_path / "nothing.csv") == {}


def test_curves_leave_out_the_line_that_is_being_written(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,2.5\n2,1.2e-")
    steps, values = read_curves(tmp_path / "metrics.csv")["train/loss"]
    assert (steps.tolist(), values.tolist()) == ([1], [2.5])


def test_smoothing_keeps_short_curves_and_averages_long_ones():
    steps, values = np.arange(1, 1001), np.arange(1000.0)
    few, means = smooth(steps, values, 10)
    assert few.tolist() == [50.5 + 100 * i for i in range(10)]
    assert means.tolist() == [49.5 + 100 * i for i in range(10)]
    assert smooth(steps[:5], values[:5])[1].tolist() == values[:5].tolist()
