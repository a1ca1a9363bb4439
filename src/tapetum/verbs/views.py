"""`tapetum views`: see what a recipe's augmentation does to images before training with it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tapetum.data.sources.folders import refuse_among
from tapetum.data.sources.open_source import open_source
from tapetum.data.views.apply import crop_resize_flip, distort_colour, evaluation_view
from tapetum.data.views.draw import ViewConfig, draw
from tapetum.methods.registry import load_plugins
from tapetum.ops.randomness import make_keys, permutation
from tapetum.recipe.recipe import load_recipe
from tapetum.system.files import whole_file

_GAP = 2  # pixels between tiles
_LEAST_TILE = 64  # pixels: smaller views are enlarged to be visible


def views(
    recipe: str,
    output: str | Path,
    images: str | None = None,
    overrides: Sequence[str] = (),
    num_images: int = 8,
    plugins: Sequence[str] = (),
) -> Path:
    """Draw a contact sheet of the views that a recipe trains on.

    Each row shows one image: as evaluation sees it, then its large views, then its small ones, before normalisation.
    The views are those of epoch 0.

    Args:
        recipe: name of a shipped recipe, or path of a YAML file.
        output: the picture to write; PNG is best.
        images: a folder of images (or any other source) instead of the recipe's `data.images`.
        overrides: `key.path=value` each.
        num_images: rows of the sheet; fewer if there are fewer images.
        plugins: modules to import first; they register methods.

    Returns:
        The path written.

    Raises:
        ValueError: the recipe is faulty, there are no images, an image is unreadable, or the picture cannot be written.

    Example:
        >>> import tapetum
        >>> sheet = tapetum.views("paws_digits", "sheet.png")  # doctest: +SKIP
    """
    if num_images < 1:
        raise ValueError(f"num_images is {num_images}: show 1 or more.")
    path = _picture(output)
    load_plugins(plugins)
    settings = load_recipe(recipe, overrides)
    source = images or settings.data.images
    if source is None:
        raise ValueError("the recipe names no images: give --images DIR or data.images=DIR.")
    refuse_among(path, source)
    store = open_source(source).store
    chosen = permutation(make_keys(settings.seed, "contact sheet"), len(store))[:num_images]
    originals = store.read(chosen)
    columns = [evaluation_view(originals, settings.views.evaluation)]
    kinds = [settings.views.large] + ([settings.views.small] if settings.views.small else [])
    first = 0
    for kind in kinds:
        for number in range(first, first + kind.count):
            columns.append(_one_view(originals, kind, settings.seed, chosen, number))
        first += kind.count
    with whole_file(path) as partial:
        _sheet(columns).save(partial, format=Image.registered_extensions()[path.suffix.lower()])
    print(f"{len(chosen)} images: the evaluation view, then {first} training views each. Written to {path}.")
    same_images = f" data.images={images}" if images else ""
    print(f"Next: tapetum train {recipe} --output runs/{Path(recipe).stem}{same_images}")
    return path


def _picture(output: str | Path) -> Path:
    """Return the path of the sheet, or refuse it before anything is drawn."""
    path = Path(output)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a picture in it as --output, such as {path / 'sheet.png'}.")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{path} has no picture ending: give --output such as {path.with_suffix('.png')}.")
    return path


def _one_view(images: Tensor | list[Tensor], kind: ViewConfig, seed: int, indices: np.ndarray, number: int) -> Tensor:
    heights = np.array([image.shape[-2] for image in images])
    widths = np.array([image.shape[-1] for image in images])
    parameters = draw(kind, make_keys(seed, "view", 0, indices, number), heights, widths)
    return distort_colour(crop_resize_flip(images, parameters, kind.size), parameters, kind)


def _sheet(columns: Sequence[Tensor]) -> Image.Image:
    """Lay out views as columns of tiles, each enlarged by a whole factor so that its pixels stay exact."""
    rows, channels = columns[0].shape[:2]
    sides = [c.shape[-1] for c in columns]
    tile = max(_LEAST_TILE, max(sides))
    width, height = len(columns) * (tile + _GAP) + _GAP, rows * (tile + _GAP) + _GAP
    canvas = torch.full((channels, height, width), 255, dtype=torch.uint8)
    for column, views_ in enumerate(columns):
        factor = max(1, tile // views_.shape[-1])
        enlarged = views_.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
        side = enlarged.shape[-1]
        for row, view in enumerate(enlarged):
            top, left = _GAP + row * (tile + _GAP), _GAP + column * (tile + _GAP)
            canvas[:, top : top + side, left : left + side] = view
    pixels = canvas.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels[..., 0] if channels == 1 else np.ascontiguousarray(pixels))
