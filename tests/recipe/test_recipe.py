import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_origin

import pytest

from tapetum.methods import registry
from tapetum.methods.base import Method
from tapetum.recipe.fields import (
    field_docstrings,
    field_notes,
    field_types,
    in_words,
    is_section,
    options,
    section_class,
    section_kinds,
)
from tapetum.recipe.files import shipped_recipes
from tapetum.recipe.recipe import (
    Recipe,
    RecipeError,
    deciding_values,
    dump_recipe,
    find_config,
    load_recipe,
    parse_recipe,
)

SMALLEST = """\
method: {kind: supervised}
backbone:
  kind: wide_resnet
  depth: 10
views:
  large: {size: 8, scale: [0.5, 1]}
  mean: [0.5]
  std: [1]
  evaluation: {crop: 8}
support:
  images_per_class: 2
optimizer:
  kind: sgd
  lr:
    peak: 0.1
data: {}
trainer:
  steps: 3
"""


def with_line(old, new):
    assert old in SMALLEST
    return SMALLEST.replace(old, new)


def reachable_configs():
    found, waiting = [], [Recipe]
    while waiting:
        config = waiting.pop()
        if config in found:
            continue
        found.append(config)
        for annotation in field_types(config).values():
            for part in [annotation, *getattr(annotation, "__args__", ())]:
                if is_section(part):
                    waiting += [section_class(part, kind) for kind in section_kinds(part)]
                    waiting += [option for option in options(part) if dataclasses.is_dataclass(option)]
    return found


@pytest.mark.parametrize("config", reachable_configs(), ids=lambda config: config.__name__)
def test_every_config_class_keeps_the_house_rules(config):
    parameters = config.__dataclass_params__
    assert parameters.frozen
    assert config.__doc__
    assert not config.__doc__.startswith(f"{config.__name__}(")
    for field in dataclasses.fields(config):
        assert field.kw_only, field.name
        assert field_docstrings(config).get(field.name), f"{field.name} has no docstring under it"
    if "kind" in field_types(config):
        assert get_origin(field_types(config)["kind"]) is Literal


def test_the_walk_reaches_all_sections():
    names = {config.__name__ for config in reachable_configs()}
    assert {"PAWSConfig", "SupervisedConfig", "HeadConfig", "ViewConfig", "LARSConfig", "ScheduleConfig"} <= names
    assert {"DataConfig", "SupportConfig", "RuntimeConfig", "TrainerConfig", "TimmConfig"} <= names


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_survive_a_round_trip(name):
    recipe = load_recipe(name)
    assert recipe.description
    assert parse_recipe(dump_recipe(recipe)) == recipe


def test_published_values_of_cifar10():
    recipe = load_recipe("paws_cifar10_4000")
    assert (recipe.trainer.epochs, recipe.data.batch_size, recipe.data.labels_per_class) == (600, 256, 400)
    assert (recipe.support.images_per_class, recipe.support.classes_per_batch) == (64, 10)
    assert (recipe.views.large.count, recipe.views.small.count, recipe.views.support_views) == (2, 6, 2)
    lr = recipe.optimizer.lr
    assert (lr.start, lr.peak, lr.final, lr.warmup_epochs) == (0.8, 3.2, 0.032, 10)
    assert recipe.optimizer.weight_decay == 1e-6
    assert not recipe.method.head.predictor


@pytest.mark.parametrize("percent,labels", [(1, 13), (10, 128)])
@pytest.mark.parametrize("epochs", [100, 200, 300])
def test_published_values_of_imagenet(percent, labels, epochs):
    recipe = load_recipe(f"paws_imagenet_{percent}percent_{epochs}ep")
    assert f"with {percent} % of the labels, ResNet-50, {epochs} epochs" in recipe.description
    assert (recipe.trainer.epochs, recipe.data.labels_per_class, recipe.data.batch_size) == (epochs, labels, 4096)
    assert recipe.support.images_per_class * recipe.support.classes_per_batch == 6720
    assert recipe.support.unique_classes_per_rank
    lr = recipe.optimizer.lr
    assert (lr.start, lr.peak, lr.final, lr.warmup_epochs) == (0.3, 6.4, 0.064, 10)
    assert (recipe.method.head.output, recipe.method.head.predictor) == (2048, True)


SWAV_SCRIPTS = {
    # batch, epochs, large (size, count, scale), small, (start, peak), frozen, queue, hidden, width
    "swav_imagenet_100ep": (4096, 100, (224, 2, 0.14), (96, 6, 0.05), (0.3, 4.8), 313, 0, 2048, 1),
    "swav_imagenet_200ep": (4096, 200, (224, 2, 0.14), (96, 6, 0.05), (0.3, 4.8), 313, 0, 2048, 1),
    "swav_imagenet_400ep": (4096, 400, (224, 2, 0.14), (96, 6, 0.05), (0.3, 4.8), 313, 0, 2048, 1),
    "swav_imagenet_800ep": (4096, 800, (224, 2, 0.14), (96, 6, 0.05), (0.3, 4.8), 313, 0, 2048, 1),
    "swav_imagenet_bs256_200ep": (256, 200, (224, 2, 0.14), (96, 6, 0.05), (None, 0.6), 5005, 3840, 2048, 1),
    "swav_imagenet_bs256_400ep": (256, 400, (224, 2, 0.14), (96, 6, 0.05), (None, 0.6), 5005, 3840, 2048, 1),
    "swav_imagenet_2x224_400ep": (4096, 400, (224, 2, 0.08), None, (0.3, 4.8), 313, 0, 2048, 1),
    "swav_imagenet_w2_400ep": (4096, 400, (224, 2, 0.14), (96, 4, 0.05), (0.3, 4.8), 313, 0, 8192, 2),
    "swav_imagenet_w4_400ep": (2560, 400, (224, 2, 0.08), (96, 4, 0.08), (0.3, 4.8), 313, 2560, 8192, 4),
    "deepcluster_imagenet_2x224_400ep": (4096, 400, (224, 2, 0.08), None, (0.3, 4.8), None, None, 2048, 1),
    "deepcluster_imagenet_400ep": (4096, 400, (160, 2, 0.08), (96, 4, 0.05), (0.3, 4.8), None, None, 2048, 1),
    "deepcluster_imagenet_800ep": (4096, 800, (224, 2, 0.14), (96, 6, 0.05), (0.3, 4.8), None, None, 2048, 1),
    "sela_imagenet_2x224_400ep": (4096, 400, (224, 2, 0.08), None, (0.3, 4.8), None, None, 2048, 1),
    "sela_imagenet_400ep": (4096, 400, (160, 2, 0.08), (96, 4, 0.05), (0.3, 4.8), None, None, 2048, 1),
}


@pytest.mark.parametrize("name", SWAV_SCRIPTS)
def test_published_values_of_swav(name):
    batch, epochs, large, small, (start, peak), frozen, queue, hidden, width = SWAV_SCRIPTS[name]
    recipe = load_recipe(name)
    views, method, optimizer = recipe.views, recipe.method, recipe.optimizer
    assert (recipe.data.batch_size, recipe.trainer.epochs) == (batch, epochs)
    assert (views.large.size, views.large.count, views.large.scale) == (*large[:2], (large[2], 1.0))
    found = views.small and (views.small.size, views.small.count, views.small.scale)
    assert found == (small and (*small[:2], (small[2], 0.14)))
    assert (optimizer.lr.peak, optimizer.lr.final) == (peak, pytest.approx(peak / 1000))
    assert (optimizer.lr.start if optimizer.lr.warmup_epochs else None) == start
    assert (optimizer.lr_in_buffer, optimizer.exclude, optimizer.lr.warmup_reaches_peak) == (False, False, True)
    assert (getattr(method, "freeze_steps", None), getattr(method, "queue_length", None)) == (frozen, queue)
    assert (method.head.hidden, recipe.backbone.width) == (hidden, width)
    assert method.num_prototypes == ((3000,) if frozen else (3000, 3000, 3000))
    assert (method.iterations, method.temperature) == (3 if frozen else 10, 0.1)


def test_published_values_of_evaluations():
    paws, swav = (load_recipe(f"finetune_imagenet_10percent_after_{name}") for name in ("paws", "swav"))
    few, linear = load_recipe("finetune_imagenet_1percent_after_swav"), load_recipe("linear_imagenet_after_swav")
    assert (paws.support.batch_size, paws.trainer.epochs, paws.optimizer.lr.peak) == (1024, 50, 0.02)
    assert (paws.method.projector_layers, paws.method.classifier_start, paws.optimizer.nesterov) == (1, "zero", True)
    for recipe, head, trunk in [(swav, 0.2, 0.01), (few, 5, 0.02)]:
        lr = recipe.optimizer.lr
        assert (lr.peak, lr.peak * recipe.optimizer.backbone_lr) == (head, pytest.approx(trunk))
        assert (lr.shape, lr.milestones, lr.gamma, recipe.trainer.epochs) == ("step", (12, 16), 0.2, 20)
        assert (recipe.support.batch_size, recipe.optimizer.weight_decay) == (256, 0)
    assert (linear.optimizer.lr.peak, linear.optimizer.weight_decay, linear.trainer.epochs) == (0.3, 1e-6, 100)
    assert (linear.method.freeze_backbone, linear.optimizer.exclude, linear.optimizer.lr.per_epoch) == (
        True,
        False,
        True,
    )
    nearest = load_recipe("soft_nn_imagenet_1percent_after_paws")
    assert (nearest.method.head.output, nearest.method.head.predictor, nearest.trainer.steps) == (2048, True, 0)
    for recipe in (paws, swav, few, linear, nearest):
        assert (recipe.views.evaluation.resize, recipe.views.evaluation.crop) == (256, 224)
        assert (recipe.views.large.scale, recipe.views.large.jitter) == ((0.08, 1.0), 0)


def test_defaults_need_not_be_written():
    recipe = parse_recipe(SMALLEST)
    assert recipe.seed == 0
    assert recipe.views.small is None
    assert recipe.views.std == (1.0,)
    assert recipe.runtime.precision == "auto"
    assert parse_recipe(dump_recipe(recipe)) == recipe


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  depth: 10",
            "  dpeth: 10",
            "r.yaml, line 4: backbone.dpeth (value 10) is not a known key: did you mean 'depth'?",
        ),
        ("data: {}", "dat: {}", "r.yaml, line 16: dat (value {}) is not a known key: did you mean 'data'?"),
        (
            "data: {}",
            "batch_size: 3",
            "line 16: batch_size (value 3) is not a known key: did you mean data.batch_size or support.batch_size?",
        ),
        ("data: {}", "zzz: 3", "line 16: zzz (value 3) is not a known key: known keys here are description, method,"),
        ("  depth: 10", "  depth: ten", "line 4: backbone.depth is 'ten': expected a whole number."),
        ("  depth: 10", "  depth: 10.0", "line 4: backbone.depth is 10.0: expected a whole number."),
        ("  depth: 10", "  depth: '10'", "line 4: backbone.depth is '10': expected a whole number."),
        ("  depth: 10", "  depth: true", "line 4: backbone.depth is true: expected a whole number."),
        ("  depth: 10", "  depth: null", "line 4: backbone.depth is null: expected a whole number."),
        ("  depth: 10", "  depth: [10]", "line 4: backbone.depth is [10]: expected a whole number."),
        ("  depth: 10", "  depth: 11", "line 4: backbone.depth is 11, but a wide ResNet has 6 n + 4 layers"),
        ("    peak: 0.1", "    peak: 1e-3x", "line 15: optimizer.lr.peak is '1e-3x': expected a number."),
        ("    peak: 0.1", "    shape: cosine", "line 14: optimizer.lr.peak is missing: give a number."),
        (
            "    peak: 0.1",
            "    peak: 0.1\n    shape: sine",
            "shape is 'sine': expected 'cosine', 'linear', 'constant' or 'step'.",
        ),
        ("  kind: sgd", "  nesterov: yes\n  kind: sgd", "nesterov is 'yes': expected true or false."),
        ("  kind: sgd", "  kind: sdg", "optimizer.kind is 'sdg': did you mean 'sgd'? Choose one of lars, sgd, adamw, "),
        ("  kind: sgd", "  nesterov: true", "line 12: optimizer.kind is missing: choose one of lars, sgd, adamw, muon"),
        ("  kind: sgd", "  kind: [sgd]", "optimizer.kind is ['sgd']: Choose one of"),
        (
            "{size: 8, scale: [0.5, 1]}",
            "{size: 8, scale: [1]}",
            "views.large.scale is [1]: expected a list of 2 numbers.",
        ),
        ("{size: 8, scale: [0.5, 1]}", "{size: 0, scale: [0.5, 1]}", "line 6: views.large.size is 0: give the side"),
        ("{size: 8, scale: [0.5, 1]}", "8", "line 6: views.large is 8: expected a section"),
        ("{size: 8, scale: [0.5, 1]}", "null", "line 6: views.large is null: expected a section"),
        ("  steps: 3", "  log_every: 3", "line 17: trainer has none of them: give exactly one"),
        ("  steps: 3", "  steps: -1", "line 18: trainer.steps is -1: use more than 0."),
        ("support:\n  images_per_class: 2\n", "", "support is null, but supervised draws labelled images"),
        (
            "{kind: supervised}",
            "{kind: superwised}",
            "line 1: method.kind: 'superwised' is no known method: did you mean",
        ),
        (
            "data: {}",
            "data: {}\ndata: {}",
            "line 17: the key 'data' is given twice, first in r.yaml, line 16: keep one.",
        ),
    ],
)
def test_errors_are_one_sentence_with_place_key_value_and_advice(old, new, message):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(with_line(old, new), "r.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("r.yaml, line ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "a: [", "method: 3"])
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(RecipeError):
        parse_recipe(text)


def test_overrides_are_read_as_yaml_and_applied_in_order():
    recipe = parse_recipe(
        SMALLEST,
        overrides=[
            "optimizer.lr.peak=1e-6",
            "seed=1",
            "seed=2",
            "data.images=on",
            "views.large.scale=[0.25, 0.5]",
            "runtime.threads=2",
            "data={batch_size: 4}",
        ],
    )
    assert recipe.optimizer.lr.peak == 1e-6
    assert recipe.seed == 2
    assert recipe.views.large.scale == (0.25, 0.5)
    assert recipe.runtime.threads == 2
    assert (recipe.data.images, recipe.data.batch_size) == (None, 4)


def test_overrides_make_and_remove_optional_sections():
    paws = load_recipe("paws_cifar10_4000", ["views.small=null"])
    assert paws.views.small is None
    made = parse_recipe(SMALLEST, overrides=["views.small.size=4", "views.small.scale=[0.1, 0.2]"])
    assert made.views.small.size == 4
    with pytest.raises(RecipeError, match="override 'support=null': support is null, but paws draws labelled images"):
        load_recipe("paws_cifar10_4000", ["support=null"])


def test_another_kind_keeps_what_still_holds():
    recipe = load_recipe("paws_cifar10_4000", ["backbone.kind=resnet", "optimizer.kind=sgd"])
    assert recipe.backbone.depth == 50  # a ResNet has no 28 layers, so its own default
    assert recipe.backbone.width == 2
    assert recipe.optimizer.lr == load_recipe("paws_cifar10_4000").optimizer.lr
    chosen = load_recipe("paws_cifar10_4000", ["backbone.depth=18", "backbone.kind=resnet", "backbone.stem=small"])
    assert (chosen.backbone.depth, chosen.backbone.stem) == (18, "small")
    assert load_recipe("paws_cifar10_4000", ["method.kind=supervised"]).method.label_smoothing == 0.1
    free = load_recipe("paws_cifar10_4000", ["backbone={kind: timm, name: x, options: {img_size: 32, drop: 1.0}}"])
    assert free.backbone.options == {"img_size": 32, "drop": 1.0}
    assert type(free.backbone.options["img_size"]) is int


def test_one_length_replaces_another():
    trainer = load_recipe("paws_cifar10_4000", ["trainer.minutes=30"]).trainer
    assert (trainer.minutes, trainer.epochs, trainer.steps) == (30, None, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "an override is written key=value"),
        ("=3", "an override is written key=value"),
        ("views..size=3", "an override is written key=value"),
        ("optimizer.lr.peek=1", r"optimizer.lr.peek \(value 1\) is not a known key: did you mean 'peak'\?"),
        ("optimzer.lr.peak=1", r"did you mean 'optimizer'\?"),
        ("backbone.depth.x=1", "backbone.depth is a single value: set it as a whole"),
        ("backbone.depth=27", "backbone.depth is 27, but a wide ResNet"),
        ("views.mean=[a", "not valid YAML"),
        ("backbone.kind=os:system", "backbone.kind is 'os:system'"),
        ("extends=paws_cifar10_4000", "extends .* is not a known key"),
        ("trainer={steps: 1, epochs: 1}", "give exactly one"),
    ],
)
def test_errors_of_overrides_quote_them(override, message):
    with pytest.raises(RecipeError, match=message) as caught:
        parse_recipe(SMALLEST, overrides=[override])
    assert str(caught.value).startswith(f"override {override!r}: ")


def test_a_recipe_extends_another_beside_it(tmp_path):
    (tmp_path / "base.yaml").write_text(SMALLEST)
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: base.yaml\noptimizer:\n  lr: {peak: 0.5}\ntrainer: {epochs: 2}\nbackbone: {kind: resnet}\n"
    )
    recipe = load_recipe(child)
    assert recipe.optimizer.kind == "sgd"
    assert recipe.optimizer.lr.peak == 0.5
    assert (recipe.trainer.epochs, recipe.trainer.steps) == (2, None)
    assert recipe.backbone.depth == 50
    assert "extends" not in dump_recipe(recipe)
    child.write_text("extends: base.yaml\noptimizer:\n  lr: {peak: x}\n")
    with pytest.raises(RecipeError, match=r"child.yaml, line 3: optimizer.lr.peak is 'x'"):
        load_recipe(child)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: child.yaml", "recipes extend each other in a circle"),
        ("extends: none.yaml", "line 1: extends: the recipe .* does not exist"),
        ("extends: [a, b]", "extends names one recipe"),
    ],
)
def test_extending_fails_clearly(tmp_path, text, message):
    child = tmp_path / "child.yaml"
    child.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(child)


def test_a_file_may_be_called_like_the_shipped_recipe_that_it_extends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("paws_digits.yaml").write_text("extends: paws_digits\nseed: 7\n")
    assert load_recipe("paws_digits.yaml").seed == 7
    Path("link.yaml").symlink_to("paws_digits.yaml")
    Path("paws_digits.yaml").write_text("extends: link.yaml\n")
    with pytest.raises(RecipeError, match=r"in a circle: paws_digits.yaml -> link.yaml\."):
        load_recipe("paws_digits.yaml")


def test_files_that_are_not_there_or_no_text(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'paws_cifar10_4000'"):
        load_recipe("paws_cifar10_400")
    with pytest.raises(RecipeError, match="`tapetum recipes` lists them"):
        load_recipe("zzz")
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe(tmp_path / "x.yaml")
    with pytest.raises(RecipeError, match="is a folder: give a YAML file"):
        load_recipe(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(RecipeError, match="not text in UTF-8"):
        load_recipe(tmp_path / "x.yaml")


def test_no_value_of_a_recipe_imports_or_runs_anything(tmp_path):
    (tmp_path / "evil_module.py").write_text("open('ran', 'w')\n")
    program = (
        "import sys\nfrom tapetum.recipe.recipe import load_recipe, RecipeError\n"
        "for text in ['method.kind=evil_module', 'method.kind=evil_module:M', "
        "'backbone.kind=evil_module', 'description=evil_module', 'extends=evil_module', "
        "'seed=!!python/name:evil_module.M', 'seed=!!python/object/apply:exec [import evil_module]']:\n"
        "    try: load_recipe('paws_cifar10_4000', [text])\n"
        "    except RecipeError: pass\n"
        "assert 'evil_module' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env=environment)
    assert not (tmp_path / "ran").exists()


def test_a_method_from_outside_is_a_kind_like_any_other(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    inner = dataclasses.make_dataclass(
        "Inner", [("kind", Literal["inner"], "inner"), ("width", int, 3)], frozen=True, kw_only=True
    )
    config = dataclasses.make_dataclass(
        "Outside",
        [
            ("kind", Literal["outside"], "outside"),
            ("inner", inner, dataclasses.field(default_factory=inner)),
            ("many", tuple[inner, ...], ()),
        ],
        frozen=True,
        kw_only=True,
    )
    registry.register(type("OutsideMethod", (Method,), {"Config": config}))
    text = with_line("{kind: supervised}", "{kind: outside, inner: {width: 5}, many: [{width: 1}, {}]}")
    recipe = parse_recipe(text)
    assert recipe.method == config(inner=inner(width=5), many=(inner(width=1), inner()))
    assert parse_recipe(dump_recipe(recipe)) == recipe
    with pytest.raises(
        RecipeError, match=r"line 1: method.inner.wdth \(value 5\) is not a known key: did you mean 'width'"
    ):
        parse_recipe(text.replace("{width: 5}", "{wdth: 5}"))
    with pytest.raises(RecipeError, match=r"line 1: method.many.0.wdth \(value 1\) is not a known key"):
        parse_recipe(text.replace("{width: 1}", "{wdth: 1}"))


def test_field_notes_tell_type_default_and_text():
    notes = {note.key: note for note in field_notes(find_config("paws")[1])}
    assert notes["temperature"].type == "a number"
    assert notes["temperature"].default == "0.1"
    assert "soft nearest neighbours" in notes["temperature"].text
    assert "head.output" in notes
    sections = {note.key: note.default for note in field_notes(find_config("fixmatch")[1])}
    assert (sections["head.hidden"], sections["head.layers"]) == ("256", "2")  # of HeadConfig: null and 3
    methods = ["{kind: fixmatch}", "{kind: fixmatch, head: {output: 64}}"]
    texts = [with_line("method: {kind: supervised}", f"method: {method}") for method in methods]
    assert [parse_recipe(text).method.head.layers for text in texts] == [2, 2]
    assert find_config("views")[0] == "views:"
    with pytest.raises(ValueError, match="several kinds: ask for the fields of one of lars, sgd, adamw"):
        find_config("optimizer")
    with pytest.raises(ValueError, match="did you mean 'paws'"):
        find_config("pawz")


def test_numbers_keep_their_last_bit():
    recipe = parse_recipe(SMALLEST)
    for peak in (0.1 + 0.2, 1e-6, 5e-324, 1e300, math.pi, 3):
        lr = dataclasses.replace(recipe.optimizer.lr, peak=peak)
        changed = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, lr=lr))
        assert parse_recipe(dump_recipe(changed)).optimizer.lr.peak == peak


def test_types_in_words():
    assert in_words(float | None) == "a number or null"
    assert in_words(tuple[int, ...]) == "a list of whole numbers"
    assert in_words(Literal["a", "b", 3]) == "'a', 'b' or 3"
    assert in_words(dict[str, int]) == "a mapping of names to values"


def test_the_end_of_a_long_list_decides_too():
    priors = [load_recipe("paws_digits", [f"method.class_prior={29 * [0.033] + [last]}"]) for last in (0.043, 0.053)]
    assert deciding_values(priors[0]) != deciding_values(priors[1])


def test_labelled_images_that_are_alone_in_their_class_are_refused_where_they_are_compared():
    alone = ["method.suncet_weight=1", "support.images_per_class=1", "views.support_views=1"]
    with pytest.raises(
        RecipeError, match=r"images_per_class is 1, but SuNCEt compares .*, or views.support_views to 2"
    ):
        load_recipe("paws_cifar10_4000", alone)
    load_recipe("paws_cifar10_4000", [*alone, "views.support_views=2"])
    load_recipe("paws_cifar10_4000", [*alone, "method.suncet_weight=0"])
