"""The figures of docs/performance_gpu.md are those that benchmarks/cost_model.py reckons."""

import importlib
import sys

import pytest
import torch


@pytest.fixture(scope="module")
def cost_model(root):
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        yield importlib.import_module("cost_model")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def counted(cost_model):
    """A step of each recipe, counted once for all tests."""
    return {name: cost_model.count(cost_model.load_recipe(name)) for name in cost_model.RECIPES}


@pytest.fixture
def tables(cost_model, counted, monkeypatch):
    steps = iter(counted.values())
    monkeypatch.setattr(cost_model, "count", lambda recipe: next(steps))
    return cost_model.tables()


def test_the_page_is_up_to_date(cost_model, tables):
    page = cost_model.PAGE.read_text(encoding="utf-8")
    assert cost_model.filled(page, tables) == page


def test_the_page_says_that_nothing_was_measured(cost_model):
    page = cost_model.PAGE.read_text(encoding="utf-8")
    assert "No GPU was at hand" in page
    assert "**on paper**" in page


def test_gradients_are_those_of_every_parameter(cost_model, counted):
    """As many numbers as He et al.'s network and the published heads have."""
    swav, paws = (counted[name].sent["gradients"] for name in reversed(cost_model.RECIPES))
    backbone = 23_508_032
    # Projector 2048-2048-128 with BatchNorm, and 3,000 prototypes.
    heads = 2048 * 2048 + 2048 + 2 * 2048 + 2048 * 128 + 128 + 3000 * 128
    assert sum(size for _, size in swav) == 4 * (backbone + heads)
    # Projector 2048-2048-2048-2048; predictor 2048-512-2048, with BatchNorm before each layer.
    heads = 3 * (2048 * 2048 + 2048) + 2 * 2 * 2048 + 2 * 2048 + 2048 * 512 + 512 + 2 * 512 + 512 * 2048 + 2048
    assert sum(size for _, size in paws) == 4 * (backbone + heads)


def test_collectives_are_those_of_the_published_sizes(counted):
    paws, swav = counted.values()
    # Once for the anchors and once for the targets: 6,720 embeddings and their labels, over 960 classes.
    assert (
        paws.sent["supports and their labels"] == [("all-gather", 4 * 6720 * 2048), ("all-gather", 4 * 6720 * 960)] * 2
    )
    assert paws.sent["supports, backward"] == [("all-reduce", 4 * 6720 * 2048)]
    assert paws.sent["mean entropy"] == [("all-reduce", 4 * 960)]
    assert swav.sent["Sinkhorn"] == [("all-gather", 4 * 3000 * 64)] * 6  # three rounds for each of two views
    for step in (paws, swav):
        assert len(step.sent["BatchNorm, forward"]) == len(step.sent["BatchNorm, backward"]) >= 2 * 53


def test_operations_are_those_of_the_literature(counted):
    """A ResNet-50 needs 4.1 billion multiplications for 224 pixels, and for 96 in proportion to the area, or more."""
    _, swav = counted.values()
    forward = swav.forward / swav.images / 2
    least = 4.09e9 * (2 + 6 * (96 / 224) ** 2)
    assert least < forward < 1.05 * least
    assert 1.9 * swav.forward < swav.backward < 2.0 * swav.forward  # images need no gradient


def test_rings_send_what_they_send(cost_model):
    step = cost_model.Step(gpus=4, images=1, forward=1.0, backward=2.0)
    step.sent["a"] = [("all-reduce", 100), ("all-gather", 100)]
    assert step.bytes_sent("a") == 150 + 75
    assert step.seconds("a") == pytest.approx(225 / cost_model.INSIDE + 2 * cost_model.LATENCY)
    alone = step.among(1)
    assert alone.bytes_sent("a") == alone.seconds("a") == 0
    assert (alone.images, alone.forward) == (4, 4.0)
    assert alone.shares(peak=10.0) == (12 / (10 * cost_model.SHARE), 0, 0)


def test_gradients_hide_behind_the_backward_pass_but_for_the_last_bucket(cost_model):
    step = cost_model.Step(gpus=2, images=1, forward=1.0, backward=2.0)
    step.sent["gradients"] = [("all-reduce", round(cost_model.INSIDE))] * 2  # a second each, and the latency
    one = 1 + cost_model.LATENCY
    computing, plain, hidden = step.shares(peak=1 / cost_model.SHARE)  # 3 seconds, of which 2 backward
    assert (computing, plain, hidden) == pytest.approx((3, 2 * one / (3 + 2 * one), one / (3 + one)))
    _, _, hidden = step.shares(peak=4 / cost_model.SHARE)  # half a second backward
    assert hidden == pytest.approx((2 * one - 0.5) / (0.75 + 2 * one - 0.5))


@pytest.mark.slow
def test_steps_of_other_numbers_of_gpus_follow_from_the_counted_one(cost_model, counted):
    for name, step in counted.items():
        again, derived = cost_model.count(cost_model.load_recipe(name), 8), step.among(8)
        assert again.sent == derived.sent
        # The spread of embeddings is measured on 256 of them at most, whatever the batch.
        assert (again.forward, again.backward) == pytest.approx((derived.forward, derived.backward), rel=1e-4)


def test_a_page_without_a_place_is_refused(cost_model):
    with pytest.raises(ValueError, match="no place for 'yardstick'"):
        cost_model.filled("# GPUs\n", {"yardstick": "text"})


def test_collectives_that_are_counted_stand_for_real_ones(cost_model):
    from tapetum.ops.collectives import gather_rows, world_size

    notes = []
    with cost_model.pretended(3) as exchange:
        exchange.note = lambda kind, size: notes.append((kind, size))
        rows = torch.ones(2, 5, device="meta", requires_grad=True)
        everyones = gather_rows(rows)
        everyones.sum().backward()
        assert (tuple(everyones.shape), tuple(rows.grad.shape), world_size()) == ((6, 5), (2, 5), 3)
    assert notes == [("all-gather", 120), ("all-reduce", 120)]
    assert world_size() == 1
