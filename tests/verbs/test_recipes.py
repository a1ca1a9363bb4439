import subprocess
import sys

import pytest

import tapetum
from tapetum.recipe.files import recipe_text, shipped_recipes
from tapetum.recipe.recipe import load_recipe, parse_recipe
from tapetum.verbs.recipes import recipes


def test_list_has_a_line_about_each(capsys):
    recipes()
    lines = capsys.readouterr().out.splitlines()
    for name in shipped_recipes():
        assert any(line.startswith(f"{name} ") and load_recipe(name).description in line for line in lines)


def test_a_recipe_is_printed_as_written(capsys):
    recipes("paws_cifar10_4000")
    assert capsys.readouterr().out == recipe_text("paws_cifar10_4000")[0]


def test_a_recipe_that_extends_another_is_printed_whole(capsys):
    recipes("paws_imagenet_1percent_300ep")
    text = capsys.readouterr().out
    assert text.startswith("# PAWS on ImageNet with 1 %")
    assert parse_recipe(text) == load_recipe("paws_imagenet_1percent_300ep")


@pytest.mark.parametrize("name", shipped_recipes())
def test_each_opens_with_what_it_reaches_and_the_command(name):
    comments = "".join(line for line in recipe_text(name)[0].splitlines(True) if line.startswith("#"))
    assert "# Reaches: " in comments
    assert f"# Command: tapetum train {name} --output " in comments


def test_fields_of_a_method(capsys):
    recipes(fields="paws")
    text = capsys.readouterr().out
    assert "method: {kind: paws}" in text
    assert "  sharpen  (a number; default 0.25)\n      T: targets are raised" in text
    assert "  head.output  (a whole number; default 128)" in text


def test_fields_of_sections_and_other_kinds(capsys):
    recipes(fields="views")
    recipes(fields="lars")
    text = capsys.readouterr().out
    assert "  large.size  (a whole number; required)" in text
    assert "optimizer: {kind: lars}" in text


def test_mistakes():
    with pytest.raises(ValueError, match="did you mean 'paws'"):
        recipes(fields="pawz")
    with pytest.raises(ValueError, match="neither a shipped recipe nor a file"):
        recipes("zzz")
    with pytest.raises(ValueError, match="both given"):
        recipes("paws_cifar10_4000", fields="paws")


def test_listing_needs_no_torch():
    program = "import sys, tapetum; tapetum.recipes(); assert 'torch' not in sys.modules, 'torch is loaded'"
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_it_is_public():
    assert tapetum.recipes is recipes
