"""Decodes image files to uint8 RGB tensors with Pillow.

Every file becomes an upright image with three channels of eight bits:

- grey, palette, CMYK, YCbCr, LAB: Pillow converts them to RGB;
- transparency (an alpha channel or a transparent palette entry): composited over white, as browsers show it;
- 16-bit grey: only the high byte is kept, which is what Pillow keeps of 16-bit colour too;
- EXIF orientation: applied, so a photograph taken sideways is turned upright;
- several frames (GIF, TIFF, WebP): only the first is read.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image
from torch import Tensor

from tapetum.system.strangers import is_regular, short_reason
from tapetum.system.threads import in_turn


class Held(Protocol):
    """An image file that is no file of this machine, such as a member of an archive; as text, its name."""

    def read(self, most: int | None = None) -> bytes:
        """Read its bytes, or only about the first `most`.

        Raises:
            ValueError: it is damaged.
            FileNotFoundError: it has gone.
        """


ImageFile = Path | Held
_HEAD = 2**16  # bytes in which a header usually ends
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
# No others, whatever a name ends in: for PostScript, Pillow starts another program.
_MOST_PIXELS = 2**27
_DEEP = ("JPEG2000", "AVIF")  # their decoders take four times the memory of the pixels
_MOST_SCANS = 100
_STRIP = 2**22  # pixels

_ENDINGS = "jpg jpeg jpe jfif png bmp gif tif tiff webp avif ppm pgm pbm jp2"
IMAGE_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""File name endings (in lower case) that count as images when a folder is listed."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> operation that turns the stored pixels upright."""
_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation (1..8) from the header. Call this before any pixel is loaded."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFFs upright itself and reports the turned size
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # otherwise getexif() would decode the whole file to look for EXIF at its end
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (TypeError, ValueError):
        return 1  # a program wrote no number there; the pixels are good all the same


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("it holds 32-bit numbers of unknown range")
    if image.mode == "I" and values.max() <= 255:  # 8-bit values that a program stored as integers
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgb, rows = Image.new("RGB", image.size), max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):  # in strips, because four copies of a large image would fill memory
        box = (0, top, image.width, min(top + rows, image.height))
        part = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", part.size, (255, 255, 255, 255))
        rgb.paste(Image.alpha_composite(white, part).convert("RGB"), box)
    return rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("it holds floating-point numbers of unknown range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.has_transparency_data:
        return _over_white(image)
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


class UnreadableImage(ValueError):
    """Error for an image that cannot be decoded; `reason` gives the cause in a few words.

    `may_pass` says that the system failed, for want of memory, rights or a disk, so that nothing is known of the image.
    """

    def __init__(self, what: str, error: Exception) -> None:
        self.reason = short_reason(error)
        self.may_pass = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)
        if isinstance(error, FileNotFoundError):
            super().__init__(f"image {what} does not exist: restore it, or open the folder again")
        else:
            super().__init__(
                f"image {what} cannot be read ({self.reason}): convert it to 8-bit PNG or JPEG, or move it out of the "
                "folder"
            )


def _upright(opened: Image.Image) -> Image.Image:
    orientation = _orientation(opened)
    image = _to_rgb(opened)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


@contextmanager
def open_safely(content: Path | io.BytesIO) -> Iterator[Image.Image]:
    """Open an image file of a stranger. Errors are of nearly any type and lack the name of the file."""
    if isinstance(content, Path) and not is_regular(content):
        raise ValueError("it is a pipe, a socket or a device")
    with Image.open(content, formats=_FORMATS) as opened:
        _refuse_bomb(opened, content)
        yield opened


@contextmanager
def _opened(file: ImageFile, most: int | None = None) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong with it becomes an `UnreadableImage`."""
    try:
        content = file if isinstance(file, Path) else io.BytesIO(file.read(most))
    except (ValueError, FileNotFoundError) as error:  # nothing else tells of the image: a connection may be broken
        raise UnreadableImage(str(file), error) from error
    try:
        with open_safely(content) as opened:
            yield opened
    except Exception as error:  # Pillow's readers raise nearly any type on damaged files
        raise UnreadableImage(str(file), error) from error


def _refuse_bomb(opened: Image.Image, content: Path | io.BytesIO) -> None:
    """Refuse a header, or a number of passes over all pixels, that a small file has only to fill memory or time."""
    most = _MOST_PIXELS // 2 if opened.format in _DEEP else _MOST_PIXELS
    if opened.width * opened.height > most:
        raise ValueError(f"it has {opened.width}x{opened.height} pixels, and {most:,} is the most")
    if opened.info.get("progressive"):
        scans = (content.read_bytes() if isinstance(content, Path) else content.getvalue()).count(b"\xff\xda")
        if scans > _MOST_SCANS:
            raise ValueError(f"it is drawn {scans} times over itself, and {_MOST_SCANS} is the most")


def read_upright(file: ImageFile) -> tuple[Image.Image, str]:
    """Read an image file as upright RGB at its original size; also return the Pillow mode in which it is stored.

    Raises:
        UnreadableImage: as in `decode`.
    """
    with _opened(file) as opened:
        return _upright(opened), opened.mode


def _read_shrunk(file: ImageFile, shrink_to: int) -> Image.Image:
    with _opened(file) as opened:
        (width, height), turned = opened.size, _orientation(opened) in _SIDEWAYS
        height, width = shrunk_sizes(np.array([(height, width)]), shrink_to)[0].tolist()
        # JPEG can be read at 1/2, 1/4 or 1/8 of its size in a fraction of the time. Reading at least twice the
        # wanted size leaves the filter enough pixels.
        opened.draft(None, (2 * width, 2 * height))
        image = _upright(opened)
        wanted = (height, width) if turned else (width, height)
        return image if image.size == wanted else image.resize(wanted, Image.Resampling.BILINEAR)


def shrunk_sizes(sizes: npt.NDArray[np.int64], shrink_to: int | None) -> npt.NDArray[np.int64]:
    """Return (N, 2) heights and widths after shrinking the shorter side to at most `shrink_to` pixels (None: no limit).

    The longer side shrinks in proportion, rounded down, as in torchvision's Resize.
    """
    if shrink_to is None:
        return sizes
    shorter = sizes.min(axis=1, keepdims=True)
    return np.where(shorter > shrink_to, shrink_to * sizes // shorter, sizes)


def decode(file: ImageFile, shrink_to: int | None = None) -> Tensor:
    """Decode one image file.

    Args:
        file: the file.
        shrink_to: largest length of the shorter side in pixels; larger images are shrunk with Pillow's antialiased
            bilinear filter, as in the published evaluations. None keeps the size.

    Returns:
        uint8 tensor (3, height, width), the three channels of a pixel side by side in memory.

    Raises:
        UnreadableImage: the file is missing, damaged or cannot be converted to RGB; a ValueError that names the file.
    """
    return _as_tensor(read_upright(file)[0] if shrink_to is None else _read_shrunk(file, shrink_to))


def upright_tensor(image: Image.Image) -> Tensor:
    """Convert a Pillow image as `decode` converts a file, to uint8 (3, height, width). Errors are Pillow's own."""
    return _as_tensor(_upright(image))


def _as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)  # as they are: views are cut from pixels side by side


def header_size(file: ImageFile) -> tuple[int, int]:
    """Read the (height, width) in pixels of the upright image from the file's header alone.

    Raises:
        ValueError: the header cannot be read; names the file.
    """
    if not isinstance(file, Path):
        with suppress(UnreadableImage):  # the header may be longer
            return _header_size(file, _HEAD)
    return _header_size(file)


def _header_size(file: ImageFile, most: int | None = None) -> tuple[int, int]:
    with _opened(file, most) as opened:
        width, height = opened.size
        turned = _orientation(opened) in _SIDEWAYS
    return (width, height) if turned else (height, width)


def header_sizes(files: Iterable[ImageFile], at_once: int = 1) -> npt.NDArray[np.int64]:
    """Read (N, 2) heights and widths of many files with `header_size`, so many at a time."""
    return np.array(list(in_turn(header_size, files, at_once)), dtype=np.int64).reshape(-1, 2)
