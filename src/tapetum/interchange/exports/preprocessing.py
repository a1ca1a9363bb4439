"""What happens to an image before the network sees it, in the words of other tools."""

import math
from typing import Any

from tapetum.interchange.exports.trained_model import TrainedModel


def preprocessing(model: TrainedModel) -> dict[str, Any]:
    """Describe a model's evaluation view as JSON can hold it.

    Returns:
        `channels`; `resize`, the length in pixels of the shorter side, null to keep the image's size; `interpolation`
        and `antialias` of this resize; `crop`, the side in pixels of the central square; `mirrored`, whether outputs
        are averaged over the square and its mirror image; `scales`, factors by which the square is resized, and
        outputs averaged over all of them; `mean` and `std` of each channel, for values in [0, 1].
    """
    view = model.views.evaluation
    return {
        "channels": model.channels,
        "resize": view.resize,
        "interpolation": "bilinear",
        "antialias": True,
        "crop": view.crop,
        "mirrored": view.mirrored,
        "scales": list(view.scales),
        "mean": list(model.views.mean),
        "std": list(model.views.std),
    }


def crop_share(crop: int, resize: int) -> float:
    """Return timm's `crop_pct`: timm resizes the shorter side to floor(crop / crop_pct) pixels.

    Example:
        >>> crop_share(224, 256)
        0.875
    """
    share = crop / resize
    return share if math.floor(crop / share) == resize else crop / (resize + 0.5)
