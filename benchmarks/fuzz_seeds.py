"""Valid files of every kind that strangers send, small, made by the programs that usually write them."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from fuzz_weights import Seed, checkpoints, keras, one, paddle, safetensors, tensorflow, torch_files
from PIL import Image, features

from tapetum.data.label_formats.entries import Item
from tapetum.data.label_formats.formats import WRITERS
from tapetum.recipe.files import shipped_recipes
from tapetum.recipe.recipe import dump_recipe, load_recipe

NAMES = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png", "loose.png")
"""Images that label files are about."""


def _image(suffix: str, mode: str, **options: Any) -> Seed:
    pixels = np.arange(12 * 10 * 4, dtype=np.uint8).reshape(12, 10, 4)
    image = Image.fromarray(pixels[..., :3]).convert("RGB")
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    elif mode == "RGBA":
        image = Image.fromarray(pixels)
    elif mode != "RGB":
        image = image.convert(mode)
    content = io.BytesIO()
    image.save(content, **options)
    return one(f"image{suffix}", content.getvalue())


def images() -> list[Seed]:
    """Every format and most modes that Tapetum reads."""
    exif = Image.Exif()
    exif[0x0112] = 6
    more = [Image.new("RGB", (10, 12), (9, 9, 9))]
    found = [_image(".png", mode, format="PNG") for mode in ("RGB", "RGBA", "P", "L", "1", "LA", "I;16")]
    found += [_image(".png", "P", format="PNG", transparency=1), _image(".png", "RGB", format="PNG", exif=exif)]
    found += [_image(".jpg", mode, format="JPEG") for mode in ("RGB", "L", "CMYK")]
    found += [_image(".jpg", "RGB", format="JPEG", exif=exif), _image(".jpg", "RGB", format="JPEG", progressive=True)]
    found += [_image(".jpg", "RGB", format="MPO", save_all=True, append_images=more)]
    found += [_image(".gif", "P", format="GIF"), _image(".gif", "P", format="GIF", save_all=True, append_images=more)]
    found += [_image(".bmp", mode, format="BMP") for mode in ("RGB", "P", "1")]
    ways = (None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits")
    found += [_image(".tif", "RGB", format="TIFF", compression=way) for way in ways]
    found += [_image(".tif", "1", format="TIFF", compression="group4"), _image(".tif", "I;16", format="TIFF")]
    found += [_image(".webp", "RGBA", format="WEBP", lossless=True), _image(".webp", "RGB", format="WEBP")]
    found += [_image(".webp", "RGB", format="WEBP", save_all=True, append_images=more)]
    found += [_image(".ppm", mode, format="PPM") for mode in ("RGB", "L", "1", "I;16")]
    found += [one("image.pgm", b"P2\n3 2\n255\n" + b"1 2 3 4 5 6\n" * 2)]
    found += [_image(".jp2", "RGB", format="JPEG2000")] if features.check("jpg_2000") else []
    found += [_image(".jpg", "RGB", format="AVIF")] if features.check("avif") else []
    return found


def labels() -> list[Seed]:
    """Label files as people write them."""
    rows = [*zip(NAMES, ("cat", "cat", "dog", "dog", "none of these"), strict=True)]
    texts = ["".join(f"{sign.join(row)}{end}" for row in rows) for sign, end in ((",", "\n"), (";", "\r\n"))]
    found = [one("labels.csv", text.encode()) for text in texts]
    found += [one("labels.tsv", ("path\tlabel\n" + "".join("\t".join(row) + "\n" for row in rows)).encode("utf-8-sig"))]
    found += [one("labels.csv", ("path,label\n" + "".join(f'"{name}","{label}"\n' for name, label in rows)).encode())]
    found += [one("labels.txt", "\n".join(NAMES[:4]).encode()), one("labels.txt", b"0\n1\n2\n3\n")]
    return found


def label_formats() -> list[Seed]:
    """Exports of other tools, and JSON that people write."""
    items = [Item(name, label, (4, 5)) for name, label in zip(NAMES, ("cat", "cat", "dog", "dog", None), strict=True)]
    found = []
    for name, writers in WRITERS.items():
        chosen = items[:2] + items[3:] if name == "fiftyone" else items
        found += [one(f"{name}{end}", write(chosen, ["cat", "dog"], "pool").encode()) for end, write in writers.items()]
    pairs = {item.name: item.label for item in items}
    flat = [
        {"id": i, "image": f"/data/upload/1/0a1b2c3d-{i}.png", "choice": item.label} for i, item in enumerate(items)
    ]
    found += [one("plain.json", json.dumps(content).encode()) for content in (pairs, list(pairs.items()), flat)]
    return found


def recipes() -> list[Seed]:
    """Shipped recipes, one with all fields, and two of which one extends the other."""
    whole = dump_recipe(load_recipe("paws_digits")).encode()
    found = [one("recipe.yaml", f"extends: {name}\nseed: 3\n".encode()) for name in shipped_recipes()[:3]]
    extending = Seed({"recipe.yaml": b"extends: base.yaml\ntrainer: {epochs: 2}\n", "base.yaml": whole}, "recipe.yaml")
    return [*found, one("recipe.yaml", whole), extending]


def matlab() -> list[Seed]:
    """SVHN's files, packed and not, and of the oldest version."""
    from scipy.io import savemat

    pixels = np.arange(32 * 32 * 3 * 4, dtype=np.uint8).reshape(32, 32, 3, 4)
    content = {"X": pixels, "y": np.array([[1], [2], [3], [10]])}
    found = []
    for options in ({"do_compression": True}, {}):
        file = io.BytesIO()
        savemat(file, content, **options)
        found.append(one("train_32x32.mat", file.getvalue()))
    file = io.BytesIO()
    savemat(file, {"X": np.ones((3, 3)), "y": np.ones((3, 1))}, format="4")
    return [*found, one("train_32x32.mat", file.getvalue())]


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx() -> list[Seed]:
    """MNIST's files, packed and not."""
    images, values = _idx(np.zeros((6, 4, 4), np.uint8)), _idx(np.arange(6, dtype=np.uint8) % 3)
    names = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    plain = Seed(dict(zip(names, (images, values), strict=True)), "")
    packed = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in plain.files.items()}
    return [plain, Seed(packed, "")]


def cifar() -> list[Seed]:
    """The pickles of CIFAR-10 and CIFAR-100."""
    data, values = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072), [0, 1]
    batch = pickle.dumps({b"data": data, b"labels": values, b"filenames": [b"a.png", b"b.png"]}, 2)
    ten = {f"data_batch_{i}": batch for i in range(1, 6)}
    ten |= {"test_batch": batch, "batches.meta": pickle.dumps({"label_names": ["cat", "dog"]}, 2)}
    part = pickle.dumps({"data": data, "fine_labels": values}, 5)
    hundred = {"train": part, "test": part, "meta": pickle.dumps({"fine_label_names": ["cat", "dog"]}, 4)}
    return [Seed(ten, "", ("data_batch_2", "data_batch_3", "data_batch_4", "test_batch")), Seed(hundred, "", ("test",))]


def numpy_files() -> list[Seed]:
    """Arrays of images, and of images and labels."""
    pixels, values, words = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6) % 3, np.array(["cat", "dog"] * 3)
    writers: list[tuple[str, Callable[[io.BytesIO], Any]]] = [
        ("images.npy", lambda file: np.save(file, pixels)),
        ("images.npz", lambda file: np.savez(file, images=pixels, labels=values)),
        ("images.npz", lambda file: np.savez_compressed(file, x_train=pixels, y_train=words)),
    ]
    found = []
    for name, write in writers:
        file = io.BytesIO()
        write(file)
        found.append(one(name, file.getvalue()))
    return found


def answer_logs() -> list[Seed]:
    """What the label page wrote: a CSV, and a log of how it came to be."""
    line = {"when": "2025-01-01T00:00:00.000+00:00", "who": "ann", "operation": "0a1b", "how": "key"}
    lines = [line | {"path": name, "old": None, "new": "cat"} for name in NAMES[:3]]
    lines += [line | {"operation": "2c", "how": "not", "path": NAMES[3], "old": None, "new": None, "group": "dog"}]
    lines += [line | {"operation": "3d", "how": "undo", "undoes": "2c", "path": NAMES[3], "old": None, "new": None}]
    log = "".join(json.dumps(one) + "\n" for one in lines).encode()
    written = "path,label\n" + "".join(f"{name},cat\n" for name in NAMES[:3])
    return [Seed({"labels.csv": written.encode(), "labels.log.jsonl": log}, "labels.csv")]


def requests() -> list[Seed]:
    """What a browser asks of the label page, as JSON; "TOKEN" stands for the page's secret."""
    origin = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}
    asked = [("GET", path, "") for path in ("/TOKEN/", "/TOKEN/state", "/TOKEN/image/1?side=160", "/TOKEN/label.js")]
    asked += [("GET", f"/TOKEN/{path}", "") for path in ("listing?show=all&start=1&count=2", "group?name=cat&count=3")]
    asked += [("GET", f"/TOKEN/{path}", "") for path in ("review?what=doubt&start=0&count=5", "groups", "image/0")]
    answer = {"tab": "t", "answers": [[1, "cat"], [2, None]], "how": "key", "seconds": 1.5, "group": None}
    told = {"answer": answer, "undo": {"tab": "t"}, "next": {"tab": "t", "count": 2}, "stop": {}, "resume": {}}
    told |= {"train": {"unit": "steps", "length": 3}}
    asked += [("POST", f"/TOKEN/{path}", json.dumps(body)) for path, body in told.items()]
    return [
        one("request.json", json.dumps({"method": method, "path": path, "headers": origin, "body": body}).encode())
        for method, path, body in asked
    ]


SEEDS: Mapping[str, tuple[Callable[[], list[Seed]], str]] = {
    "images": (images, "binary"),
    "labels": (labels, "text"),
    "label_formats": (label_formats, "text"),
    "recipes": (recipes, "text"),
    "checkpoints": (checkpoints, "text"),
    "safetensors": (safetensors, "text"),
    "torch": (torch_files, "pickle"),
    "paddle": (paddle, "pickle"),
    "keras": (keras, "binary"),
    "tensorflow": (tensorflow, "binary"),
    "matlab": (matlab, "binary"),
    "idx": (idx, "binary"),
    "cifar": (cifar, "pickle"),
    "numpy": (numpy_files, "text"),
    "answer_logs": (answer_logs, "text"),
    "requests": (requests, "text"),
}
"""Kind -> what makes its valid files, and which tokens are put into them."""
