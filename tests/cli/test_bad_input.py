"""Every mistake that people make: one sentence on stderr with the field or file and the fix, exit code 2, nothing lost.

A case is a command line, words that its sentence must hold, and what is done to the folder first. The folder holds
tiny.yaml, colours.npz (60 images to train with, 30 to test with) and, where a case asks for it, a finished `run`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tapetum.cli.main import main

RECIPE = """\
description: PAWS on three colours
method: {kind: paws, supervised_weight: 0.5, head: {hidden: 16, output: 8, layers: 2}}
backbone: {kind: small_net, stem: 8, widths: [8, 8]}
data: {images: colours.npz, labels_per_class: 3, held_out_per_class: 4, batch_size: 8}
views:
  large: {size: 8, count: 2, scale: [0.5, 1.0], brightness: 0.3}
  small: {size: 6, count: 1, scale: [0.2, 0.5]}
  mean: [0.4, 0.4, 0.4]
  std: [0.3, 0.3, 0.3]
  evaluation: {crop: 8}
support: {images_per_class: 2}
optimizer: {kind: sgd, weight_decay: 1e-4, lr: {start: 0.05, peak: 0.1, final: 0.0, warmup_epochs: 1}}
runtime: {accelerator: cpu, precision: float32, channels_last: false, threads: 1}
trainer: {steps: 4, log_every: 2, checkpoint_every: 2}
"""
TRAIN = "train tiny.yaml --output out"
PHOTOS = f"{TRAIN} data.images=photos data.labels_per_class=2 data.held_out_per_class=null data.batch_size=4"
FLAT = f"{PHOTOS.replace('=photos', '=photos/red')} data.labels=labels.csv data.labels_per_class=1"
CHECKPOINTS = ("step-00000002.safetensors", "step-00000004.safetensors")

Prepare = Callable[[], object]


@dataclass(frozen=True)
class Case:
    name: str
    line: str
    words: tuple[str, ...]
    prepare: Prepare | None = None
    needs_run: bool = False
    writes: bool = False
    """Whether the command gets so far that new files are rightly written."""


def colours(count: int, channels: int = 3, first_class: int = 0) -> dict[str, np.ndarray]:
    labels = np.arange(count) % 3
    images = np.full((count, channels, 10, 10), 60)
    images += 7 * np.arange(count)[:, None, None, None] % 50
    images[np.arange(count), labels % channels] += 130
    return {"x": images.astype(np.uint8), "y": labels + first_class}


def save_colours() -> None:
    train, test = colours(60), colours(30)
    np.savez("colours.npz", x_train=train["x"], y_train=train["y"], x_test=test["x"], y_test=test["y"])


def text(path: str, content: str) -> Prepare:
    def write() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)

    return write


def replaced(old: str, new: str, path: str = "tiny.yaml") -> Prepare:
    def write() -> None:
        content = Path(path).read_text()
        assert old in content
        Path(path).write_text(content.replace(old, new, 1))

    return write


other_head = replaced("output: 8", "output: 9", "run/recipe.yaml")


def without_line(start: str) -> Prepare:
    def write() -> None:
        lines = Path("tiny.yaml").read_text().splitlines(keepends=True)
        Path("tiny.yaml").write_text("".join(line for line in lines if not line.startswith(start)))

    return write


def arrays(path: str, **content: np.ndarray) -> Prepare:
    return lambda: np.savez(path, **content)


def photos(classes: tuple[str, ...] = ("red", "green", "blue"), sizes: tuple[int, ...] = (12,)) -> None:
    for label, name in enumerate(classes):
        for number in range(4):
            side = sizes[number % len(sizes)]
            pixels = np.full((side, side, 3), 40 * number, np.uint8)
            pixels[..., label % 3] = 200
            Path("photos", name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(f"photos/{name}/{number}.jpg")


def photos_and(*others: Prepare, **keywords: tuple) -> Prepare:
    def make() -> None:
        photos(**keywords)
        for other in others:
            other()

    return make


def truncated(path: str, left: int = 400) -> Prepare:
    return lambda: os.truncate(path, left)


def every_checkpoint(change: Callable[[Path], object]) -> Prepare:
    return lambda: [change(Path("run/checkpoints", name)) for name in CHECKPOINTS]


def checkpoint_of_format_99(path: Path) -> None:
    scalars = json.dumps({"format": 99, "strides": {}})
    save_file({"weight": torch.zeros(2)}, path, metadata={"tapetum": scalars})


def other_pixels() -> None:
    content = dict(np.load("colours.npz"))
    content["x_train"][0] += 1
    np.savez("colours.npz", **content)


def other_labels() -> None:
    content = dict(np.load("colours.npz"))
    content["y_train"] = (content["y_train"] + 1) % 3
    np.savez("colours.npz", **content)


def unwritable() -> None:
    Path("locked").mkdir(mode=0o500)


COMMAND_LINE = [
    Case("unknown verb", "trian tiny.yaml", ("'trian'", "'train'")),
    Case("unknown option", f"{TRAIN} --step 5", ("--step",)),
    Case("no output", "train tiny.yaml", ("--output",)),
    Case("number for an option", "fit --images a --labels b --output c --steps many", ("--steps", "integer")),
    Case("override without a value", f"{TRAIN} trainer.steps", ("'trainer.steps'", "key=value")),
    Case("override into a value", f"{TRAIN} trainer.steps.first=1", ("trainer.steps", "single value")),
    Case("unknown plugin", f"{TRAIN} --plugin my_methd", ("'my_methd'", "importable module")),
    Case("fields of nothing", "recipes --fields pasw", ("'pasw'", "did you mean 'paws'")),
]
RECIPES = [
    Case("misspelt key", f"{TRAIN} trainer.step=5", ("trainer.step", "value 5", "did you mean 'steps'")),
    Case("misspelt section", f"{TRAIN} veiws.mean=[0.5]", ("veiws", "did you mean 'views'")),
    Case("key of another section", f"{TRAIN} batch_size=8", ("batch_size", "did you mean data.batch_size")),
    Case("misspelt key in the file", TRAIN, ("tiny.yaml, line 6", "scael", "'scale'"), replaced("scale", "scael")),
    Case("word for a number", f"{TRAIN} trainer.steps=many", ("trainer.steps is 'many'", "a whole number")),
    Case("fraction for a number", f"{TRAIN} data.batch_size=8.5", ("data.batch_size is 8.5", "a whole number")),
    Case("text for a number", f"{TRAIN} seed='\"7\"'", ("seed is '7'", "a whole number")),
    Case("word for a switch", f"{TRAIN} runtime.compile=maybe", ("runtime.compile is 'maybe'", "true or false")),
    Case("one number for two", f"{TRAIN} views.large.scale=[0.5]", ("views.large.scale is [0.5]", "2 numbers")),
    Case("value for a section", f"{TRAIN} views=big", ("views is 'big'", "a section")),
    Case("unknown method", f"{TRAIN} method.kind=pasw", ("method.kind", "'pasw'", "did you mean 'paws'")),
    Case("unknown backbone", f"{TRAIN} backbone.kind=small_nte", ("backbone.kind", "did you mean 'small_net'")),
    Case("unknown optimizer", f"{TRAIN} optimizer.kind=adam", ("optimizer.kind is 'adam'", "adamw", "lars")),
    Case("unknown choice", f"{TRAIN} trainer.on_nan=ignore", ("trainer.on_nan is 'ignore'", "'stop' or 'rollback'")),
    Case("unknown recipe", "train paws_cifar10_400 --output out", ("did you mean 'paws_cifar10_4000'",)),
    Case("no such file", "train mine.yaml --output out", ("'mine.yaml' does not exist", "tapetum recipes")),
    Case(
        "recipe is a folder",
        "train mine.yaml --output out",
        ("mine.yaml", "is a folder", "give a YAML file"),
        text("mine.yaml/a", ""),
    ),
    Case("recipe is a picture", TRAIN, ("tiny.yaml", "UTF-8"), lambda: Path("tiny.yaml").write_bytes(b"\xff\xd8\xff")),
    Case("broken YAML", TRAIN, ("tiny.yaml, line 14", "not valid YAML"), replaced("steps: 4", "steps: 4]")),
    Case("key given twice", TRAIN, ("tiny.yaml, line 11", "'views'", "line 5"), replaced("support:", "views:")),
    Case("no mapping", TRAIN, ("tiny.yaml, line 1", "mapping"), text("tiny.yaml", "- paws\n")),
    Case("empty recipe", TRAIN, ("tiny.yaml, line 1", "mapping"), text("tiny.yaml", "")),
    Case("tag", TRAIN, ("tiny.yaml, line 1", "tag"), replaced("PAWS on", "!!python/name:os.system ")),
    Case("missing section", TRAIN, ("tiny.yaml, line 1", "optimizer is missing"), without_line("optimizer:")),
    Case("negative batch", f"{TRAIN} data.batch_size=-1", ("data.batch_size is -1", "1 or more")),
    Case("negative steps", f"{TRAIN} trainer.steps=-4", ("trainer.steps is -4", "more than 0")),
    Case("negative rate", f"{TRAIN} optimizer.lr.peak=-1", ("optimizer.lr.peak is -1", "0")),
    Case("negative decay", f"{TRAIN} optimizer.weight_decay=-1", ("optimizer.weight_decay is -1", "0")),
    Case("negative workers", f"{TRAIN} data.workers=-1", ("data.workers is -1", "0 or more")),
    Case("no width", f"{TRAIN} backbone.widths=[]", ("backbone.widths is ()", "channel")),
    Case("no threads", f"{TRAIN} runtime.threads=0", ("runtime.threads is 0", "null")),
    Case("two lengths", TRAIN, ("epochs and steps", "exactly one"), replaced("steps: 4", "steps: 4, epochs: 2")),
    Case("no length", f"{TRAIN} trainer.steps=null", ("exactly one of epochs, steps and minutes",)),
    Case("no supports", f"{TRAIN} support=null", ("support is null", "paws", "images_per_class")),
    Case("one class a batch", f"{TRAIN} support.classes_per_batch=1", ("classes_per_batch is 1", "at least 2")),
    Case("one large view", f"{TRAIN} views.large.count=1", ("views.large.count is 1", "set it to 2")),
]
CROPS = [
    Case("crop beyond the image", f"{TRAIN} views.evaluation.crop=12", ("views.evaluation.crop is 12", "10 pixels")),
    Case("crop beyond the resize", f"{TRAIN} views.evaluation.resize=4", ("views.evaluation.resize is 4", "8 pixels")),
    Case("scale beyond the image", f"{TRAIN} views.large.scale=[0.5,1.5]", ("views.large.scale is (0.5, 1.5)", "<= 1")),
    Case("scale upside down", f"{TRAIN} views.small.scale=[0.5,0.2]", ("views.small.scale is (0.5, 0.2)", "least")),
    Case("no size", f"{TRAIN} views.large.size=0", ("views.large.size is 0", "1 or more")),
    Case("too small for the network", f"{TRAIN} views.small.size=1", ("views.small.size is 1", "backbone")),
    Case("probability", f"{TRAIN} views.large.flip=1.5", ("views.large.flip is 1.5", "0 to 1")),
    Case("hue", f"{TRAIN} views.large.hue=0.7", ("views.large.hue is 0.7", "0 to 0.5")),
    Case("deviation", f"{TRAIN} views.std=[0.3,0.3,0]", ("views.std is (0.3, 0.3, 0.0)", "above 0")),
    Case("deviations", f"{TRAIN} views.std=[0.3]", ("views.std is (0.3,)", "one number per channel")),
    Case("grey settings", f"{TRAIN} views.mean=[0.4] views.std=[0.3]", ("views.mean has 1", "3 channels")),
]
IMAGES = [
    Case("no images", f"{TRAIN} data.images=null", ("data.images is not set", "data.images=photos")),
    Case("missing folder", f"{TRAIN} data.images=photo", ("nothing at photo", "check the path")),
    Case("empty folder", f"{TRAIN} data.images=empty", ("no images in empty", ".jpg"), lambda: Path("empty").mkdir()),
    Case("images are a script", f"{TRAIN} data.images=a.py", ("a.py is a file", "folder"), text("a.py", "a")),
    Case(
        "list of missing images",
        f"{TRAIN} data.images=a.txt",
        ("a.txt, line 2", "there is no image", "photos/red/9.jpg", "correct the path"),
        photos_and(text("a.txt", "photos/red/1.jpg\nphotos/red/9.jpg\n")),
    ),
    Case(
        "list with a double",
        f"{TRAIN} data.images=a.txt",
        ("a.txt, line 3", "'./photos/red/1.jpg'", "a.txt, line 1", "delete"),
        photos_and(text("a.txt", "photos/red/1.jpg\nphotos/red/2.jpg\n./photos/red/1.jpg\n")),
    ),
    Case("empty list", f"{TRAIN} data.images=a.txt", ("a.txt is empty", "a line"), text("a.txt", "\n\n")),
    Case(
        "list that is no text",
        f"{TRAIN} data.images=a.txt",
        ("a.txt", "UTF-8"),
        lambda: Path("a.txt").write_bytes(b"\xff\xd8\xff"),
    ),
    Case(
        "table of images with three fields",
        f"{TRAIN} data.images=a.csv",
        ("a.csv, line 1", "path,label"),
        photos_and(text("a.csv", "photos/red/1.jpg,red,train\n")),
    ),
    Case(
        "table of images of one class",
        f"{TRAIN} data.images=a.csv",
        ("a.csv", "only the class 'red'"),
        photos_and(text("a.csv", "photos/red/1.jpg,red\nphotos/red/2.jpg,\n")),
    ),
    Case("damaged .mat", f"{TRAIN} data.images=a.mat", ("a.mat", "train_32x32.mat"), text("a.mat", "MATLAB 5.0")),
    Case(
        "truncated JPEG",
        f"{PHOTOS} data.strict=true",
        ("1 of 12 images", "photos/green/2.jpg", "move them out"),
        photos_and(truncated("photos/green/2.jpg")),
    ),
    Case(
        "truncated JPEG of many sizes",
        f"{PHOTOS} data.strict=true",
        ("1 of 12 images", "photos/green/2.jpg", "move them out"),
        photos_and(truncated("photos/green/2.jpg"), sizes=(12, 13, 15)),
    ),
    Case(
        "no JPEG",
        f"{PHOTOS} data.strict=true",
        ("photos/red/9.jpg", "cannot identify"),
        photos_and(text("photos/red/9.jpg", "<html>")),
    ),
    Case(
        "a class of damaged JPEGs",
        PHOTOS,
        ("none of the 4 labelled images of class 'red'", "label others"),
        photos_and(*(truncated(f"photos/red/{i}.jpg", 0) for i in range(4))),
    ),
    Case(
        "nothing but damaged JPEGs",
        PHOTOS,
        ("12 of 12 images cannot be read", "give images"),
        photos_and(*(truncated(f"photos/{name}/{i}.jpg", 9) for name in ("red", "green", "blue") for i in range(4))),
    ),
    Case("one class folder", PHOTOS, ("photos", "only the class 'red'"), photos_and(classes=("red",))),
    Case("no class folders", PHOTOS.replace("=photos", "=photos/red"), ("no labels", "data.labels"), photos),
    Case("damaged array", f"{TRAIN} data.images=a.npz", ("a.npz cannot be read", "numpy.savez"), text("a.npz", "PK")),
    Case(
        "array of fractions",
        f"{TRAIN} data.images=a.npz",
        ("float64", "uint8"),
        arrays("a.npz", x=np.zeros((9, 3, 10, 10)), y=np.arange(9)),
    ),
    Case(
        "array without names",
        f"{TRAIN} data.images=a.npz",
        ("a.npz holds first, second", "images and labels"),
        arrays("a.npz", first=np.zeros(3), second=np.zeros(3)),
    ),
    Case(
        "labels of other images",
        f"{TRAIN} data.images=a.npz",
        ("labels", "each of the 9 images"),
        arrays("a.npz", x=colours(9)["x"], y=np.arange(8)),
    ),
]
LABELS = [
    Case("missing labels file", FLAT, ("no labels file labels.csv",), photos),
    Case(
        "label of a missing image",
        FLAT,
        ("labels.csv, line 2", "'7.jpg'", "correct the path"),
        photos_and(text("labels.csv", "0.jpg,a\n7.jpg,b\n")),
    ),
    Case(
        "unknown column",
        FLAT,
        ("labels.csv, line 1", "unknown column 'width'", "path,label"),
        photos_and(text("labels.csv", "path,width\n0.jpg,a\n1.jpg,b\n")),
    ),
    Case(
        "two labels for one image",
        FLAT,
        ("labels.csv, line 3", "'0.jpg' is labelled 'b'", "'a' at line 1"),
        photos_and(text("labels.csv", "0.jpg,a\n1.jpg,b\n0.jpg,b\n")),
    ),
    Case(
        "damaged JSON",
        FLAT.replace(".csv", ".json"),
        ("labels.json is not JSON", "line 1", "save it as CSV"),
        photos_and(text("labels.json", '{"0.jpg": "a"')),
    ),
    Case("empty JSON", FLAT.replace(".csv", ".json"), ("holds no labels",), photos_and(text("labels.json", "{}"))),
    Case(
        "two labels in JSON",
        FLAT.replace(".csv", ".json"),
        ("labels.json, entry 3", "'0.jpg' is labelled 'b'", "'a' at entry 1"),
        photos_and(text("labels.json", '{"0.jpg": "a", "1.jpg": "b", "0.jpg": "b"}')),
    ),
    Case(
        "unknown key in JSON",
        FLAT.replace(".csv", ".json"),
        ("labels.json, entry 1", "unknown key 'class'", "path and label"),
        photos_and(text("labels.json", '[{"path": "0.jpg", "class": "a"}]')),
    ),
    Case(
        "list of labelled images of a flat folder",
        FLAT.replace(".csv", ".txt"),
        ("labels.txt", "one folder per class", "path,label"),
        photos_and(text("labels.txt", "0.jpg\n1.jpg\n")),
    ),
    Case(
        "list of labelled images with a missing one",
        f"{PHOTOS} data.labels=labels.txt",
        ("labels.txt, line 2", "'red/7.jpg'", "correct the path"),
        photos_and(text("labels.txt", "red/1.jpg\nred/7.jpg\n")),
    ),
    Case(
        "list of labelled images of one class",
        f"{PHOTOS} data.labels=labels.txt",
        ("labels.txt", "class 'red' only", "two classes"),
        photos_and(text("labels.txt", "red/1.jpg\nred/2.jpg\n")),
    ),
    Case(
        "number and share of labels",
        f"{TRAIN} data.labels_percent=10",
        ("data.labels_percent is 10 and labels_per_class is 3", "null"),
    ),
    Case(
        "share beyond all labels",
        f"{TRAIN} data.labels_per_class=null data.labels_percent=101",
        ("labels_percent is 101", "at most 100"),
    ),
    Case("one class", FLAT, ("labels.csv", "only the class 'a'"), photos_and(text("labels.csv", "0.jpg,a\n1.jpg,a\n"))),
    Case("no comma", FLAT, ("labels.csv, line 1", "'0.jpg'"), photos_and(text("labels.csv", "0.jpg\n1.jpg,a\n"))),
    Case("empty labels", FLAT, ("labels.csv is empty", "path,label"), photos_and(text("labels.csv", ""))),
    Case(
        "too few labels",
        f"{TRAIN} data.labels_per_class=20",
        ("data.labels_per_class", "16 labelled images", "20", "at most 16"),
    ),
    Case(
        "all held out",
        f"{TRAIN} data.held_out_per_class=20",
        ("data.held_out_per_class: ", "20", "fewer"),
    ),
    Case(
        "a share beside a number",
        f"{TRAIN} data.held_out_share=0.2",
        ("held_out_share is 0.2 and held_out_per_class is", "set one of them to null"),
    ),
    Case(
        "no label to spare",
        f"{TRAIN} data.held_out_per_class=null data.held_out_share=0.2 data.labels_per_class=2",
        ("data.held_out_share: no class has three", "label more"),
    ),
    Case("batch beyond the pool", f"{TRAIN} data.batch_size=49", ("batch_size is 49", "48 images", "at most 48")),
    Case("too many classes", f"{TRAIN} support.classes_per_batch=4", ("classes_per_batch is 4", "only 3 classes")),
]
TESTS = [
    Case("missing test images", f"{TRAIN} data.test=nowhere", ("nothing at nowhere", "check the path")),
    Case(
        "grey test images",
        f"{TRAIN} data.test=t.npz",
        ("1 channels", "views.mean has 3", "same number of channels"),
        arrays("t.npz", **colours(9, channels=1)),
    ),
    Case(
        "test images of other classes",
        f"{TRAIN} data.test=t.npz",
        ("class '5'", "0, 1, 2", "rename"),
        arrays("t.npz", **colours(9, first_class=5)),
    ),
    Case(
        "truncated test image",
        f"{TRAIN} data.test=photos data.strict=true",
        ("photos/2/3.jpg", "cannot be read"),
        photos_and(truncated("photos/2/3.jpg"), classes=("0", "1", "2")),
    ),
    Case(
        "truncated test image of many sizes",
        f"{TRAIN} data.test=photos data.strict=true",
        ("photos/2/3.jpg", "cannot be read"),
        photos_and(truncated("photos/2/3.jpg"), classes=("0", "1", "2"), sizes=(12, 13, 15)),
    ),
]
FOLDERS = [
    Case("folder with a run", "train tiny.yaml --output run", ("run is not empty", "tapetum resume run"), None, True),
    Case("folder with files", TRAIN, ("out is not empty", "another --output"), text("out/thesis.txt", "years")),
    Case("output is a file", TRAIN, ("out is a file", "--output"), text("out", "years")),
    Case("output below a file", "train tiny.yaml --output a/out", ("a/out", "--output"), text("a", "years")),
    Case("unwritable folder", "train tiny.yaml --output locked", ("locked", "permissions"), unwritable),
    Case("unwritable parent", "train tiny.yaml --output locked/out", ("locked/out", "--output"), unwritable),
]
RESUME = [
    Case("no run", "resume nowhere", ("nowhere is no run folder", "--output")),
    Case("no recipe in it", "resume out", ("out is no run folder", "recipe.yaml"), text("out/metrics.csv", "step\n")),
    Case(
        "damaged recipe",
        "resume run",
        ("run/recipe.yaml", "method"),
        replaced("kind: paws", "kind: pasw", "run/recipe.yaml"),
        True,
    ),
    Case(
        "checkpoints cut short",
        "resume run",
        ("run/checkpoints", "cut short", "start the run again"),
        every_checkpoint(lambda path: os.truncate(path, 200)),
        True,
    ),
    Case(
        "empty checkpoints",
        "resume run",
        ("run/checkpoints", "cut short"),
        every_checkpoint(lambda path: path.write_bytes(b"")),
        True,
    ),
    Case(
        "foreign checkpoints",
        "resume run",
        ("run/checkpoints/step-00000002.safetensors", "not written by Tapetum"),
        every_checkpoint(lambda path: save_file({"weight": torch.zeros(2)}, path)),
        True,
    ),
    Case(
        "checkpoints of something else",
        "resume run",
        ("run/checkpoints/step-00000002.safetensors", "not written by Tapetum"),
        every_checkpoint(lambda path: save_file({"a": torch.zeros(2)}, path, metadata={"tapetum": '{"step": 4}'})),
        True,
    ),
    Case(
        "newer checkpoints",
        "resume run",
        ("format 99", "update Tapetum"),
        every_checkpoint(checkpoint_of_format_99),
        True,
    ),
    Case(
        "checkpoints of another model",
        "resume run --inexact",
        ("does not fit this PAWS", "its own recipe"),
        other_head,
        True,
    ),
    Case("changed recipe", "resume run", ("(method.head.output: was 8, is 9)", "--inexact"), other_head, True),
    Case("other images", "resume run", ("(data: was 60 images (", "--inexact"), other_pixels, True),
    Case(
        "other labels",
        "resume run",
        ("(pool: was 48 images", "labels: was 9 images", "held_out: was 12 images", "--inexact"),
        other_labels,
        True,
    ),
    Case(
        "other labels, accepted",
        "resume run --inexact",
        ("since run began, labels have changed", "held out now", "tapetum fit --init run"),
        other_labels,
        True,
    ),
    Case(
        "other seed", "resume run", ("seed: was 0, is 1",), replaced("\nseed: 0", "\nseed: 1", "run/recipe.yaml"), True
    ),
    Case("damaged summary", "resume run", ("run/summary.json", "delete it"), text("run/summary.json", "{"), True),
]
EVALUATE = [
    Case(
        "tested on what was trained on",
        f"{PHOTOS} data.test=photos",
        ("images trained on", "held_out_per_class"),
        photos,
    ),
    Case("evaluate no run", "evaluate nowhere --test colours.npz", ("nowhere is no run folder",)),
    Case(
        "evaluate before a checkpoint",
        "evaluate run --test colours.npz",
        ("run has no checkpoint yet", "tapetum resume run"),
        lambda: shutil.rmtree("run/checkpoints"),
        True,
    ),
    Case("evaluate on nothing", "evaluate run --test nowhere", ("nothing at nowhere",), None, True),
    Case(
        "evaluate on another class",
        "evaluate run --test t.npz",
        ("class '5'", "0, 1, 2", "rename"),
        arrays("t.npz", **colours(9, first_class=5)),
        True,
    ),
    Case(
        "evaluate on grey images",
        "evaluate run --test t.npz",
        ("1 channels", "views.mean has 3", "same number of channels"),
        arrays("t.npz", **colours(9, channels=1)),
        True,
    ),
    Case(
        "evaluate without labels", "evaluate run --test photos/red", ("no labels", "one folder per class"), photos, True
    ),
    Case(
        "evaluate another model",
        "evaluate run --test colours.npz",
        ("another model", "recipe.yaml"),
        replaced("output: 8", "output: 9", "run/recipe.yaml"),
        True,
    ),
    Case(
        "evaluate foreign checkpoints",
        "evaluate run --test colours.npz",
        ("not written by Tapetum",),
        every_checkpoint(lambda path: save_file({"weight": torch.zeros(2)}, path)),
        True,
    ),
]
PREDICT = [
    Case("predict with no run", "predict nowhere colours.npz --output p.csv", ("nowhere is no run folder",)),
    Case("predict nothing", "predict run nowhere --output p.csv", ("nothing at nowhere",), None, True),
    Case("predict what is no image", "predict run tiny.yaml --output p.csv", ("tiny.yaml is a file",), None, True),
    Case("predict into a folder", "predict run colours.npz --output run", ("run is a folder",), None, True),
    Case(
        "predict below a file", "predict run colours.npz --output tiny.yaml/p.csv", ("cannot be written",), None, True
    ),
    Case(
        "predict beside another's beginning",
        "predict run colours.npz --output p.csv",
        ("p.csv.partial was begun for other images", "delete it"),
        lambda: (
            Path("p.csv.partial").write_text("a\n"),
            Path("p.csv.partial.json").write_text('{"key": "", "bytes": 2, "counts": {"a": 1}}'),
        ),
        True,
    ),
    Case("suggest from nothing", "suggest nowhere --count 3 --output t.csv", ("nothing at nowhere",)),
    Case("suggest none", "suggest colours.npz --count 0 --output t.csv", ("count is 0", "1 image or more")),
    Case(
        "suggest by a guess",
        "suggest colours.npz --count 3 --output t.csv --labels none --by luck",
        ("'luck'", "random"),
    ),
    Case("suggest into a folder", "suggest run --count 3 --output run", ("run does not end in .csv",), None, True),
    Case(
        "suggest what is labelled",
        "suggest colours.npz --count 3 --output t.csv",
        ("every image of colours.npz is labelled", "--labels none"),
    ),
    Case(
        "suggest by doubt without labels",
        "suggest colours.npz --count 3 --output t.csv --labels none --by margin",
        ("by is margin", "labels of two classes"),
    ),
    Case(
        "suggest by a run and by weights",
        "suggest run --count 3 --output t.csv --frozen w",
        ("is a run", "frozen is w"),
        None,
        True,
    ),
    Case("fewer than no neighbours", "predict run colours.npz --output p.csv --neighbours -1", ("-1",), None, True),
    Case(
        "predict without the labelled images",
        "predict run photos --output p.csv",
        ("not at colours.npz", "--images DIR"),
        lambda: (photos(), os.remove("colours.npz")),
        True,
    ),
    Case("embed as text", "embed run colours.npz --output e.txt", ("e.txt", "e.npz"), None, True),
    Case("embed nothing", "embed run nowhere --output e.npz", ("nothing at nowhere",), None, True),
    Case("embed below a file", "embed run colours.npz --output tiny.yaml/e.npz", ("cannot be written",), None, True),
]
REPORT = [
    Case("report on no run", "report nowhere", ("nowhere is no run folder",)),
    Case(
        "report before a checkpoint",
        "report run",
        ("no checkpoint yet",),
        lambda: shutil.rmtree("run/checkpoints"),
        True,
    ),
    Case("report into a folder", "report run --output run", ("run is a folder",), None, True),
    Case("report below a file", "report run --output tiny.yaml/r.html", ("cannot be written",), None, True),
    Case("plot into a file", "plot run --output tiny.yaml", ("cannot be written",), None, True),
    Case(
        "damaged summary of a report", "report run", ("summary.json", "delete it"), text("run/summary.json", "{"), True
    ),
]
VIEWS = [
    Case("views without images", "views paws_cifar10_4000 --output a.png", ("names no images", "--images DIR")),
    Case("views of nothing", "views tiny.yaml --output a.png --images nowhere", ("nothing at nowhere",)),
    Case("views as a folder", "views tiny.yaml --output out", ("out is a folder", "out/sheet.png"), text("out/a", "")),
    Case("views as no picture", "views tiny.yaml --output a.pgn", ("a.pgn", "a.png")),
    Case("views below a file", "views tiny.yaml --output a/b.png", ("a", "--output"), text("a", "years")),
    Case(
        "views of a damaged image",
        "views tiny.yaml --output a.png --images photos",
        ("photos/red/", "cannot be read"),
        photos_and(*(truncated(f"photos/red/{i}.jpg") for i in range(4))),
    ),
]
FIT = [
    Case("fit to nothing", "fit --images nowhere --labels l --output out --steps 1", ("nowhere",)),
    Case("fit to flat images", "fit --images photos/red --output out", ("photos/red", "no image", "CSV"), photos),
    Case(
        "fit with two kinds of few labels",
        "fit --images photos --output out --labels-per-class 2 --labels-percent 10",
        ("labels per class (2)", "labels percent (10)", "give one"),
        photos,
    ),
    Case(
        "fit to no labels at all",
        "fit --images photos --output out --labels-percent 0",
        ("labels percent is 0", "more than 0"),
        photos,
    ),
    Case(
        "fit strictly to a damaged image",
        "fit --images photos --output out --strict",
        ("1 of 12 images", "photos/red/2.jpg", "strict"),
        photos_and(truncated("photos/red/2.jpg", 9)),
    ),
    Case(
        "fit in one fold", "fit --images photos --output out --steps 2 --folds 1", ("folds is 1", "2 or more"), photos
    ),
    Case(
        "fit in many folds", "fit --images photos --output out --steps 2 --folds 13", ("just 12", "at most 12"), photos
    ),
    Case(
        "folds beside held-out labels",
        f"{TRAIN} data.folds=3",
        ("data.folds is 3", "held_out_per_class to null"),
    ),
    Case("a fold of none", f"{TRAIN} data.fold=0", ("fold is 0", "null")),
    Case("the best of too few", f"{TRAIN} trainer.keep_best=true", ("keep_best", "set the three")),
    Case(
        "the best by too few labels",
        f"{TRAIN} trainer.keep_best=true trainer.evaluate_every=2 trainer.keep_every=2",
        ("12 labels are held out", "100", "false"),
    ),
    Case("fit with two lengths", "fit --images a --labels b --output out --steps 1 --epochs 2", ("steps", "epochs")),
]
CHECK = [
    Case("check of nothing", "check nowhere", ("nothing at nowhere", "check the path")),
    Case("check with missing labels", "check photos --labels l.csv", ("no labels file l.csv",), photos),
    Case("check with a missing test", "check photos --test nowhere", ("nothing at nowhere",), photos),
    Case(
        "check into a folder with files",
        "check photos --output out",
        ("out is not empty", "another --output"),
        photos_and(text("out/thesis.txt", "years")),
    ),
    Case("check into a locked folder", "check photos --output locked", ("locked", "permissions"), unwritable),
]


def cut_short() -> None:
    save_file({"stem.weight": torch.zeros(8, 3, 2, 2)}, "w.safetensors")
    Path("w.safetensors").write_bytes(Path("w.safetensors").read_bytes()[:-9])


def foreign_network() -> None:
    save_file({"trunk.weight": torch.zeros(3, 3)}, "w.safetensors")


def with_code() -> None:
    torch.save({"state_dict": Case("a", "b", ())}, "w.pth")


JUDGED = "--images colours.npz --test colours.npz"
WEIGHTS = [
    Case("weights that are not there", f"evaluate w.pth {JUDGED}", ("nothing at w.pth",)),
    Case("weights without images", "evaluate w.pth", ("w.pth", "give images"), text("w.pth", "")),
    Case("weights cut short", f"evaluate w.safetensors {JUDGED}", ("cut short", "get it again"), cut_short),
    Case("weights of no network", f"evaluate w.safetensors {JUDGED}", ("trunk.weight", "recognised"), foreign_network),
    Case("weights with code", f"evaluate w.pth {JUDGED}", ("w.pth", "more than tensors", "not opened"), with_code),
    Case("timm without such a network", f"evaluate timm:resnet26e {JUDGED}", ("resnet26e", "nearest names")),
    Case("an unknown protocol", "evaluate run --protocol knm", ("'knm'", "soft_nn, knn"), None, True),
    Case("features that are missing", "evaluate run --features predictor", ("predictor", "leave it out"), None, True),
    Case("training by a protocol that does not", "evaluate run seed=1", ("soft_nn trains nothing",), None, True),
    Case("one draw", "evaluate run --draws 1", ("draws is 1", "2 or more"), None, True),
    Case("draws without test images", "evaluate run --draws 2", ("draws", "--test DIR"), None, True),
    Case("more labels than there are", "evaluate run --labels-per-class 99 --test colours.npz", ("99",), None, True),
    Case("fine-tuning no run", "finetune nowhere --output out", ("nowhere is no run folder",)),
    Case(
        "fine-tuning to another size", "finetune run --output out views.evaluation.crop=1", ("crop is 1",), None, True
    ),
    Case(
        "fine-tuning another network",
        "finetune run --output out backbone.stem=9",
        ("run", "stem.weight", "choose the backbone"),
        None,
        True,
    ),
    Case("export in no format", "export run --format onyx --output out", ("'onyx'", "did you mean onnx"), None, True),
    Case("export of no run", "export nowhere --format timm --output out", ("nowhere is no run folder",)),
    Case(
        "export that loses supports",
        "export run --format huggingface --output out",
        ("small_net", "--format"),
        None,
        True,
    ),
    Case("export to what is there", "export run --format timm --output colours.npz", ("colours.npz",), None, True),
    Case("a class of nothing", "add-class run nowhere", ("nowhere is no folder", "give the folder"), None, True),
]
OTHERS = [
    Case("diverging", f"{TRAIN} optimizer.lr.peak=1e30", ("not finite", "learning rate"), writes=True),
    Case("no such device", f"{TRAIN} runtime.accelerator=mps", ("mps", "auto or cpu")),
]
CASES = [
    *(
        *COMMAND_LINE,
        *RECIPES,
        *CROPS,
        *IMAGES,
        *LABELS,
        *TESTS,
        *FOLDERS,
        *RESUME,
        *EVALUATE,
        *PREDICT,
        *REPORT,
        *VIEWS,
        *FIT,
        *CHECK,
        *WEIGHTS,
        *OTHERS,
    )
]


def files(folder: Path) -> dict[str, bytes]:
    """The content of every file; b"" for a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def call(line: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(line))
    return stop.value.code


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipe, images and a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("tiny.yaml").write_text(RECIPE)
        save_colours()
        assert call("train tiny.yaml --output run") == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def folder(finished, tmp_path, tmp_path_factory, monkeypatch, one_thread):
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("tiny.yaml", "colours.npz"):
        shutil.copy(finished / name, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TAPETUM_TRACEBACK", raising=False)
    return folder


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_one_sentence(case, finished, folder, capfd):
    if case.prepare is unwritable and os.getuid() == 0:
        pytest.skip("nothing is locked to root")
    if "accelerator=mps" in case.line and torch.backends.mps.is_available():
        pytest.skip("this machine has that device")
    if case.needs_run:
        shutil.copytree(finished / "run", "run")
    if case.prepare is not None:
        case.prepare()
    before = files(folder)
    capfd.readouterr()
    assert call(case.line) == 2
    *notices, error = capfd.readouterr().err.splitlines()
    assert error.startswith("tapetum: error: ")
    assert all(word in error for word in case.words), error
    assert len(error) < 500
    assert not any(line.startswith("tapetum: error") or "Traceback" in line for line in notices)
    after = files(folder)
    if case.writes:
        after = {name: content for name, content in after.items() if name in before}
    assert after == before


def test_a_folder_that_was_refused_is_still_fit_for_use(folder):
    assert call(f"{TRAIN} data.batch_size=49") == 2
    assert call(TRAIN) == 0


def test_names_are_distinct():
    assert len({case.name for case in CASES}) == len(CASES) > 100
