"""`tapetum recipes`: list the shipped recipes, print one, or print the fields that can be set."""

import itertools
import textwrap
from collections.abc import Sequence

from tapetum.methods.registry import load_plugins
from tapetum.recipe.files import recipe_text, shipped_recipes
from tapetum.recipe.yaml_with_lines import read_yaml

_WIDTH = 100  # columns of running text


def recipes(name: str | None = None, fields: str | None = None, plugins: Sequence[str] = ()) -> None:
    """Print a line about each shipped recipe; or one recipe; or the fields of a method.

    Args:
        name: print this recipe in full: a shipped one or a file. Copy it to change more than overrides can.
        fields: print every field of this method's config with type, default, meaning and source. Kinds of backbone
            and optimizer ("resnet", "lars") and names of sections ("views", "trainer") work as well.
        plugins: modules to import first; they register methods.

    Raises:
        ValueError: there is no such recipe, method or section; or both arguments are given.

    Example:
        >>> recipes(fields="supervised")  # doctest: +ELLIPSIS
        method: {kind: supervised}  Cross-entropy on the labelled images.
        ...
    """
    if name is not None and fields is not None:
        raise ValueError("name and fields are both given: give a recipe, or the method whose fields to print.")
    load_plugins(plugins)
    if fields is not None:
        _print_fields(fields)
    elif name is not None:
        print(_whole(name), end="")
    else:
        _print_list()


def _print_list() -> None:
    names = shipped_recipes()
    width = max(len(name) for name in names)
    for name in names:
        print(f"{name:<{width}}  {_description(name)}")
    print("\nShow one:   tapetum recipes NAME\nTrain one:  tapetum train NAME --output RUN data.images=FOLDER")


def _description(name: str) -> str:
    """Return the recipe's description or, if it has none, its first comment."""
    text, place = recipe_text(name)
    values = read_yaml(text, lambda line: f"{place}, line {line}").plain()
    comments = [line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")]
    written = values.get("description") if isinstance(values, dict) else None
    return str(written or (comments[0] if comments else ""))


def _whole(name: str) -> str:
    """Return the file as written or, if it extends another, its opening comments and every value."""
    text, place = recipe_text(name)
    values = read_yaml(text, lambda line: f"{place}, line {line}").plain()
    if not isinstance(values, dict) or "extends" not in values:
        return text
    from tapetum.recipe.recipe import dump_recipe, parse_recipe

    comments = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True))
    return "".join(comments) + dump_recipe(parse_recipe(text, place))


def _print_fields(wanted: str) -> None:
    from tapetum.recipe.fields import field_notes
    from tapetum.recipe.recipe import find_config  # loads torch, which listing recipes doesn't need

    section, config = find_config(wanted)
    about = (config.__doc__ or "").strip().splitlines()[0]
    print(f"{section}  {about}")
    for note in field_notes(config):
        default = note.default if note.default == "required" else f"default {note.default}"
        print(f"\n  {note.key}  ({note.type}; {default})")
        for line in textwrap.wrap(note.text, _WIDTH - 6):
            print(f"      {line}")
