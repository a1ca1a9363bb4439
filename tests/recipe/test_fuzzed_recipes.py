"""Whatever a recipe or an override holds, it is read or refused with one sentence; nothing else comes out."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tapetum.recipe.recipe import dump_recipe, load_recipe, parse_recipe
from tapetum.recipe.yaml_with_lines import write_yaml

QUICK = settings(deadline=None, max_examples=150)
BASE = load_recipe("paws_digits")


def keys_of(config, above=""):
    """Every dotted key of a recipe."""
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), f"{above}{field.name}"
        yield key
        if dataclasses.is_dataclass(value):
            yield from keys_of(value, f"{key}.")


KEYS = sorted(keys_of(BASE))


def one_sentence(function, *arguments):
    """What a function returns, or None where one sentence refuses the input; anything else fails the test."""
    try:
        return function(*arguments)
    except UnicodeError:  # a ValueError, too, but one that nobody wrote for people
        raise
    except ValueError as error:
        text = str(error)
        assert text
        assert "Traceback" not in text
        assert "pydantic" not in text.lower()
        return None


def sound(recipe):
    if recipe is not None:
        assert parse_recipe(dump_recipe(recipe)) == recipe


words = st.sampled_from(
    ("null", "true", "off", "paws", "swav", "wide_resnet", "sgd", "lars", "1e400", "-1", "0", ".nan", "[1, 2]", "{}")
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), words, st.integers(-2, 99)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
keys = st.one_of(
    st.sampled_from(KEYS),
    st.lists(st.sampled_from(sorted({part for key in KEYS for part in key.split(".")})), max_size=4).map(".".join),
    st.text(max_size=9),
)


@QUICK
@given(st.lists(st.tuples(keys, st.one_of(scalars.map(str), st.text(max_size=12), words)), min_size=1, max_size=3))
@example([("views.large.size", "9" * 5000)])
@example([("seed", "[" * 3000)])
@example([("trainer.minutes", ".nan")])
@example([("data.images", "\0")])
@example([("data.images", "\ud800")])
@example([("method", "*a")])
@example([("", "")])
def test_overrides_of_any_kind(pairs):
    sound(one_sentence(load_recipe, "paws_digits", [f"{key}={value}" for key, value in pairs]))


@QUICK
@given(st.text(max_size=12))
@example("=")
@example("seed")
@example("seed==")
def test_overrides_that_are_none(text):
    sound(one_sentence(load_recipe, "paws_digits", [text]))


@QUICK
@given(st.lists(st.tuples(st.sampled_from(KEYS), values), min_size=1, max_size=3))
def test_sound_recipes_with_a_few_values_of_any_shape(changes):
    def plain(config):
        named = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        return {name: plain(value) if dataclasses.is_dataclass(value) else value for name, value in named.items()}

    content = plain(BASE)
    for key, value in changes:
        *path, last = key.split(".")
        section = content
        for name in path:
            if not isinstance(section.get(name), dict):
                section[name] = {}
            section = section[name]
        section[last] = value
    try:
        text = write_yaml(content)
    except (ValueError, TypeError):
        return  # of making the text
    sound(one_sentence(parse_recipe, text))


lines = st.builds(
    lambda indent, key, value: f"{' ' * indent}{key}: {value}",
    st.integers(0, 4),
    st.one_of(st.sampled_from(["extends", *KEYS, *{key.split(".")[0] for key in KEYS}]), st.text(max_size=6)),
    st.one_of(words, st.text(max_size=8), scalars.map(str), st.sampled_from(("", "&a 1", "*a", "!!python/none", "|"))),
)


@QUICK
@given(st.one_of(st.text(max_size=40), st.lists(lines, max_size=6).map("\n".join)))
@example("[" * 3000)
@example("? [a]\n: b\n")
@example("? {a: b}\n: c\n")
@example("extends: paws_digits\nseed: !!python/object:os.system x\n")
@example("extends: paws_digits\nviews: [1]\n")
@example("a: b\n---\nc: d\n")
@example("extends: [paws_digits]\n")
@example("- a\n- b\n")
@example("seed: 0x" + "f" * 9000)
def test_text_of_any_kind(text):
    sound(one_sentence(parse_recipe, text))


@settings(QUICK, max_examples=60)
@given(st.binary(max_size=40))
@example(b"\xff\xfe\x00")
@example(b"extends: recipe.yaml\n")
def test_files_of_any_bytes(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_bytes(content)
        assert one_sentence(load_recipe, path) is None


@pytest.mark.parametrize("name", ["", ".", "/", "\0", "a" * 5000, "\ud800"])
def test_names_of_any_kind(name):
    assert one_sentence(load_recipe, name) is None
