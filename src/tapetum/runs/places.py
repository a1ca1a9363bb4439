"""Where the images and labels of a run are now: a run folder may be moved or copied, and so may its images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tapetum.recipe.recipe import Recipe

GIVEN = "given"
"""Name of the folder inside a run folder for images and labels that the caller passed in memory."""
_OPTIONS = {"images": "--images DIR", "labels": "--labels FILE", "test": "--test DIR"}
"""Fields of a recipe's data that are places -> the options that say where they are now."""


def moved_to(
    images: str | Path | None = None, labels: str | Path | None = None, test: str | Path | None = None
) -> dict[str, str]:
    """Return the given places by the fields of a recipe's data."""
    given = {"images": images, "labels": labels, "test": test}
    return {name: str(path) for name, path in given.items() if path is not None}


def located(folder: Path, recipe: Recipe, moved: Mapping[str, str], needs_test: bool = False) -> Recipe:
    """Return a run's recipe with the places where its data is now.

    Labels and test images that lay in the folder of images are looked for in its new place.

    Args:
        folder: the run folder.
        recipe: as it was written there.
        moved: new places, as `moved_to` returns them.
        needs_test: whether the test images will be used.

    Raises:
        ValueError: there is nothing at one of the places; names the option that tells the new one.
    """
    places = {name: getattr(recipe.data, name) for name in _OPTIONS}
    before, after = places["images"], moved.get("images")
    for name, path in places.items():
        if name in moved:
            places[name] = moved[name]
        elif before and after and path and not _exists(path) and Path(path).is_relative_to(before):
            places[name] = str(Path(after) / Path(path).relative_to(before))
    for name, path in places.items():
        if path and not _exists(path) and (needs_test or name != "test"):
            what = "test images" if name == "test" else name
            raise ValueError(
                f"the {what} of {folder} are not at {path} (current folder: {Path.cwd()}): say where they are now with "
                f"{_OPTIONS[name]}."
            )
    return replace(recipe, data=replace(recipe.data, **places))


def own_copy(folder: Path, path: str) -> str:
    """Return where a run's copy of data that was passed in memory is now, if a path names it; else the path."""
    parts = Path(path).parts[-3:]
    if len(parts) == 3 and parts[0] == GIVEN:
        for run in (folder, folder.parent.parent):  # short runs of folds, and evaluations, lie in their run's folder
            if run.joinpath(*parts).exists():
                return str(run.joinpath(*parts))
    return path


def with_own_copies(folder: Path, recipe: Recipe) -> Recipe:
    """Return a run's recipe with the places where its copies of data that was passed in memory are now."""
    places: dict[str, Any] = {
        name: own_copy(folder, path) for name in _OPTIONS if (path := getattr(recipe.data, name)) is not None
    }
    return replace(recipe, data=replace(recipe.data, **places))


def _exists(path: str) -> bool:
    """Whether there is something at a place; digits, s3://... and {0..9}.tar are left to those who open them."""
    return ":" in path or "{" in path or path in ("digits", "none") or Path(path).expanduser().exists()
