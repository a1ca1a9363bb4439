import numpy as np
import pytest
import torch
from PIL import Image

from tapetum.data.decoding import decode, header_size

# 4 high, 6 wide; no two corners alike, so that every turn shows.
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def saved(folder, image, name="a.png", **options):
    path = folder / name
    image.save(path, **options)
    return path


def test_rgb_png_is_read_bit_for_bit(tmp_path):
    pixels = decode(saved(tmp_path, Image.fromarray(PIXELS)))
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
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


def test_resizing_is_after_turning(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, Image.fromarray(PIXELS), "a.jpg", exif=exif)
    assert decode(path, (3, 2)).shape == (3, 3, 2)


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
