"""Draw a small data set in COCO's format: discs, squares and triangles on cuttings of photographs or on noise.

    python examples/detection/shapes.py --output FOLDER [--backgrounds IMAGES] [--train 400] [--test 100] [--seed 0]

Writes FOLDER/train and FOLDER/test (PNG), and FOLDER/train.json and FOLDER/test.json. A box is exactly that of the
shape's pixels, counted before later shapes cover some of them. Equal arguments give equal files.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tapetum.system.files import whole_file, write_text

CLASSES = ("disc", "square", "triangle")
MOST = 4
"""Shapes of an image."""
EDGES = (64, 128)
"""Least and largest edge of an image, in pixels."""
SIZES = (0.2, 0.5)
"""Least and largest width of a shape, as shares of the shorter edge."""
_SUFFIXES = (".jpg", ".jpeg", ".png")
Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
Annotation = dict[str, Any]


def make_shapes(
    folder: str | Path,
    backgrounds: str | Path | None = None,
    train: int = 400,
    test: int = 100,
    seed: int = 0,
    most: int = MOST,
) -> None:
    """Write the data set.

    Args:
        folder: where; is made if needed.
        backgrounds: a folder of photographs, with any subfolders; None for noise.
        train: number of images to train on.
        test: number of images to measure on; others than those, and on other cuttings.
        seed: decides everything.
        most: shapes of an image, at most; at least one.

    Raises:
        ValueError: there are no photographs, or a number is not positive.
    """
    for name, value in (("train", train), ("test", test), ("most", most)):
        if value < 1:
            raise ValueError(f"{name} is {value}: draw at least one.")
    photographs = _photographs(backgrounds)
    for part, (name, count) in enumerate((("train", train), ("test", test))):
        drawn = (draw_image(np.random.default_rng([seed, part, n]), photographs, most) for n in range(count))
        _write(Path(folder), name, drawn)


def _write(folder: Path, name: str, drawn: Iterable[tuple[Pixels, list[Annotation]]]) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[Annotation] = []
    for number, (pixels, found) in enumerate(drawn):
        file = f"{number:05d}.png"
        with whole_file(folder / name / file) as partial:
            Image.fromarray(pixels).save(partial, format="PNG")
        height, width = pixels.shape[:2]
        images.append({"id": number + 1, "file_name": file, "height": height, "width": width})
        for annotation in found:
            annotations.append({"id": len(annotations) + 1, "image_id": number + 1, "iscrowd": 0, **annotation})
    categories = [{"id": i + 1, "name": shape} for i, shape in enumerate(CLASSES)]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    write_text(folder / f"{name}.json", json.dumps(content) + "\n")


def draw_image(
    draws: np.random.Generator, photographs: list[Path], most: int = MOST
) -> tuple[Pixels, list[Annotation]]:
    """An image (H, W, 3) of 8 bits, and COCO's annotations of its shapes without their ids."""
    height, width = (int(draws.integers(EDGES[0], EDGES[1] + 1)) for _ in range(2))
    pixels, found = _background(draws, photographs, height, width), []
    for _ in range(int(draws.integers(1, most + 1))):
        kind = int(draws.integers(len(CLASSES)))
        mask = _shape(draws, kind, height, width)
        pixels[mask] = draws.integers(0, 256, 3)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
        found.append({"category_id": kind + 1, "bbox": box, "area": int(mask.sum())})
    return pixels, found


def _shape(draws: np.random.Generator, kind: int, height: int, width: int) -> Mask:
    """The pixels (H, W) whose centres are inside an upright shape, which is inside the image."""
    half = draws.uniform(*SIZES) * min(height, width) / 2
    centre_y, centre_x = draws.uniform(half, height - half), draws.uniform(half, width - half)
    y = np.arange(height)[:, None] + 0.5 - centre_y
    x = np.arange(width)[None, :] + 0.5 - centre_x
    if CLASSES[kind] == "disc":
        return np.asarray(x**2 + y**2 <= half**2)
    if CLASSES[kind] == "square":
        return np.asarray(np.maximum(abs(x), abs(y)) <= half)
    return np.asarray((abs(y) <= half) & (abs(x) <= (y + half) / 2))  # the tip is above


def _background(draws: np.random.Generator, photographs: list[Path], height: int, width: int) -> Pixels:
    if not photographs:
        return draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    with Image.open(photographs[int(draws.integers(len(photographs)))]) as image:
        photograph = image.convert("RGB")
    across, down = photograph.size
    edge = draws.uniform(0.5, 1.0) * min(across / width, down / height)  # of the cutting, in its own pixels
    left, top = draws.uniform(0, across - edge * width), draws.uniform(0, down - edge * height)
    box = (left, top, left + edge * width, top + edge * height)
    return np.array(photograph.resize((width, height), Image.Resampling.BILINEAR, box=box))


def _photographs(folder: str | Path | None) -> list[Path]:
    if folder is None:
        return []
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise ValueError(f"{folder} holds no photograph ({', '.join(_SUFFIXES)}): give a folder that does.")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 on success, 2 if the input is wrong."""
    parser = argparse.ArgumentParser(prog="shapes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", required=True, help="folder of the data set")
    parser.add_argument("--backgrounds", help="folder of photographs; noise without one")
    for name, default in (("train", 400), ("test", 100), ("seed", 0), ("most", MOST)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args(arguments)
    try:
        make_shapes(given.output, given.backgrounds, given.train, given.test, given.seed, given.most)
    except ValueError as error:
        print(f"shapes: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
