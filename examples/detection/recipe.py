"""The recipe of a detector: everything that decides its training, read from YAML and checked before anything starts."""

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from tapetum.recipe.fields import show
from tapetum.recipe.files import read_recipe, recipe_text
from tapetum.recipe.yaml_with_lines import Node, RecipeError, write_yaml

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class FasterRCNNConfig:
    """torchvision's Faster R-CNN with a feature pyramid (Ren et al., NeurIPS 2015; Lin et al., CVPR 2017)."""

    kind: Literal["faster_rcnn"]
    """Selects this detector."""
    channels: Count = 256
    """Channels of every level of the pyramid."""
    hidden: Count = 1024
    """Width of the two layers above the pooled regions."""
    anchor_sizes: tuple[Count, ...] = (32, 64, 128, 256, 512)
    """Edge of the anchors in pixels, one for each level: a level for each stage of the backbone, and one above."""
    proposals: Count = 2000
    """Regions that are proposed in a training image at most; half as many in one that is measured on."""
    regions: Count = 512
    """How many of them have the loss of boxes and classes."""


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class DetrConfig:
    """transformers' DETR (Carion et al., ECCV 2020)."""

    kind: Literal["detr"]
    """Selects this detector."""
    num_queries: Count = 100
    """Most objects that an image can have."""
    width: Count = 256
    """Channels of the transformer."""
    heads: Count = 8
    """Attention heads; they divide the width."""
    layers: Count = 6
    """Layers of the encoder, and of the decoder."""
    feedforward: Count = 2048
    """Width inside the layers."""
    dropout: Share = 0.1
    """Dropout in the transformer."""
    auxiliary_loss: bool = True
    """Whether every layer of the decoder has the loss, as published."""

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"heads is {self.heads}, but width, {self.width}, must be a multiple of twice as many.")


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class BackboneConfig:
    """The residual network below the detector."""

    weights: str | None = None
    """The folder of a Tapetum run, or a file of weights with torchvision's names; null for random weights."""
    depth: int = 50
    """Layers: 18, 20, 34, 50, 101, 152 or 200."""
    width: Count = 1
    """Multiplies the channels."""
    stem: Literal["imagenet", "small"] | None = None
    """As in Tapetum's recipes; DETR's must be "imagenet". null: small for depth 20, imagenet for the others."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """frozen: scale, shift and statistics stay as loaded. trained: they are trained, and the pyramid of Faster R-CNN
    has BatchNorm, too, as in the transfer of He et al. (CVPR 2020, https://arxiv.org/abs/1911.05722)."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2
    """How many parts are not trained, from below: 1 is the stem, 2 stem and layer1, as both detectors have it."""


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class DataConfig:
    """Images with boxes in COCO's format, and how they are shown."""

    train_images: str
    """Folder that the `file_name`s of the training annotations begin from."""
    train_annotations: str
    """COCO's JSON of instances."""
    test_images: str
    """As above, for measuring."""
    test_annotations: str
    """As above, for measuring; with the same categories."""
    flip: Share = 0.5
    """Probability of mirroring an image."""
    crop: Share = 0.0
    """Probability of cutting out a random rectangle, as DETR does in half of the cases: edges of 384 to 600 pixels, at
    a scale at which the shorter edge has 400, 500 or 600."""
    short_edges: Annotated[tuple[Count, ...], Field(min_length=1)] = (800,)
    """Images are resized to a shorter edge drawn from these; measuring uses the last."""
    longest_edge: Count = 1333
    """Upper limit of the longer edge, in pixels."""
    mean: tuple[float, float, float] | None = None
    """Mean of each channel. null: the run's if the weights are a run's, else ImageNet's."""
    std: tuple[Positive, Positive, Positive] | None = None
    """As above, the standard deviation."""


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class OptimizerConfig:
    """SGD with momentum or AdamW, at one learning rate for the backbone and one for the rest."""

    kind: Literal["sgd", "adamw"]
    """Selects the optimizer."""
    lr: Positive
    """Learning rate of everything but the backbone."""
    backbone_lr: Positive
    """Learning rate of the backbone."""
    momentum: Share = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """For every trained parameter."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """The learning rates grow over these steps, from a thousandth."""
    drops: tuple[Positive, ...] = ()
    """When the learning rates fall to a tenth, in the unit of the length."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient; null for any."""


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class TrainerConfig:
    """Length and rhythm of the training."""

    steps: Count | None = None
    """Length in steps; or give epochs."""
    epochs: Positive | None = None
    """Length in epochs; or give steps."""
    batch_size: Count
    """Images of a step."""
    micro_batch: Count | None = None
    """The step's images pass the network in parts of this size, to save memory; null for all at once."""
    log_every: Count = 20
    """Steps between two lines of metrics.csv."""
    evaluate_every: Count | None = None
    """Steps between two measurements of AP; null measures at the end alone."""
    save_every: Count = 1000
    """Steps between two checkpoints."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read images; 0 reads in the training's own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"steps is {show(self.steps)} and epochs is {show(self.epochs)}: give one of them.")


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the training of a detector."""

    description: str = ""
    """One line for people."""
    detector: Annotated[FasterRCNNConfig | DetrConfig, Field(discriminator="kind")]
    """The detector, chosen by `kind`."""
    backbone: BackboneConfig
    """The network below it."""
    data: DataConfig
    """Images and boxes."""
    optimizer: OptimizerConfig
    """How the weights move."""
    trainer: TrainerConfig
    """How long."""
    seed: int = 0
    """Decides new weights, the order of images, and what is drawn in a step."""


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        path: a YAML file, or the name of another one next to it as `extends:`.
        overrides: `key.path=value` each, with the value as in YAML; a new `detector.kind` drops the old one's values.

    Raises:
        RecipeError: one sentence with place, key, value and what would be right.
    """
    text, name = recipe_text(str(path))
    root = read_recipe(text, name, _keeps, overrides or ())
    try:
        return TypeAdapter(Recipe).validate_json(json.dumps(root.plain()), strict=True)
    except ValidationError as error:
        raise RecipeError(_sentence(root, error.errors()[0])) from error


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe with all of its values, as YAML."""
    plain = json.loads(TypeAdapter(Recipe).dump_json(recipe))
    return write_yaml(plain)


def _keeps(_root: Node, path: tuple[str, ...], _kind: str, key: str) -> bool:
    """Whether a value stays when its section's kind changes."""
    return path != ("detector",) or key == "kind"


def _sentence(root: Node, error: Any) -> str:
    """What pydantic found first, with its place in the file."""
    node = root
    path: list[str] = []
    for step in error["loc"]:
        inside = node.value
        if isinstance(inside, dict) and step in inside:
            node, path = inside[step], [*path, str(step)]
        elif step not in ("faster_rcnn", "detr"):  # pydantic also names the kind
            path.append(str(step))
    place, dotted = node.place, ".".join(path)
    if error["type"] in ("missing", "union_tag_not_found"):
        return f"{place}: {dotted}{'.kind' if 'union' in error['type'] else ''} is missing: give it a value."
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{place}: {dotted} is not a known key: {_advice(path)}"
    if error["type"] == "union_tag_invalid":
        return f"{place}: {dotted}.kind is {error['ctx']['tag']!r}: choose one of {error['ctx']['expected_tags']}."
    if error["type"] == "value_error":
        return f"{place}: {dotted}: {error['ctx']['error']}"
    message = error["msg"].replace("Input should", "it should").replace("an object", "a section")
    return f"{place}: {dotted} is {show(node.plain())}: {message}."


def _advice(path: list[str]) -> str:
    configs = (Recipe, FasterRCNNConfig, DetrConfig, BackboneConfig, DataConfig, OptimizerConfig, TrainerConfig)
    known = [field.name for config in configs for field in dataclasses.fields(config)]
    if path[-1] in known:
        return "it belongs to another section or kind, move it there."
    near = difflib.get_close_matches(path[-1], known, n=1)
    return f"did you mean {near[0]!r}?" if near else "remove it."
