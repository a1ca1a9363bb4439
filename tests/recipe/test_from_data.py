import numpy as np
import pytest
from PIL import Image

from tapetum.data.images.stores import ArrayStore, FileStore
from tapetum.data.labels.labels import Labels, labels_from_values
from tapetum.optim.schedules import value
from tapetum.recipe.from_data import FEW_LABELS, MANY_LABELS, PAWS_OF, choose, describe
from tapetum.recipe.glance import Glance, glance
from tapetum.recipe.recipe import load_recipe, parse_recipe
from tapetum.recipe.yaml_with_lines import write_yaml


def store_of(images):
    images = np.asarray(images, np.uint8)
    labels = labels_from_values([str(i) for i in range(len(images))], np.arange(len(images)) % 2)
    return ArrayStore(images), labels


def seen(**changes):
    values = {
        "num_images": 5000,
        "size": 32,
        "aspect": 1.0,
        "one_size": True,
        "decoded_once": True,
        "is_grey": False,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.2),
        "num_classes": 10,
        "fewest": 25,
        "num_labels": 250,
    }
    return Glance(**(values | changes))


def recipe_for(trainer, shrink=False, overrides=(), method=None, **changes):
    sections, choices = choose(seen(**changes), shrink=shrink, method=method)
    sections["trainer"] = sections.get("trainer", {}) | trainer
    assert len(describe(choices).splitlines()) == len(choices)
    return parse_recipe(write_yaml(sections), "the test", overrides)


def test_mean_and_deviation_are_measured():
    images = np.zeros((4, 3, 10, 12))
    images[:2, 0], images[:, 1] = 255, 51
    store, labels = store_of(images)
    found = glance(store, labels)
    assert found.mean == (0.5, 0.2, 0.0)
    assert found.std == (0.5, 0.01, 0.01)  # nothing divides by zero
    assert found.aspect == 1.2
    assert (found.size, found.one_size, found.decoded_once, found.is_grey) == (10, True, True, False)
    assert (found.fewest, found.num_labels) == (2, 4)


def test_photographs_are_looked_at_one_at_a_time_and_small(tmp_path, monkeypatch):
    """A hundred whole ones of a telephone are more than a laptop's memory."""
    for number in range(3):
        Image.fromarray(np.full((600, 800, 3), 51 * (number + 1), np.uint8)).save(tmp_path / f"{number}.jpg")
    seen = []
    real = FileStore.read
    monkeypatch.setattr(FileStore, "read", lambda store, some: seen.append(real(store, some)) or seen[-1])
    labels = labels_from_values(["0", "1", "2"], np.array([0, 1, 0]))
    found = glance(FileStore(tmp_path, [f"{number}.jpg" for number in range(3)]), labels)
    assert [[image.shape for image in images] for images in seen] == [[(3, 256, 341)]] * 3
    assert (found.size, found.is_grey) == (600, True)
    assert found.mean == pytest.approx((0.4, 0.4, 0.4), abs=0.01)
    assert found.std == pytest.approx((0.163,) * 3, abs=0.01)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_have_no_colour_to_change(channels):
    store, labels = store_of(np.full((6, channels, 8, 8), 9))
    found = glance(store, labels)
    assert found.is_grey
    sections, _ = choose(found, shrink=False)
    assert sections["views"]["large"]["saturation"] == sections["views"]["large"]["hue"] == 0
    assert len(sections["views"]["mean"]) == channels


@pytest.mark.parametrize("size,view", [(8, 16), (20, 16), (28, 18), (32, 20), (40, 24)])
def test_small_images(size, view):
    recipe = recipe_for({"minutes": 1}, size=size)
    assert recipe.backbone.kind == "small_net"
    assert recipe.views.large.size == view
    assert recipe.views.support is None or recipe.views.support.size == view
    # In the proportion of the recipe that it starts from.
    base = load_recipe(FEW_LABELS).views
    assert recipe.views.evaluation.crop / view == pytest.approx(base.evaluation.crop / base.large.size, abs=0.11)


@pytest.mark.parametrize("size,view", [(41, 64), (180, 88), (400, 128)])
def test_photographs(size, view):
    recipe = recipe_for({"minutes": 1}, size=size, decoded_once=False)
    assert (recipe.backbone.kind, recipe.backbone.depth, recipe.views.large.size) == ("resnet", 18, view)
    assert recipe.views.small is None
    assert recipe.data.workers >= 1
    assert recipe_for({"minutes": 1}, size=size).data.workers == 0


@pytest.mark.parametrize("size,view,shown", [(32, 20, 28), (44, 28, 38), (48, 30, 42), (100, 30, 42), (4000, 30, 42)])
def test_without_a_gpu_photographs_are_small_images(size, view, shown):
    recipe = recipe_for({"minutes": 1}, shrink=True, size=size, decoded_once=False)
    assert recipe.backbone == load_recipe(FEW_LABELS).backbone
    assert (recipe.views.large.size, recipe.views.evaluation.crop, recipe.views.evaluation.resize) == (
        view,
        shown,
        shown,
    )
    assert recipe.data.shrink_to == (96 if size > 96 else None)
    assert (recipe.data.workers == 0) == (size > 96)  # what is shrunk is decoded once
    reasons = describe(choose(seen(size=size), shrink=True)[1])
    assert ("there is no GPU" in reasons) == (size > 40)
    assert ("shrunk once" in reasons) == (size > 96)


@pytest.mark.parametrize("size,area", [(32, "35% to 100%"), (300, "20% to 100%")])
def test_the_crops_are_said(size, area):
    for aspect, remark in ((1.33, "central square"), (2.0, "2 times as long as wide: 50% lies outside")):
        _, choices = choose(seen(size=size, aspect=aspect), shrink=False)
        (crops,) = (choice for choice in choices if choice.what == "crops")
        assert crops.value.startswith(area)
        assert remark in crops.reason
        views = recipe_for({"minutes": 1}, size=size, aspect=aspect).views
        least, most = (views.small or views.large).scale
        assert f"{100 * least:.0f}% to {100 * most:.0f}%" == area


@pytest.mark.parametrize("classes,fewest", [(10, 400), (10, 1), (2, 50), (39, 5), (1000, 9), (1000, 1)])
def test_supports_follow_from_the_classes(classes, fewest):
    support = recipe_for({"minutes": 1}, num_classes=classes, fewest=fewest).support
    num_classes = support.classes_per_batch or classes
    usual = 10 * load_recipe(FEW_LABELS).support.images_per_class
    assert 2 <= num_classes <= classes
    assert 2 <= support.images_per_class <= 16
    assert usual / 2 < support.images_per_class * num_classes <= usual or support.images_per_class == 16


@pytest.mark.parametrize("fewest", [1, 2, 4])
def test_very_few_labels_are_each_seen_in_several_views(fewest):
    """With twice the labels as supports, accuracy on CIFAR-10 was lower by 3 points or more at each of the three."""
    few = recipe_for({"minutes": 1}, fewest=fewest, num_labels=10 * fewest)
    assert few.support == load_recipe(FEW_LABELS).support
    assert few.views.support is None  # as the unlabelled ones


@pytest.mark.parametrize(
    ("num_labels", "method", "kind"),
    [(79, None, "paws"), (80, None, "fixmatch"), (250, "paws", "paws"), (40, "fixmatch", "fixmatch")],
)
def test_very_few_labels_and_other_methods_begin_from_paws(num_labels, method, kind):
    assert recipe_for({"minutes": 1}, num_labels=num_labels, method=method).method.kind == kind


@pytest.mark.parametrize("size", [32, 100])
def test_few_labels_are_seen_in_strong_views(size):
    few = recipe_for({"minutes": 1}, size=size, num_labels=1000)
    many = recipe_for({"minutes": 1}, size=size, num_labels=1001)
    if size == 32:
        assert few.views.support.brightness > few.views.small.brightness
    else:
        assert few.views.support is None  # as the unlabelled ones
    assert many.views.support.jitter == 0
    names = [name if size == 32 else PAWS_OF[name] for name in (FEW_LABELS, MANY_LABELS)]
    assert [few.method, many.method] == [load_recipe(name).method for name in names]
    assert "3 labels per class are soon memorised" in describe(choose(seen(num_labels=30), shrink=True)[1])


@pytest.mark.parametrize("kind", ["paws", "ropaws", "supervised", "suave"])
def test_a_method_that_the_user_names_gets_views_that_suit_it(kind):
    recipe = recipe_for({"minutes": 1}, num_labels=4000, overrides=[f"method.kind={kind}"], method=kind)
    assert (recipe.method.kind, recipe.views.large.count, recipe.views.small) == (kind, 2, None)


def test_photographs_at_their_size_have_weak_and_strong_views_for_fixmatch():
    views = choose(seen(size=300), shrink=False, method="fixmatch")[0]["views"]
    assert (views["large"]["count"], views["large"]["jitter"]) == (1, 0.0)
    assert (views["small"]["count"], views["small"]["jitter"], views["small"]["scale"]) == (1, 0.8, [0.2, 1.0])
    assert choose(seen(size=300), shrink=False)[0]["views"]["small"] is None


def test_images_of_no_class_are_not_counted():
    images = ArrayStore(np.zeros((12, 3, 8, 8), np.uint8))
    values = np.array([0, 1] * 3 + [-1] * 6)
    labels = Labels(("a", "b"), images.names, values, none=np.arange(8, 12))
    assert glance(images, labels).num_images == 8


def test_with_many_labels_weak_views_teach_strong_ones_of_their_size():
    views = recipe_for({"minutes": 1}, num_labels=4000).views
    assert (views.large.count, views.small.count) == (1, 1)
    assert views.large.size == views.small.size == views.support.size
    assert views.large.jitter == 0 < views.small.jitter


@pytest.mark.parametrize("num_labels", [30, 250, 5000])
def test_views_show_at_least_half_of_a_small_grey_image(num_labels):
    grey = recipe_for({"minutes": 1}, is_grey=True, mean=(0.5,), std=(0.2,), num_labels=num_labels).views
    assert (grey.small or grey.large).scale == (0.5, 1.0)
    assert grey.support is None or grey.support.scale == (0.5, 1.0)
    (crops,) = (c for c in choose(seen(is_grey=True, num_labels=num_labels), shrink=True)[1] if c.what == "crops")
    assert crops.value.startswith("50% to 100%")
    assert "grey images fill their frame" in crops.reason


def test_few_images_make_small_batches():
    usual, few = recipe_for({"minutes": 1}), recipe_for({"minutes": 1}, num_images=40)
    assert few.data.batch_size == 10
    assert few.optimizer.lr.peak < usual.optimizer.lr.peak


def test_warm_up_is_at_most_a_tenth_of_a_run():
    """Minutes are steps only once they have been measured, so the recipe says both."""
    recipe = recipe_for({"minutes": 10})
    lr, per_epoch = recipe.optimizer.lr, 5000 // recipe.data.batch_size
    rates = [value(lr, step, per_epoch, total) for step, total in ((199, 10_000), (200, 10_000), (50, 500), (49, 500))]
    assert rates[1:3] == [pytest.approx(lr.peak, rel=1e-2)] * 2
    assert rates[0] < lr.peak > rates[3]


@pytest.mark.parametrize("num_labels", [30, 250, 5000])
def test_letters_need_every_kind_of_mirroring_off(num_labels):
    (mirroring,) = (c for c in choose(seen(num_labels=num_labels), shrink=True)[1] if c.what == "mirroring")
    settings = mirroring.reason.partition("set ")[2].removesuffix(" for letters and digits").split()
    recipe = recipe_for({"minutes": 1}, overrides=settings, num_labels=num_labels)
    views = (recipe.views.large, recipe.views.support, recipe.views.small)
    assert {view.flip for view in views if view is not None} == {0}
    assert not recipe.views.evaluation.mirrored
