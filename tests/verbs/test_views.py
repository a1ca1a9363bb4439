"""The contact sheet: which tiles lie where, and that they are the views that training would see."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tapetum
from tapetum.data.sources.open_source import open_source
from tapetum.data.views.apply import distort_colour, evaluation_view
from tapetum.recipe.recipe import load_recipe
from tapetum.runs.run import assemble

GAP, TILE = 2, 64


def tiles(sheet: Path, rows: int, columns: int) -> np.ndarray:
    """(rows, columns, TILE, TILE, 3) of a sheet, whose gaps must be white."""
    picture = np.asarray(Image.open(sheet)).copy()
    assert picture.shape == (rows * (TILE + GAP) + GAP, columns * (TILE + GAP) + GAP, 3)
    starts = [[GAP + i * (TILE + GAP) for i in range(count)] for count in (rows, columns)]
    cut = np.stack([[picture[y : y + TILE, x : x + TILE] for x in starts[1]] for y in starts[0]])
    for y in starts[0]:
        for x in starts[1]:
            picture[y : y + TILE, x : x + TILE] = 255
    assert (picture == 255).all()
    return cut


def shown(tile: np.ndarray, size: int) -> np.ndarray:
    """(3, size, size) of a tile: each pixel is a square; what is left over is white."""
    factor = TILE // size
    pixels = tile[: size * factor : factor, : size * factor : factor]
    enlarged = pixels.repeat(factor, 0).repeat(factor, 1)
    assert np.array_equal(tile[: size * factor, : size * factor], enlarged)
    assert (tile[size * factor :] == 255).all()
    assert (tile[:, size * factor :] == 255).all()
    return pixels.transpose(2, 0, 1)


def test_tiles_are_the_views_of_epoch_0(recipe, capsys):
    path = tapetum.views(str(recipe), "sheets/first.png", num_images=60, overrides=["seed=5"])
    assert path == Path("sheets/first.png")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "60 images: the evaluation view, then 3 training views each. Written to sheets/first.png."
    assert lines[-1] == f"Next: tapetum train {recipe} --output runs/colours"
    cut = tiles(path, rows=60, columns=4)

    parts = assemble(load_recipe(recipe, ["seed=5", "data.held_out_per_class=null"]))
    store = parts.data.store
    originals = evaluation_view(store.read(np.arange(60)), parts.recipe.views.evaluation).numpy()
    row_of = {shown(row[0], 8).tobytes(): i for i, row in enumerate(cut)}
    assert set(row_of) == {original.tobytes() for original in originals}
    seen = 0
    for number in range(parts.steps_per_epoch):
        views = parts.pipeline.cut(number)
        large, small = (distort_colour(g.pixels, g.parameters, g.config).numpy() for g in views.groups)
        for column, image in enumerate(views.index.tolist()):
            row = cut[row_of[originals[image].tobytes()]]
            assert np.array_equal(shown(row[1], 8), large[column])
            assert np.array_equal(shown(row[2], 8), large[8 + column])
            assert np.array_equal(shown(row[3], 6), small[column])
            seen += 1
    assert seen == 56


def test_the_same_sheet_every_time_and_another_for_another_seed(recipe):
    def sheet(name: str, *overrides: str) -> bytes:
        return tapetum.views(str(recipe), name, overrides=overrides).read_bytes()

    assert sheet("a.png") == sheet("b.png") != sheet("c.png", "seed=1")
    assert tiles(Path("a.png"), rows=8, columns=4).shape[:2] == (8, 4)


def test_grey_photographs_of_other_sizes_in_place_of_the_recipes_images(recipe, capsys):
    for i, size in enumerate([(30, 20), (20, 44)]):
        Path("photos", str(i)).mkdir(parents=True)
        Image.new("L", size, 90 * i).save(f"photos/{i}/x.png")
    without_small = ["views.small=null", "views.evaluation.resize=8"]
    path = tapetum.views(str(recipe), "sheet.png", images="photos", overrides=without_small)
    assert tiles(path, rows=2, columns=3).shape[:2] == (2, 3)
    assert capsys.readouterr().out.endswith("data.images=photos\n")


def test_digits_have_one_channel(one_thread, tmp_path):
    path = tapetum.views("paws_digits", tmp_path / "sheet.png", num_images=1)
    assert Image.open(path).mode == "L"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overrides": ["data.images=null"]}, "names no images: give --images DIR"),
        ({"images": "nowhere"}, "there is nothing at nowhere"),
        ({"images": "broken"}, r"broken/./x.png cannot be read"),
        ({"num_images": 0}, "num_images is 0: show 1 or more"),
        ({"overrides": ["views.evaluation.crop=11"]}, "crop is 11 but an image is 10 pixels"),
        ({"output": "sheet.mp3"}, "mp3"),
    ],
)
def test_bad_input_is_one_sentence(recipe, arguments, message):
    for i in (0, 1):
        Path("broken", str(i)).mkdir(parents=True)
        Path("broken", str(i), "x.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=message) as error:
        tapetum.views(**{"recipe": str(recipe), "output": "sheet.png"} | arguments)
    assert "\n" not in str(error.value)
    assert not Path("sheet.png").exists()


def test_it_draws_from_no_generator_of_torch(recipe):
    before = torch.random.get_rng_state()
    tapetum.views(str(recipe), "sheet.png")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(open_source("colours.npz").store) == 60
