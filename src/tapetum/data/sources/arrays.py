"""Images and labels in arrays: .npy and .npz files, which cannot run code when opened, and arrays in memory."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tapetum.system.strangers import refuse_bomb, short_reason

Split = Literal["train", "test"]


Pixels = npt.NDArray[np.uint8]


class NoTestPart(ValueError):
    """The test part of a source that has no parts."""


_NPZ_KEYS = (
    ("{split}_images", "{split}_labels"),  # MedMNIST
    ("x_{split}", "y_{split}"),  # Keras
    ("images", "labels"),
    ("x", "y"),
)
_NPZ_NAMES = {key.format(split=split) for pair in _NPZ_KEYS for key in pair for split in ("train", "test")}


def read_numpy(path: Path, split: Split) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Read the images and, if there are any, the labels of a .npy or .npz file.

    A .npz holds `images` (and `labels`), `x` (and `y`), or one such pair per split: `train_images`, `train_labels`,
    `x_train`, `y_train`, and so on.

    Raises:
        ValueError: the file is damaged, holds pickled objects, has none of these names, or lacks the split.
    """
    arrays: dict[str, npt.NDArray[Any] | None] = {}
    try:
        content = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        if isinstance(content, np.ndarray):
            arrays["images"] = content
        else:
            with content:
                refuse_bomb(path, sum(member.file_size for member in content.zip.infolist()))
                for key in content.files:
                    array = content[key] if key in _NPZ_NAMES else None
                    arrays[key] = array if isinstance(array, np.ndarray) else None  # else bytes of something else
    except Exception as error:  # numpy's reader raises nearly any type on damaged files
        raise ValueError(
            f"{path} cannot be read ({short_reason(error)}): save plain numeric arrays with numpy.save or numpy.savez"
        ) from error
    return named_arrays(arrays, split, str(path))


def named_arrays(
    arrays: Mapping[str, npt.NDArray[Any] | None], split: Split, where: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Find the images and labels of a split by the names that `read_numpy` lists; errors call the arrays `where`.

    Raises:
        ValueError: there are none of these names, or the split is missing.
    """
    for images_key, labels_key in _NPZ_KEYS:
        images = arrays.get(images_key.format(split=split))
        if images is None:
            continue
        if "split" not in images_key and split == "test":
            raise NoTestPart(f"{where} has no test part: it holds {_listed(arrays)}; give arrays x_test and y_test")
        return images, arrays.get(labels_key.format(split=split))
    raise ValueError(f"{where} holds {_listed(arrays) or 'nothing'}: name the arrays images and labels")


def _listed(names: Iterable[str]) -> str:
    some = [name[:80] for name in islice(names, 11)]
    return ", ".join([*some[:10], *("..." for _ in some[10:])])


def as_channels_first(images: npt.NDArray[Any]) -> Pixels:
    """Convert images of shape (N, H, W), (N, C, H, W) or (N, H, W, C) to (N, C, H, W); C is 1 or 3.

    Raises:
        ValueError: the images are not uint8 or have another shape.
    """
    shape = images.shape
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in shape:
        raise ValueError(
            f"images are {images.dtype} of shape {shape}: give uint8 with values 0 to 255 of shape (N, H, W), "
            "(N, C, H, W) or (N, H, W, C)"
        )
    if images.ndim == 3:
        return images[:, None]
    if shape[1] in (1, 3):
        return images
    if shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    raise ValueError(f"images have shape {shape}: the channels, 1 or 3, must come second or last")
