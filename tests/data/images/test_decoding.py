import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from tapetum.data.images.decoding import decode, header_size, shrunk_sizes

# 4 high, 6 wide; no two corners alike, so that every turn shows.
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def saved(folder, image, name="a.png", **options):
    path = folder / name
    image.save(path, **options)
    return path


def test_rgb_png_is_read_bit_for_bit(tmp_path):
    pixels = decode(saved(tmp_path, Image.fromarray(PIXELS)))
    assert pixels.dtype == torch.uint8
    assert pixels.permute(1, 2, 0).is_contiguous()
    assert np.array_equal(pixels.numpy(), PIXELS.transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.ppm", "a.gif", "a.webp", "a.jpg"])
def test_other_formats_have_three_channels(tmp_path, name):
    assert decode(saved(tmp_path, Image.fromarray(PIXELS), name)).shape == (3, 4, 6)


def test_grey_and_bilevel_become_three_equal_channels(tmp_path):
    grey = decode(saved(tmp_path, Image.fromarray(PIXELS[..., 0])))
    assert np.array_equal(grey.numpy(), np.stack([PIXELS[..., 0]] * 3))
    bilevel = decode(saved(tmp_path, Image.fromarray(PIXELS[..., 0] > 30)))
    assert set(bilevel.unique().tolist()) == {0, 255}


def test_palette_becomes_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 210, 220])
    image.putpixel((1, 0), 1)
    assert decode(saved(tmp_path, image))[:, 0].T.tolist() == [[10, 20, 30], [200, 210, 220]]
    transparent = decode(saved(tmp_path, image, "b.png", transparency=0))
    assert transparent[:, 0].T.tolist() == [[255, 255, 255], [200, 210, 220]]


@pytest.mark.parametrize("mode,black", [("RGBA", (0, 0, 0)), ("LA", (0,))])
def test_transparent_pixels_are_white(tmp_path, mode, black):
    image = Image.new(mode, (2, 1), (*black, 0))
    image.putpixel((1, 0), (*black, 255))
    assert decode(saved(tmp_path, image))[0, 0].tolist() == [255, 0]


def test_16_bit_grey_keeps_its_high_byte(tmp_path):
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        assert decode(saved(tmp_path, Image.fromarray(values), name))[0, 0].tolist() == [0, 0, 1, 128, 255]


def test_small_values_stored_as_32_bit_integers_are_those_of_8_bit(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "grey.tif")
    assert torch.equal(decode(tmp_path / "grey.tif")[0], torch.from_numpy(grey))


def test_an_orientation_that_is_no_number_is_passed_over(monkeypatch, tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image.Image, "getexif", lambda self: {ExifTags.Base.Orientation: "x"})
    assert decode(tmp_path / "a.jpg").shape == (3, 2, 3)


def test_cmyk(tmp_path):
    red = decode(saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=95))
    assert (red[0] > 245).all()
    assert (red[1:] < 10).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_pixels_and_header_size_alike(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Blocks of 8 survive JPEG, so a corner's brightness tells which corner it was.
    corners = np.kron(np.array([[0, 80, 255], [40, 120, 200]], dtype=np.uint8), np.ones((8, 8), np.uint8))
    path = saved(tmp_path, Image.fromarray(corners).convert("RGB"), name, exif=exif)
    expected = {
        1: corners,
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.T,
        6: np.rot90(corners, -1),
        7: corners[::-1, ::-1].T,
        8: np.rot90(corners),
    }[orientation]
    pixels = decode(path)
    assert pixels.shape[1:] == expected.shape == header_size(path)
    assert np.abs(pixels[0].numpy().astype(int) - expected).max() < 12


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    pixels = decode(path)
    assert pixels.shape == (3, 8, 8)
    assert (pixels[0] > 200).all()
    assert (pixels[2] < 50).all()


def test_16_bit_colour_becomes_8_bit(tmp_path):
    header, rows = b"P6 2 1 65535\n", np.array([0, 256, 65535, 511, 32768, 255], dtype=">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(header + rows)
    assert decode(tmp_path / "a.ppm")[:, 0].T.tolist() == [[0, 1, 255], [2, 128, 1]]


def photograph(height, width):
    """Smooth, as photographs mostly are, and with no two corners alike."""
    rows, columns = np.linspace(0, 255, height)[:, None], np.linspace(0, 255, width)[None, :]
    waves = 60 * np.sin(rows / 20) * np.cos(columns / 30)
    layers = [0.7 * rows + 0.3 * columns, columns + 0 * rows, 255 - rows + 0 * columns]
    return Image.fromarray(np.stack([(layer + waves).clip(0, 255) for layer in layers], axis=2).astype(np.uint8))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("size", [(50, 81), (100, 100), (301, 210), (900, 1200)])
def test_shrunk_images_are_what_they_would_be_if_read_whole(tmp_path, name, size):
    path = saved(tmp_path, photograph(*size), name)
    expected_size = tuple(shrunk_sizes(np.array([size]), 48)[0])
    assert min(expected_size) == 48
    whole = Image.fromarray(decode(path).permute(1, 2, 0).numpy())
    expected = np.asarray(whole.resize(expected_size[::-1], Image.Resampling.BILINEAR)).astype(int).transpose(2, 0, 1)
    pixels = decode(path, 48).numpy()
    assert pixels.shape == (3, *expected_size)
    # JPEG's own reduction is another filter; without it the same.
    assert np.abs(pixels - expected).max() <= (6 if name == "a.jpg" and min(size) > 200 else 0)
    assert torch.equal(decode(path, 5000), decode(path))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_shrinking_keeps_images_upright(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, photograph(300, 480), name, exif=exif)
    pixels, whole = decode(path, 24), decode(path)
    assert pixels.shape[1:] == tuple(shrunk_sizes(np.array([header_size(path)]), 24)[0])
    small = torch.nn.functional.interpolate(whole[None].float(), pixels.shape[1:], mode="area")[0]
    assert (pixels - small).abs().max() < 25


def test_the_shorter_side_is_shrunk_and_nothing_enlarged():
    sizes = np.array([(32, 32), (32, 48), (48, 32), (375, 500), (750, 1000), (10, 900), (16, 17)])
    shrunk = [(16, 16), (16, 24), (24, 16), (16, 21), (16, 21), (10, 900), (16, 17)]
    assert shrunk_sizes(sizes, 16).tolist() == [list(size) for size in shrunk]
    assert shrunk_sizes(sizes, None) is sizes


def test_damaged_missing_and_unsupported_files_are_named(tmp_path):
    garbage = tmp_path / "garbage.jpg"
    garbage.write_bytes(b"no image")
    good = saved(tmp_path, Image.fromarray(np.resize(PIXELS, (64, 64, 3))), "good.jpg")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good.read_bytes()[:-200])
    floats = saved(tmp_path, Image.fromarray(np.zeros((2, 2), np.float32)), "floats.tif")
    deep = saved(tmp_path, Image.fromarray(np.full((2, 2), 10**6, np.int32)), "deep.tif")
    for path in (garbage, cut, floats, deep):
        with pytest.raises(ValueError, match=f"{path.name} cannot be read .*convert it"):
            decode(path)
    with pytest.raises(ValueError, match=r"gone\.jpg does not exist"):
        decode(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match=r"garbage\.jpg cannot be read"):
        header_size(garbage)
