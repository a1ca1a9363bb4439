"""Steps of several batches, and evaluations that fail: what memory holds, and what is kept."""

import weakref

import pytest

from tapetum.data.batch import Batch


def test_memory_holds_the_images_of_one_batch_at_a_time(toy):
    alive = []

    def batches(start, stop):
        seen = []
        for step in range(start, stop):
            for part in range(3):
                alive.append(sum(image() is not None for image in seen))
                batch = toy.batch_of(step, part)
                seen.append(weakref.ref(batch.views.groups[0]))
                yield batch
                del batch

    seen_after = []

    class Asked(toy.Toy):
        def after_step(self, output, batch):
            seen_after.append((batch.views, batch.support, batch.index is not None))
            super().after_step(output, batch)

    run = toy.trainer(None, 2, method=Asked(), batches=batches, config={"accumulate": 3}, evaluate=None)
    run.fit()
    assert max(alive) == 0
    assert seen_after == [(None, None, True)] * 6
    assert run.state.images_seen == 48


def test_images_of_a_batch_are_counted():
    assert Batch(views=None, index=None).num_images == 0


def test_an_evaluation_that_fails_costs_no_steps(toy, tmp_path):
    """The step's checkpoint and rows are written all the same; resuming goes on from there."""
    whole, cut = toy.trainer(tmp_path / "whole", 12, evaluate=None), None

    def fail():
        raise OSError("the store cannot be reached")

    cut = toy.trainer(tmp_path / "cut", 12, config={"evaluate_every": 6}, evaluate=fail)
    with pytest.raises(OSError, match="cannot be reached"):
        cut.fit()
    rows = (tmp_path / "cut" / "metrics.csv").read_text().splitlines()
    assert rows[-1].startswith("6,")
    resumed = toy.trainer(tmp_path / "cut", 12, config={"evaluate_every": None}, evaluate=None)
    resumed._load()
    assert resumed.state.step == 6
    whole.fit()
    resumed.fit()
    toy.assert_same(toy.state_of(whole), toy.state_of(resumed))
