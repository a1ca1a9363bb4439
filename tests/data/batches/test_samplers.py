import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tapetum.data.batches.samplers import SupportConfig, SupportSampler, batch_indices, epoch_order, steps_in_epoch
from tapetum.data.batches.shuffled_sampler import ShuffledSampler
from tapetum.data.labels.labels import labels_from_values


def pool(sizes, unlabelled=3):
    """Labels of a pool whose class c has sizes[c] labelled images, scattered among the unlabelled ones."""
    values = np.repeat(np.arange(-1, len(sizes)), [unlabelled, *sizes])
    return labels_from_values(
        [str(i) for i in range(len(values))], np.roll(values, 1), [f"c{c:03d}" for c in range(len(sizes))]
    )


def test_epoch_order_is_a_permutation_that_changes():
    first, second = epoch_order(100, 5, 0), epoch_order(100, 5, 1)
    assert sorted(first) == sorted(second) == list(range(100))
    assert (first != second).any()
    assert (first != epoch_order(100, 6, 0)).any()
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 50), st.integers(0, 3), st.integers(0, 9))
def test_batches_cover_an_epoch_once_whatever_the_ranks(world_size, local, spare, epoch, seed):
    batch_size = world_size * local
    num_images = 3 * batch_size + spare
    steps = steps_in_epoch(num_images, batch_size)
    seen = []
    for step in range(epoch * steps, (epoch + 1) * steps):
        whole = batch_indices(step, steps, batch_size, num_images, seed)
        parts = [batch_indices(step, steps, batch_size, num_images, seed, r, world_size) for r in range(world_size)]
        assert np.array_equal(np.concatenate(parts), whole)
        seen.append(whole)
    flat = np.concatenate(seen)
    assert len(set(flat.tolist())) == len(flat) == steps * batch_size
    assert num_images - len(flat) < batch_size


def test_batch_sizes_that_do_not_fit_are_said():
    with pytest.raises(ValueError, match=r"batch_size is 11, but the pool has only 10 images: lower .* at most 10"):
        batch_indices(0, 1, 11, 10, 0)
    with pytest.raises(ValueError, match="multiple of 4, such as 4 or 8"):
        batch_indices(0, 1, 6, 10, 0, 0, 4)
    with pytest.raises(ValueError, match="choose 1 to 2"):
        batch_indices(0, 3, 5, 10, 0)
    with pytest.raises(ValueError, match="at least 1"):
        steps_in_epoch(10, 0)


def test_draws_are_pinned():
    """A changed draw would make every golden run another run."""
    assert batch_indices(7, 3, 4, 13, 2).tolist() == [12, 8, 6, 7]
    draw = SupportSampler(pool([5, 6, 7]), SupportConfig(images_per_class=2), 1).draw(3)
    assert (draw.indices.tolist(), draw.classes.tolist()) == ([9, 18, 7, 10, 19, 4], [1, 2, 0])


def test_rounds_of_one_image_per_class():
    labels = pool([9, 9, 9, 9])
    draw = SupportSampler(labels, SupportConfig(images_per_class=3, classes_per_batch=2), 0).draw(4)
    assert draw.indices.shape == draw.labels.shape == (6,)
    assert draw.labels.tolist() == draw.classes.tolist() * 3
    assert np.array_equal(labels.values[draw.indices], draw.labels)
    assert len(set(draw.indices.tolist())) == 6


def test_draw_depends_on_the_step_alone():
    sampler = SupportSampler(pool([7, 12, 30]), SupportConfig(images_per_class=4), 3)
    in_order = [sampler.draw(step).indices.tolist() for step in range(12)]
    fresh = [
        SupportSampler(pool([7, 12, 30]), SupportConfig(images_per_class=4), 3).draw(step).indices.tolist()
        for step in reversed(range(12))
    ]
    assert in_order == fresh[::-1]


def test_class_order_changes_with_step_and_seed():
    sampler = SupportSampler(pool([3] * 10), SupportConfig(images_per_class=1), 0)
    assert len({tuple(sampler.draw(step).classes) for step in range(20)}) == 20
    other = SupportSampler(pool([3] * 10), SupportConfig(images_per_class=1), 1)
    assert (other.draw(0).classes != sampler.draw(0).classes).any()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 25), min_size=2, max_size=6),
    st.integers(1, 8),
    st.integers(2, 6),
    st.integers(0, 1000),
)
def test_no_image_comes_twice_within_a_pass(sizes, images_per_class, classes_per_batch, seed):
    assume(classes_per_batch <= len(sizes))
    config = SupportConfig(images_per_class=images_per_class, classes_per_batch=classes_per_batch)
    labels = pool(sizes)
    sampler = SupportSampler(labels, config, seed)
    turns = len(sizes) // classes_per_batch  # steps in a pass through the classes
    for c, size in enumerate(sizes):
        per_pass = max(1, size // images_per_class)
        draws = []
        for turn in range(2 * per_pass):
            of_turn = [sampler.draw(turn * turns + part) for part in range(turns)]
            drawn = [draw.indices[draw.labels == c] for draw in of_turn if c in draw.classes]
            assert len(drawn) <= 1, "a class comes at most once in a pass through the classes"
            draws.append(drawn[0].tolist() if drawn else [])
        for start in (0, per_pass):
            images = [image for found in draws[start : start + per_pass] for image in found]
            times = np.bincount(images, minlength=len(labels.values)) if images else np.zeros(1)
            if size >= images_per_class:
                assert times.max() <= 1
            elif images:
                assert images_per_class // size <= times[labels.values == c].min()
                assert times.max() <= -(-images_per_class // size)


def test_every_class_comes_once_in_a_pass_through_the_classes():
    sampler = SupportSampler(pool([2] * 6), SupportConfig(images_per_class=1, classes_per_batch=2), 0)
    for turn in range(5):
        classes = np.concatenate([sampler.draw(3 * turn + part).classes for part in range(3)])
        assert sorted(classes) == list(range(6))


def test_classes_left_over_get_their_turn():
    """5 classes, 2 a step: published PAWS leaves one out of each pass, another one each time."""
    sampler = SupportSampler(pool([4] * 5), SupportConfig(images_per_class=1, classes_per_batch=2), 0)
    times = np.bincount(np.concatenate([sampler.draw(step).classes for step in range(1000)]))
    assert np.abs(times - 400).max() < 50


def test_all_images_are_used_equally_often_where_draws_fill_a_class():
    labels = pool([12, 12], unlabelled=0)
    sampler = SupportSampler(labels, SupportConfig(images_per_class=4), 0)
    drawn = np.concatenate([sampler.draw(step).indices for step in range(9)])
    assert np.bincount(drawn).tolist() == [3] * 24


def test_one_image_per_class():
    labels = pool([1, 1, 1])
    draw = SupportSampler(labels, SupportConfig(images_per_class=4), 0).draw(2)
    assert draw.indices.shape == (12,)
    assert np.array_equal(labels.values[draw.indices], draw.labels)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 40),
    st.integers(0, 100),
    st.data(),
)
def test_ranks_together_are_the_single_process_draw(world_size, local, other, unique, step, seed, data):
    classes = max(2, world_size * local if unique else other + 1)
    assume(classes % world_size == 0 or not unique)
    images = other if unique else world_size * local
    sizes = data.draw(st.lists(st.integers(1, 15), min_size=classes, max_size=classes + 3))
    config = SupportConfig(images_per_class=images, classes_per_batch=classes, unique_classes_per_rank=unique)
    labels = pool(sizes)
    whole = SupportSampler(labels, config, seed).draw(step)
    samplers = [SupportSampler(labels, config, seed, r, world_size) for r in range(world_size)]
    parts = [sampler.draw(step) for sampler in samplers]
    assert all(len(p.indices) == len(p.labels) == s.size for p, s in zip(parts, samplers, strict=True))
    assert all(np.array_equal(p.classes, whole.classes) for p in parts)
    indices, of_class = np.concatenate([p.indices for p in parts]), np.concatenate([p.labels for p in parts])
    assert np.array_equal(labels.values[indices], of_class)
    if unique:
        assert sorted(indices.tolist()) == sorted(whole.indices.tolist())
        share = classes // world_size
        for r, part in enumerate(parts):
            assert part.labels.tolist() == whole.classes[r * share : (r + 1) * share].tolist() * images
    else:
        assert np.array_equal(indices, whole.indices)
        assert np.array_equal(of_class, whole.labels)


def test_faulty_sizes_are_said():
    labels = pool([3, 3, 3, 3])
    with pytest.raises(ValueError, match=r"classes_per_batch is 5 .* only 4 classes: lower it to at most 4"):
        SupportSampler(labels, SupportConfig(images_per_class=1, classes_per_batch=5), 0)
    with pytest.raises(ValueError, match=r"images_per_class is 3 .* multiple of 2, such as 2 or 4"):
        SupportSampler(labels, SupportConfig(images_per_class=3), 0, 0, 2)
    with pytest.raises(ValueError, match=r"classes_per_batch is 4 .* multiple of 8, such as 8"):
        SupportSampler(labels, SupportConfig(images_per_class=3, unique_classes_per_rank=True), 0, 0, 8)
    with pytest.raises(ValueError, match="class 'c001' has no labelled image"):
        SupportSampler(pool([3, 0, 3]), SupportConfig(images_per_class=1), 0)
    with pytest.raises(ValueError, match="images_per_class is 0"):
        SupportConfig(images_per_class=0)
    with pytest.raises(ValueError, match="classes_per_batch is 1"):
        SupportConfig(images_per_class=1, classes_per_batch=1)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(0, 9))
def test_shuffled_batches_visit_all_labelled_images_equally_often(world_size, local, count, seed):
    labels, size = pool([count, 3]), world_size * local
    config, total = SupportConfig(batch_size=size), count + 3
    seen, rows = [], set()
    for step in range(2 * total):
        whole = ShuffledSampler(labels, config, seed).draw(step)
        parts = [ShuffledSampler(labels, config, seed, rank, world_size).draw(step) for rank in range(world_size)]
        for name in ("indices", "labels", "rounds"):
            assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
        assert np.array_equal(whole.labels, labels.values[whole.indices])
        assert len(set(zip(whole.indices.tolist(), whole.rounds.tolist()))) == size  # repeats are told apart
        rows.add(tuple(whole.indices.tolist()))
        seen += whole.indices.tolist()
    assert np.bincount(seen).max() == 2 * size  # 2 * total steps of `size` images are 2 * size passes
    assert sorted(set(seen)) == labels.labelled.tolist()
    assert size < 2 or total < 6 or len(rows) > 2


def test_shuffled_batches_have_passes_without_a_gap():
    labels = pool([4, 3])
    drawn = [ShuffledSampler(labels, SupportConfig(batch_size=3), 2).draw(step) for step in range(7)]
    flat = np.concatenate([draw.indices for draw in drawn]).reshape(3, 7)
    assert all(sorted(row) == labels.labelled.tolist() for row in flat.tolist())
    assert (flat[0] != flat[1]).any()
    assert drawn[2].rounds.tolist() == [0, 1, 1]
    assert flat[0].tolist() == [7, 4, 0, 6, 5, 9, 8]


def test_support_asks_for_one_kind_of_batch():
    for given_, message in [
        ({}, "images_per_class is null and batch_size is null: give one of them"),
        ({"images_per_class": 2, "batch_size": 4}, "images_per_class is 2 and batch_size is 4: give one of them"),
        ({"batch_size": 0}, "batch_size is 0: give at least 1"),
        ({"batch_size": 4, "classes_per_batch": 2}, "batch_size is 4, which takes classes as they come"),
    ]:
        with pytest.raises(ValueError, match=message):
            SupportConfig(**given_)
    with pytest.raises(ValueError, match="multiple of 4, such as 4 or 8"):
        ShuffledSampler(pool([3, 3]), SupportConfig(batch_size=6), 0, 0, 4)
