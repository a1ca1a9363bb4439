"""A batch is a function of its number: not of workers, other batches, the store, or the generators of others."""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tapetum.data.batch import Batch
from tapetum.data.batches.data_config import DataConfig
from tapetum.data.batches.pipeline import Pipeline
from tapetum.data.batches.samplers import SupportConfig
from tapetum.data.images.stores import ArrayStore, FileStore
from tapetum.data.labels.labels import labels_from_values
from tapetum.data.views.draw import EvaluationViewConfig, ViewConfig, ViewsConfig

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_IMAGES, NUM_CLASSES = 24, 4
STRONG = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "grayscale": 0.2}
LARGE = ViewConfig(size=12, scale=(0.5, 1.0), count=2, **STRONG, solarize=0.2, equalize=0.2, blur=0.5)
VIEWS = ViewsConfig(
    large=LARGE,
    small=ViewConfig(size=8, scale=(0.2, 0.5), count=3, **STRONG),
    support_views=2,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
    evaluation=EvaluationViewConfig(crop=12),
)
SUPPORT = SupportConfig(images_per_class=4)
PIXELS = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 3, 16, 20), dtype=np.uint8)
LABELS = labels_from_values([str(i) for i in range(NUM_IMAGES)], np.arange(NUM_IMAGES) % NUM_CLASSES)


def make(**changes) -> Pipeline:
    store = changes.pop("store", None) or ArrayStore(PIXELS)
    arguments = {"views": VIEWS, "support": SUPPORT, "batch_size": 4, "seed": 3, "labels": LABELS} | changes
    return Pipeline(store, **arguments)


def batch(pipeline: Pipeline, number: int) -> Batch:
    return pipeline.finish(pipeline.cut(number))


def tensors(made: Batch) -> dict[str, Tensor]:
    groups = [] if made.views is None else list(made.views.groups)
    found = {f"views {i}": group for i, group in enumerate(groups)} | {"index": made.index}
    if made.support is not None:
        found |= {"support": made.support.groups[0], "labels": made.support_labels, "classes": made.support_classes}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def assert_same(left: Batch, right: Batch) -> None:
    ours, theirs = tensors(left), tensors(right)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def files(folder, pixels=PIXELS) -> FileStore:
    for i, image in enumerate(pixels):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:03}.png")
    return FileStore(folder, [f"{i:03}.png" for i in range(len(pixels))])


def photographs(folder) -> FileStore:
    """Images of different sizes."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(9, 40, (NUM_IMAGES, 2))
    return files(folder, [generator.integers(0, 256, (3, *size), dtype=np.uint8) for size in sizes])


def test_shapes_and_types():
    made = batch(make(), 0)
    assert [tuple(group.shape) for group in made.views.groups] == [(8, 3, 12, 12), (12, 3, 8, 8)]
    assert (made.views.counts, made.support.counts) == ((2, 3), (2,))
    assert tuple(made.support.groups[0].shape) == (2 * 16, 3, 12, 12)
    assert {tensor.dtype for tensor in (made.views.groups[0], made.support.groups[0])} == {torch.float32}
    assert made.index.shape == (4,)
    assert made.support_labels.bincount().tolist() == [4] * NUM_CLASSES
    assert sorted(made.support_classes.tolist()) == list(range(NUM_CLASSES))
    assert torch.equal(made.support_labels, torch.from_numpy(LABELS.values)[supports_of(make(), 0)])


def supports_of(pipeline: Pipeline, number: int) -> Tensor:
    return torch.from_numpy(pipeline.sampler.draw(number).indices)


def test_a_batch_is_a_function_of_its_number():
    used = make()
    for number in (5, 0, 13, 2):
        batch(used, number)
    assert_same(batch(used, 7), batch(make(), 7))
    assert not torch.equal(batch(used, 7).views.groups[0], batch(make(seed=4), 7).views.groups[0])


@pytest.mark.parametrize("kind", ["array", "files"])
def test_workers_change_no_bit(tmp_path, kind):
    pipeline = make(store=photographs(tmp_path) if kind == "files" else None)
    torch.set_num_threads(2)  # while each worker has one
    before = torch.random.get_rng_state()
    ours, theirs = (list(pipeline.batches(2, 9, workers=workers)) for workers in (0, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(ours) == len(theirs) == 7
    for left, right in zip(ours, theirs):
        assert_same(left, right)
    assert_same(theirs[0], batch(pipeline, 2))


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="this system has no signal for dead processes")
def test_a_dead_worker_is_told_when_a_batch_is_asked_for_and_never_by_a_signal():
    before = signal.getsignal(signal.SIGCHLD)
    batches = make().batches(0, 100, workers=1)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()  # a handler would raise here
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_before_the_first_with_views_hold_labelled_images_alone(workers):
    pipeline = make()
    whole, parts = list(pipeline.batches(2, 6)), list(pipeline.batches(2, 6, views_from=4, workers=workers))
    for late in (2, 3):
        assert_same(parts[late], whole[late])
    for early in (0, 1):
        assert parts[early].views is None
        assert parts[early].index is None
        assert torch.equal(parts[early].support.groups[0], whole[early].support.groups[0])
        assert torch.equal(parts[early].support_labels, whole[early].support_labels)
    assert_same(next(pipeline.batches(2, 3)), whole[0])  # the pipeline itself still has views everywhere


def test_stores_change_no_bit(tmp_path):
    from_files, from_array = make(store=files(tmp_path)), make()
    for number in (0, 6, 11):
        assert_same(batch(from_files, number), batch(from_array, number))


def test_an_epoch_shows_every_image_once_and_the_next_one_otherwise():
    pipeline = make()
    assert pipeline.batches_per_epoch == 6
    orders = [[batch(pipeline, n).index for n in range(start, start + 6)] for start in (0, 6)]
    assert [sorted(torch.cat(order).tolist()) for order in orders] == [list(range(NUM_IMAGES))] * 2
    assert not torch.equal(torch.cat(orders[0]), torch.cat(orders[1]))
    views = [views_of_image(pipeline, range(start, start + 6))[0] for start in (0, 6)]
    assert not torch.equal(*views)


def views_of_image(pipeline: Pipeline, numbers: range) -> dict[int, Tensor]:
    """Large views of each image, (2, C, S, S), by its index."""
    found = {}
    for number in numbers:
        made = batch(pipeline, number)
        large = made.views.groups[0].unflatten(0, (2, -1))
        found |= {int(image): large[:, row] for row, image in enumerate(made.index)}
    return found


def test_views_of_an_image_do_not_depend_on_its_batch(tmp_path):
    expected = views_of_image(make(), range(6))
    others = {
        "larger batches": views_of_image(make(batch_size=8), range(3)),
        "one at a time": views_of_image(make(batch_size=1), range(24)),
        "from files": views_of_image(make(store=files(tmp_path), batch_size=6), range(4)),
        "a part of the pool": views_of_image(make(pool=np.arange(0, 24, 2), batch_size=6), range(2)),
        "no supports": views_of_image(make(support=None), range(6)),
        "second of two ranks": views_of_image(make(rank=1, world_size=2), range(6)),
    }
    for name, views in others.items():
        for image, view in views.items():
            assert torch.equal(view, expected[image]), (name, image)
    assert [len(views) for views in others.values()] == [24, 24, 24, 12, 24, 12]


def test_small_views_do_not_move_large_ones():
    without = ViewsConfig(large=LARGE, mean=VIEWS.mean, std=VIEWS.std, evaluation=VIEWS.evaluation, support_views=2)
    left, right = batch(make(), 4), batch(make(views=without), 4)
    assert torch.equal(left.views.groups[0], right.views.groups[0])
    assert torch.equal(left.support.groups[0], right.support.groups[0])
    assert right.views.counts == (2,)


def test_no_two_views_are_alike():
    """Views of an image, large and small, and supports that show one image, in one step and in two."""
    one_image_classes = labels_from_values(LABELS.names, [*range(NUM_CLASSES), *[-1] * (NUM_IMAGES - NUM_CLASSES)])
    pipeline = make(labels=one_image_classes)
    made = batch(pipeline, 0)
    assert sorted(set(supports_of(pipeline, 0).tolist())) == list(range(NUM_CLASSES))
    for group in (*made.views.groups, made.support.groups[0], batch(pipeline, 1).support.groups[0]):
        assert len(torch.unique(group.flatten(1), dim=0)) == len(group)
    both = batch(make(views=replace(VIEWS, small=LARGE)), 0).views.groups
    assert len(torch.unique(torch.cat(both).flatten(1), dim=0)) == 16
    next_one = batch(pipeline, 1).support.groups[0]
    assert len(torch.unique(torch.cat([made.support.groups[0], next_one]).flatten(1), dim=0)) == 2 * len(next_one)


@pytest.mark.parametrize("unique", [False, True])
def test_ranks_together_make_the_single_process(unique):
    support = SupportConfig(images_per_class=4, unique_classes_per_rank=unique)
    for number in (0, 7):
        whole = batch(make(support=support), number)
        parts = [batch(make(support=support, rank=rank, world_size=2), number) for rank in (0, 1)]
        assert torch.equal(torch.cat([part.index for part in parts]), whole.index)
        for group, count in enumerate(whole.views.counts):
            by_view = [part.views.groups[group].unflatten(0, (count, -1)) for part in parts]
            assert torch.equal(torch.cat(by_view, dim=1).flatten(0, 1), whole.views.groups[group])
        supports = torch.cat([part.support.groups[0].unflatten(0, (2, -1)) for part in parts], dim=1)
        labels = torch.cat([part.support_labels for part in parts])
        expected = whole.support.groups[0].unflatten(0, (2, -1))
        if unique:  # the same images in another order
            assert {tuple(sorted(set(part.support_labels.tolist()))) for part in parts} == {
                tuple(sorted(half.tolist())) for half in whole.support_classes.chunk(2)
            }
            for left, right in zip(supports, expected):
                assert torch.equal(*(torch.unique(view.flatten(1), dim=0) for view in (left, right)))
            assert torch.equal(labels.sort().values, whole.support_labels.sort().values)
        else:
            assert torch.equal(supports, expected)
            assert torch.equal(labels, whole.support_labels)
        assert all(torch.equal(part.support_classes, whole.support_classes) for part in parts)


class NoDefaultGenerator(TorchDispatchMode):
    """Makes every operation of torch raise that draws from a generator, and says which."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded in function.tags:
            raise AssertionError(f"{function} draws from torch's generator")
        return function(*args, **(kwargs or {}))


def forbid(monkeypatch, module, name: str) -> None:
    def refuse(*arguments, **keywords):
        raise AssertionError(f"{module.__name__}.{name} was called")

    monkeypatch.setattr(module, name, refuse)


@pytest.fixture
def no_other_randomness(monkeypatch):
    """`random`, `numpy.random` and torch's default generator raise."""
    import torch._dynamo  # noqa: F401 (by its dispatch mode torch would import it below, and that draws)

    for module in (random, np.random):
        for name in [n for n in vars(module) if not n.startswith("_") and isinstance(vars(module)[n], Callable)]:
            forbid(monkeypatch, module, name)
    with NoDefaultGenerator():
        yield


def test_the_prohibition_works(no_other_randomness):
    ones = torch.ones(2)
    draws = [random.random, random.Random, np.random.default_rng, np.random.random]
    draws += [lambda: torch.rand(2), lambda: torch.randperm(4), ones.normal_, lambda: torch.dropout(ones, 0.5, True)]
    for draw in draws:
        with pytest.raises(AssertionError):
            draw()


@pytest.mark.parametrize("colour", ["exact", "matrix", "fast"])
def test_nothing_but_keys_is_drawn(tmp_path, request, colour):
    stores = [ArrayStore(PIXELS), photographs(tmp_path)]
    large = replace(LARGE, colour=colour)
    views = ViewsConfig(large=large, small=VIEWS.small, mean=VIEWS.mean, std=VIEWS.std, evaluation=VIEWS.evaluation)
    request.getfixturevalue("no_other_randomness")
    for store in stores:
        for support in (SUPPORT, SupportConfig(images_per_class=9, classes_per_batch=3)):
            pipeline = make(store=store, views=views, support=support)
            for number in (0, 8):
                batch(pipeline, number)
            assert len(list(pipeline.batches(3, 5))) == 2


def test_normalised_pixels_and_memory_format():
    squares = np.ascontiguousarray(PIXELS[..., 2:18])
    plain = ViewConfig(size=16, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0, jitter=0)
    views = ViewsConfig(large=plain, mean=VIEWS.mean, std=VIEWS.std, evaluation=VIEWS.evaluation)
    pipeline = make(store=ArrayStore(squares), views=views)
    made = batch(pipeline, 1)
    expected = (squares[made.index] / 255 - np.reshape(VIEWS.mean, (3, 1, 1))) / np.reshape(VIEWS.std, (3, 1, 1))
    np.testing.assert_allclose(made.views.groups[0].numpy(), expected, rtol=1e-5, atol=1e-6)
    last = next(pipeline.batches(1, 2, channels_last=True))
    assert last.views.groups[0].is_contiguous(memory_format=torch.channels_last)
    assert_same(last, made)


def test_methods_without_unlabelled_images():
    pipeline = make(batch_size=None)
    made = batch(pipeline, 0)
    assert made.views is None
    assert made.index is None
    assert pipeline.batches_per_epoch == 24 // 16
    assert torch.equal(made.support.groups[0], batch(make(), 0).support.groups[0])


def test_supports_may_have_views_of_their_own():
    plain = ViewConfig(size=12, scale=(0.9, 1.0), jitter=0)
    views = ViewsConfig(large=LARGE, support=plain, mean=VIEWS.mean, std=VIEWS.std, evaluation=VIEWS.evaluation)
    ours, other = batch(make(views=views), 3), batch(make(), 3)
    assert torch.equal(ours.views.groups[0], other.views.groups[0])
    assert len(ours.support.groups[0]) == 16
    assert not torch.equal(ours.support.groups[0], other.support.groups[0][:16])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"store": ArrayStore(PIXELS[:, :1])}, r"views.mean has 3 numbers but the images have 1 channels"),
        ({"labels": None}, "the method needs labels but the images have none"),
        ({"batch_size": 25}, "batch_size is 25, but the pool has only 24 images"),
        ({"batch_size": 6, "pool": np.arange(5)}, "batch_size is 6, but the pool has only 5 images"),
        ({"batch_size": 5, "world_size": 2}, "batch_size is 5 over all 2 processes"),
        ({"support": SupportConfig(images_per_class=3), "world_size": 2}, "images_per_class is 3 over all 2 processes"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_built(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 0), ("labels_per_class", 0), ("held_out_per_class", -1), ("held_out_share", 1.0), ("workers", -1)],
)
def test_bad_settings_name_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"^{field} is {value}: use "):
        DataConfig(**{field: value})


def test_labels_are_held_out_in_one_way():
    with pytest.raises(ValueError, match=r"^held_out_share is 0.2 and held_out_per_class is 3: set one of them"):
        DataConfig(held_out_share=0.2, held_out_per_class=3)
