"""The linear probe against scikit-learn, against plain gradient descent, and where few labels make it awkward."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

from tapetum.evaluation import linear_probe as module
from tapetum.evaluation.linear_probe import (
    CANDIDATES,
    DEFAULT_REGULARISATION,
    LinearProbe,
    choose_regularisation,
    fit_linear_probe,
    linear_probe,
)
from tapetum.ops import logistic_regression

pytestmark = pytest.mark.usefixtures("one_thread")


def blobs(count, dimension=6, classes=3, seed=0, spread=1.0):
    """Overlapping classes in correlated columns of different scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    means = spread * torch.randn(classes, dimension, generator=generator)
    rows = means[labels] + torch.randn(count, dimension, generator=generator)
    mixed = rows @ torch.randn(dimension, dimension, generator=generator)
    return mixed * torch.linspace(0.1, 5, dimension) + torch.linspace(-3, 3, dimension), labels


def exactly(rows, labels, num_classes, regularisation):
    return fit_linear_probe(rows, labels, num_classes, regularisation, tolerance=1e-9)


def standardised(rows):
    rows = rows.double()
    return (rows - rows.mean(dim=0)) / rows.std(dim=0, correction=0)


def probabilities(probe, rows):
    return probe.logits(rows).softmax(dim=1)


@pytest.mark.parametrize("regularisation", [1.0, 0.1, 1e-2, 1e-4])
@pytest.mark.parametrize("count, dimension, classes", [(200, 6, 3), (150, 4, 2), (20, 40, 5)])
def test_equal_to_scikit_learn(regularisation, count, dimension, classes):
    """Also for two classes, which scikit-learn fits by one logit, and for fewer images than dimensions."""
    rows, labels = blobs(count, dimension, classes)
    probe = exactly(rows, labels, classes, regularisation)
    # One logit w of two classes is the difference of weights w/2 and -w/2, whose penalty is half as large.
    share = 1 if classes > 2 else 2
    model = LogisticRegression(C=share / (regularisation * count), tol=1e-10, max_iter=10_000)
    model.fit(standardised(rows).numpy(), labels.numpy())
    expected = torch.from_numpy(model.predict_proba(standardised(rows).numpy())).float()
    torch.testing.assert_close(probabilities(probe, rows), expected, atol=1e-3, rtol=0)
    if classes > 2:
        weight = probe.weight.double() * rows.double().std(dim=0, correction=0)
        scale = float(abs(model.coef_).max())
        torch.testing.assert_close(weight / scale, torch.from_numpy(model.coef_) / scale, atol=3e-3, rtol=0)


def test_equal_to_plain_gradient_descent():
    rows, labels = blobs(90)
    x = standardised(rows)
    weight, bias = torch.zeros(3, 6, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(20_000):
        error = ((x @ weight.T + bias).softmax(dim=1) - torch.eye(3, dtype=torch.float64)[labels]) / len(x)
        weight -= 0.3 * (error.T @ x + 0.01 * weight)
        bias -= 0.3 * error.sum(dim=0)
    found = exactly(rows, labels, 3, 0.01).logits(rows)
    torch.testing.assert_close(found.double(), x @ weight.T + bias, atol=2e-3, rtol=0)


def test_copies_of_the_data_change_nothing():
    """lambda means the same for any number of images."""
    rows, labels = blobs(60)
    once = exactly(rows, labels, 3, 0.01)
    often = exactly(rows.repeat(50, 1), labels.repeat(50), 3, 0.01)
    torch.testing.assert_close(often.logits(rows), once.logits(rows), atol=2e-3, rtol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e3, 1e20])
def test_scale_and_shift_of_features_change_nothing(scale):
    rows, labels = blobs(100)
    moved = scale * (rows * torch.tensor([1.0, 10.0, 0.1, 5.0, -1.0, 2.0]) + 7)
    expected = exactly(rows, labels, 3, 0.01).logits(rows)
    torch.testing.assert_close(exactly(moved, labels, 3, 0.01).logits(moved), expected, atol=3e-3, rtol=0)


def test_a_constant_column_gets_no_weight_whatever_it_is_later():
    rows, labels = blobs(100)
    constant = torch.cat([rows, torch.full((100, 1), 1234.567), torch.zeros(100, 1)], dim=1)
    probe = exactly(constant, labels, 3, 0.01)
    assert not probe.weight[:, 6:].any()
    constant[:, 6:] = 1e5
    expected = exactly(rows, labels, 3, 0.01).logits(rows)
    torch.testing.assert_close(probe.logits(constant), expected, atol=2e-3, rtol=0)


def test_two_calls_give_the_same_bits():
    rows, labels = blobs(5000, 10, 4)
    first, second = (linear_probe(rows, labels, 4, seed=3) for _ in range(2))
    assert torch.equal(first[0].weight, second[0].weight)
    assert torch.equal(first[0].bias, second[0].bias)
    assert first[1] == second[1]


def test_logits_in_parts_equal_logits_at_once(monkeypatch):
    rows, labels = blobs(100)
    probe = exactly(rows, labels, 3, 0.01)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    torch.testing.assert_close(probe.logits(rows), rows @ probe.weight.T + probe.bias)
    assert probe.logits(rows[:0]).shape == (0, 3)


def test_blocks_of_rows_change_only_rounding(monkeypatch):
    rows, labels = blobs(100)
    expected = exactly(rows, labels, 3, 0.01).logits(rows)
    monkeypatch.setattr(logistic_regression, "ROWS_AT_ONCE", 7)
    torch.testing.assert_close(exactly(rows, labels, 3, 0.01).logits(rows), expected, atol=2e-3, rtol=0)


def test_autocast_and_half_precision_features_are_computed_in_float32():
    rows, labels = blobs(100)
    rows = rows.bfloat16()
    outside = fit_linear_probe(rows.float(), labels, 3, 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fit_linear_probe(rows, labels, 3, 0.01)
        logits = inside.logits(rows)
    assert torch.equal(inside.weight, outside.weight)
    assert torch.equal(logits, outside.logits(rows.float()))


@pytest.mark.parametrize("regularisation", [1e-3, 1e-8])
def test_separable_classes_do_not_diverge(regularisation):
    rows, labels = blobs(60, 20, 3, spread=20.0)
    probe = exactly(rows, labels, 3, regularisation)
    assert all(bool(part.isfinite().all()) for part in probe)
    assert torch.equal(probe.logits(rows).argmax(dim=1), labels)
    standard = probe.weight.double() * rows.double().std(dim=0, correction=0)
    # At zero weights the objective is log C, so at the minimum the penalty is less.
    assert regularisation / 2 * float(standard.square().sum()) < torch.tensor(3.0).log()


def test_a_class_without_images_is_never_predicted_and_changes_no_other():
    rows, labels = blobs(100)
    expected = exactly(rows, labels, 3, 0.01).logits(rows)
    without = exactly(rows, torch.tensor([0, 2, 4])[labels], 6, 0.01).logits(rows)
    torch.testing.assert_close(without[:, [0, 2, 4]], expected, atol=1e-4, rtol=0)
    assert bool(without.isfinite().all())
    assert not without.softmax(dim=1)[:, [1, 3, 5]].any()
    assert torch.equal(
        linear_probe(rows, labels, 7)[0].logits(rows).argmax(dim=1) < 3, torch.ones(100, dtype=torch.bool)
    )


def test_one_image_of_one_class_is_fitted():
    probe, chosen = linear_probe(torch.randn(1, 4), torch.tensor([1]), 2)
    logits = probe.logits(torch.randn(3, 4))
    assert logits.argmax(dim=1).tolist() == [1, 1, 1]
    assert chosen == DEFAULT_REGULARISATION


def test_with_one_label_of_each_class_the_default_is_chosen():
    rows, labels = blobs(5, 8, 5)
    assert choose_regularisation(rows, labels, 5) == (DEFAULT_REGULARISATION, {})


def test_folds_are_stratified_and_an_only_label_always_trains():
    labels = torch.tensor([0] * 10 + [1] * 7 + [2] * 3 + [3])[torch.randperm(21)]
    fold_of = module._folds(labels.numpy(), 5, seed=1)
    assert fold_of[labels == 3].tolist() == [-1]
    for c, most in ((0, 2), (1, 2), (2, 1)):
        assert fold_of[labels == c].bincount(minlength=5).max() == most
    assert fold_of[labels != 3].bincount(minlength=5).tolist() == [4] * 5
    assert not torch.equal(fold_of, module._folds(labels.numpy(), 5, seed=2))


@pytest.mark.parametrize("counts", [(2, 1, 1), (2, 2, 2), (1, 3, 40)])
def test_few_labels_choose_a_candidate(counts):
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    rows = 10 * torch.eye(3)[labels] + torch.randn(len(labels), 3)
    chosen = choose_regularisation(rows, labels, 3)
    assert chosen.regularisation in CANDIDATES
    assert list(chosen.accuracies) == list(CANDIDATES)
    assert max(chosen.accuracies.values()) == chosen.accuracies[chosen.regularisation]


def test_cross_validation_measures_labels_that_were_held_out():
    """Plainly: fit to the other folds, count in this one. Noise makes weak regularisation lose."""
    rows, labels = blobs(120, 60, 3, spread=0.3)
    rows = standardised(rows).float()
    chosen = choose_regularisation(rows, labels, 3, [1.0, 1e-5], folds=4, seed=5)
    fold_of = module._folds(labels.numpy(), 4, 5)
    for value, accuracy in chosen.accuracies.items():
        hits = 0
        for fold in range(4):
            out = fold_of == fold
            probe = fit_linear_probe(rows[~out], labels[~out], 3, value)
            hits += int((probe.logits(rows[out]).argmax(dim=1) == labels[out]).sum())
        assert accuracy == pytest.approx(100 * hits / 120, abs=3)  # there each fold is standardised by itself
    assert chosen.accuracies[1.0] > chosen.accuracies[1e-5]
    assert chosen.regularisation == 1.0


def test_a_thousand_classes():
    rows = torch.randn(1000, 40, generator=torch.Generator().manual_seed(0))
    probe = fit_linear_probe(rows, torch.arange(1000), 1000, 1e-4)
    assert float((probe.logits(rows).argmax(dim=1) == torch.arange(1000)).float().mean()) > 0.9


def test_the_gradient_and_curvature_are_those_of_the_objective():
    rows, labels = standardised(blobs(50)[0]), blobs(50)[1]
    objective = logistic_regression.Objective([(rows, labels)], torch.eye(6).double(), rows.square().mean(dim=0), 3)
    theta = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    loss = cross_entropy(rows @ theta[:, :-1].T + theta[:, -1], labels) + 0.05 * theta[:, :-1].square().sum()
    loss.backward()
    value, gradient, curvature = objective.value(theta.detach(), 0.1)
    assert value == pytest.approx(float(loss.detach()), abs=1e-6)
    torch.testing.assert_close(gradient.double(), theta.grad, atol=1e-6, rtol=0)
    p = (rows @ theta[:, :-1].T + theta[:, -1]).softmax(dim=1).detach()
    torch.testing.assert_close(curvature[:, -1].double(), (p * (1 - p)).mean(dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused_by_row(bad):
    rows, labels = blobs(30)
    rows[17, 2] = bad
    for call in (
        lambda: fit_linear_probe(rows, labels, 3, 0.1),
        lambda: choose_regularisation(rows, labels, 3),
        lambda: linear_probe(rows, labels, 3),
    ):
        with pytest.raises(ValueError, match="row 17 are NaN or infinite"):
            call()


def test_mistakes_are_refused():
    rows, labels = blobs(30)
    with pytest.raises(ValueError, match="labels contain -1"):
        fit_linear_probe(rows, labels - 1, 3, 0.1)
    with pytest.raises(ValueError, match="labels contain 2"):
        fit_linear_probe(rows, labels, 2, 0.1)
    with pytest.raises(ValueError, match="regularisation is 0"):
        fit_linear_probe(rows, labels, 3, 0.0)
    with pytest.raises(ValueError, match="give each row one label"):
        fit_linear_probe(rows[:0], labels[:0], 3, 0.1)
    with pytest.raises(ValueError, match="folds is 1"):
        choose_regularisation(rows, labels, 3, folds=1)


def test_a_probe_is_a_plain_pair():
    weight, bias = LinearProbe(torch.eye(2), torch.zeros(2))
    assert torch.equal(LinearProbe(weight, bias).logits(torch.eye(2)), torch.eye(2))
