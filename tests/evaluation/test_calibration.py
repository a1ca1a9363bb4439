"""Temperature scaling: against a search by hand, on scores whose truth is known, and what it says of itself."""

import numpy as np
import pytest
import torch

from tapetum.evaluation.calibration import MIN_LABELS, Calibration, calibrate, reliability


def drawn(count: int, temperature: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, and labels drawn from softmax(scores / temperature)."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(count, 4, generator=generator)
    labels = torch.multinomial(torch.softmax(scores / temperature, 1), 1, generator=generator)[:, 0]
    return scores, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_it_finds_the_temperature_that_labels_were_drawn_with(temperature):
    scores, labels = drawn(4000, temperature)
    found = calibrate(scores, labels)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    confidence, predicted = found.probabilities(scores).max(dim=1)
    assert reliability(confidence, predicted == labels).error < 0.03


def test_it_is_the_best_of_a_grid():
    scores, labels = drawn(200, 2.0)
    grid = np.exp(np.linspace(-2, 2, 2001))
    smoothed = torch.full((200, 4), 0.5 / 201 / 3, dtype=torch.float64)
    smoothed[torch.arange(200), labels] = 200.5 / 201
    losses = [-(smoothed * torch.log_softmax(scores.double() / t, 1)).sum() for t in grid]
    assert calibrate(scores, labels).temperature == pytest.approx(grid[int(np.argmin(losses))], rel=3e-3)


def test_all_right_is_not_certain():
    labels = torch.arange(60) % 2
    scores = 5 * torch.nn.functional.one_hot(labels, 2).float()
    confidence = calibrate(scores, labels).probabilities(scores).max(dim=1).values
    assert float(confidence.mean()) == pytest.approx(60.5 / 61, abs=1e-4)


def test_the_order_of_classes_stays():
    scores, labels = drawn(100, 5.0)
    assert torch.equal(calibrate(scores, labels).probabilities(scores).argsort(), scores.argsort())


def test_too_few_labels_choose_nothing_and_it_says_so():
    scores, labels = drawn(MIN_LABELS - 1, 3.0)
    found = calibrate(scores, labels)
    assert (found.temperature, found.num_labels, found.is_calibrated) == (1.0, MIN_LABELS - 1, False)
    assert "NOT calibrated: the run held out 49 labels, and 50 are needed" in found.describe()
    assert "NOT calibrated: no label was held out" in Calibration(1.0, 0).describe()
    assert "calibrated on 50 held-out labels" in calibrate(*drawn(MIN_LABELS, 3.0)).describe()


def test_reliability_against_bins_by_hand():
    confidence = torch.tensor([0.95, 0.91, 0.55, 0.52, 0.58, 1.0])
    found = reliability(confidence, torch.tensor([True, False, True, True, False, True]))
    assert found.counts.tolist() == [3, 3]
    assert found.confidence == pytest.approx([0.55, (0.95 + 0.91 + 1) / 3])
    assert found.accuracy == pytest.approx([2 / 3, 2 / 3])
    assert found.error == pytest.approx((2 / 3 - 0.55 + (0.95 + 0.91 + 1) / 3 - 2 / 3) / 2)
