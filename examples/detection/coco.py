"""Images with boxes in COCO's format: reading and checking them, the batches of a training, and average precision.

A box is (x1, y1, x2, y2) in pixels here; COCO's files have (x, y, width, height). Classes are numbered from 0 in the
order of their category ids, which may have gaps, as COCO's have.
"""

import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from recipe import DataConfig

Target = dict[str, Tensor]
"""boxes (N, 4) and labels (N,) of one image; found ones have scores (N,), too."""
Example = tuple[Tensor, Target]
"""An image (3, H, W) of 8 bits and what is in it."""
_FIELDS = {
    "images": ("id", "file_name"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
METRICS = {"AP": 0, "AP50": 1, "AP75": 2}
"""Names of COCO's figures, and their places in its table."""


@dataclass(frozen=True)
class Picture:
    """An image file and its boxes, without those of crowds and those without an area."""

    id: int
    path: Path
    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Coco:
    """A file of annotations with its images."""

    annotations: Path
    categories: tuple[int, ...]
    """Category ids, by class."""
    names: tuple[str, ...]
    pictures: tuple[Picture, ...]

    @property
    def with_boxes(self) -> "Coco":
        """Without the images that have no box, which no detector here is trained on."""
        kept = tuple(picture for picture in self.pictures if len(picture.boxes))
        if not kept:
            raise ValueError(f"{self.annotations} has no box to train on: give annotations of instances.")
        return Coco(self.annotations, self.categories, self.names, kept)


def read_coco(images: str | Path, annotations: str | Path) -> Coco:
    """Read a file of annotations, and check that it fits its images.

    Raises:
        ValueError: a file is missing or not COCO's JSON, or an annotation is of an unknown category or image.
    """
    folder, file = Path(images), Path(annotations)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give the folder of the images that {file} names.")
    content = _content(file)
    names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    classes = {category: index for index, category in enumerate(sorted(names))}
    boxes: dict[int, list[list[float]]] = {int(image["id"]): [] for image in content["images"]}
    labels: dict[int, list[int]] = {image: [] for image in boxes}
    for annotation in content["annotations"]:
        what = f"annotation {annotation['id']} of {file}"
        category, image = annotation["category_id"], annotation["image_id"]
        if category not in classes:
            raise ValueError(f"{what} has category_id {category}, which is not in categories: add it there.")
        if image not in boxes:
            raise ValueError(f"{what} has image_id {image}, which is not in images: add it there.")
        x, y, width, height = annotation["bbox"]
        if width > 0 and height > 0 and not annotation.get("iscrowd", 0):
            boxes[image].append([x, y, x + width, y + height])
            labels[image].append(classes[category])
    pictures = []
    for image in content["images"]:
        path = folder / image["file_name"]
        if not path.is_file():
            raise ValueError(f"{file} names {image['file_name']}, which is not in {folder}: give the images' folder.")
        number = int(image["id"])
        corners = torch.tensor(boxes[number], dtype=torch.float32).reshape(-1, 4)
        pictures.append(Picture(number, path, corners, torch.tensor(labels[number], dtype=torch.int64)))
    return Coco(file, tuple(sorted(names)), tuple(names[i] for i in sorted(names)), tuple(pictures))


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {file}: give COCO's JSON of instances.") from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} is no JSON ({error}): give COCO's JSON of instances.") from error
    missing = [key for key in _FIELDS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}: give COCO's JSON of instances.")
    for key, fields in _FIELDS.items():
        for entry in content[key]:
            absent = [field for field in fields if field not in entry]
            if absent:
                raise ValueError(f"{file} has an entry of {key} without {absent[0]}: give COCO's JSON of instances.")
            if key == "annotations" and len(entry["bbox"]) != 4:
                raise ValueError(f"annotation {entry['id']} of {file} has not 4 numbers as bbox: give x, y, w and h.")
    return dict(content)


def load_image(path: Path) -> Tensor:
    """Decode a file to (3, H, W), 8 bits.

    Raises:
        ValueError: it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return pil_to_tensor(image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"{path} cannot be decoded ({error}): replace it, or remove its entry.") from error


class Examples(Dataset[Example]):
    """The endless sequence of training examples, each a function of the seed and its number.

    Example number n is in epoch n // len(pictures); each epoch has an order of its own. So a training can begin again
    at any step, with any number of processes that read.
    """

    def __init__(self, pictures: Sequence[Picture], config: DataConfig, seed: int) -> None:
        self.pictures, self.config, self.seed = pictures, config, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, number: int) -> Example:
        epoch, position = divmod(number, len(self.pictures))
        if epoch != self._epoch:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.pictures))
            self._epoch, self._order = epoch, order
        picture = self.pictures[self._order[position]]
        draws = np.random.default_rng([self.seed, 1, number])
        image, boxes, labels = load_image(picture.path), picture.boxes.clone(), picture.labels
        if draws.random() < self.config.crop:
            image, boxes, labels = _cropped(image, boxes, labels, draws)
        if draws.random() < self.config.flip:
            image = image.flip(2)
            boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
        return image, {"boxes": boxes, "labels": labels}


def _cropped(image: Tensor, boxes: Tensor, labels: Tensor, draws: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A random rectangle of an image, with what is left of its boxes."""
    height, width = image.shape[1:]
    scale = min(height, width) / draws.choice([400, 500, 600])
    sizes = [round(scale * draws.integers(384, max(385, min(side / scale, 600) + 1))) for side in (height, width)]
    tall, wide = min(sizes[0], height), min(sizes[1], width)
    top, left = int(draws.integers(height - tall + 1)), int(draws.integers(width - wide + 1))
    moved = boxes - torch.tensor([left, top, left, top])
    limits = torch.tensor([wide, tall, wide, tall])
    clipped = torch.minimum(moved.clamp(min=0), limits)
    kept = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(dim=1)
    return image[:, top : top + tall, left : left + wide], clipped[kept], labels[kept]


def batches(examples: Examples, batch_size: int, steps: range, workers: int) -> Iterable[list[Example]]:
    """The batches of these steps, in order."""
    numbers = (list(range(step * batch_size, (step + 1) * batch_size)) for step in steps)
    loader: DataLoader[Example] = DataLoader(examples, batch_sampler=numbers, num_workers=workers, collate_fn=list)
    return loader


def average_precision(coco: Coco, found: Iterable[tuple[int, Target]]) -> dict[str, float]:
    """COCO's average precision of boxes, in percent.

    Args:
        coco: what there is.
        found: image ids and what was found there: boxes, labels and scores.

    Returns:
        AP (mean over overlaps from 0.5 to 0.95), AP50 and AP75.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = []
    for image, target in found:
        for box, label, score in zip(target["boxes"].tolist(), target["labels"].tolist(), target["scores"].tolist()):
            x, y, right, bottom = box
            category = coco.categories[label]
            rows.append(
                {"image_id": image, "category_id": category, "bbox": [x, y, right - x, bottom - y], "score": score}
            )
    if not rows:
        return dict.fromkeys(METRICS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        truth = COCO(str(coco.annotations))
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: round(100 * float(evaluation.stats[place]), 3) for name, place in METRICS.items()}
