"""Files that people make to do harm, each with what it is called and who reads it."""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Mapping

import torch
from fuzz_harmful import (
    MEGABYTES,
    MEMO,
    TUPLES,
    Make,
    answer_log,
    asked,
    beside_images,
    bound,
    checkpoint,
    cifar_folder,
    idx_folder,
    large_h5,
    laughing,
    linked_h5,
    many_scans,
    mat_bomb,
    npy,
    npz_bomb,
    one,
    png,
    recipe_beside,
    text_bomb,
    torch_saved,
    torch_zip,
    zipped,
)
from fuzz_readers import read_any_weights, read_image, read_labels, read_recipe, read_source

ABOUT = {"format": 1, "step": 2, "optimizer": {}, "strides": {}}
LINE = {"operation": "0a", "how": "key", "path": "cat/1.png", "old": None, "new": None}
NAMES = [name.encode() for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png")]


def named(*classes: bytes) -> bytes:
    """A CSV of labels."""
    return b"".join(b"%s,%s\n" % pair for pair in zip(NAMES, classes))


CASES: Mapping[str, Make] = {
    "PNG of 100,000 x 100,000 pixels": one(read_image, "a.png", png(100_000, 100_000)),
    "PNG of 2**31 pixels in a row": one(read_image, "a.png", png(2**31 - 1, 1)),
    "PNG with a comment of 200 MB": one(read_image, "a.png", text_bomb),
    "PNG of 16 bits, 11,000 x 11,000, cut": one(read_image, "a.png", png(11_000, 11_000, 16, 6, b"\0" * 999)),
    "JPEG drawn 20,000 times": one(read_image, "a.jpg", many_scans),
    "PostScript as PNG": one(
        read_image, "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    ),
    "pipe among images": beside_images(lambda folder: os.mkfifo(folder / "pipe.png") or True),
    "socket among images": beside_images(bound),
    "device among images": beside_images(lambda folder: (folder / "zero.png").symlink_to("/dev/zero") or True),
    "links to folders above": beside_images(lambda folder: [(folder / n).symlink_to(folder) for n in "ab"] and None),
    "npz that unpacks to 1 GB": one(read_source, "a.npz", npz_bomb),
    "npz with an array of 2**40": one(read_source, "a.npz", zipped(images_npy=npy((2**40,)))),
    "npz whose array is text": one(read_source, "a.npz", zipped(images=b"no array")),
    "npy with an array of 2**40": one(read_source, "a.npy", npy((2**40, 4, 4))),
    "IDX of 2**31 images": idx_folder(struct.pack(">BBBBIII", 0, 0, 8, 3, 2**31, 28, 28)),
    "IDX packed, of 4 GB": idx_folder(
        gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, 2**20, 64, 64) + bytes(9)), ".gz"
    ),
    "IDX packed, longer than it says": idx_folder(
        gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 1, 1) + bytes(800 * MEGABYTES), 1), ".gz"
    ),
    "MATLAB that unpacks to 3 GB": one(read_source, "train_32x32.mat", mat_bomb),
    "CIFAR: a place of the memo": cifar_folder(MEMO),
    "CIFAR: tuples in tuples": cifar_folder(TUPLES),
    "CIFAR: a function": cifar_folder(b"cposix\nsystem\n(S'touch harmed'\ntR."),
    "Paddle: a place of the memo": one(read_any_weights, "w.pdparams", MEMO),
    "Paddle: tuples in tuples": one(read_any_weights, "w.pdparams", TUPLES),
    "torch: tuples in tuples": one(read_any_weights, "w.pth", torch_zip(TUPLES)),
    "torch: a function": one(read_any_weights, "w.pth", torch_zip(b"\x80\2cposix\nsystem\nX\1\0\0\0x\x85R.")),
    "torch: dictionaries in dictionaries": one(read_any_weights, "w.pth", lambda: torch_saved(laughing())),
    "torch: one number as 2**40": one(
        read_any_weights, "w.pth", lambda: torch_saved({"a": torch.ones(1).expand(2**40)})
    ),
    "torch: no values": one(read_any_weights, "w.pth", lambda: torch_saved({"a": torch.ones(2, device="meta")})),
    "Keras: a link to another file": one(read_any_weights, "w.h5", linked_h5),
    "Keras: an array of 4 TB": one(read_any_weights, "w.h5", large_h5),
    "safetensors: a header of 2**60": one(read_any_weights, "w.safetensors", struct.pack("<Q", 2**60) + b"{}"),
    "safetensors: deep JSON": one(read_any_weights, "w.safetensors", struct.pack("<Q", 90_000) + b"[" * 90_000),
    "checkpoint: strides of 2**40": checkpoint(json.dumps(ABOUT | {"strides": {"a": [2**40, 1]}})),
    "checkpoint: strides of no tensor": checkpoint(json.dumps(ABOUT | {"strides": {"b": [1]}})),
    "checkpoint: step in words": checkpoint(json.dumps(ABOUT | {"step": "two"})),
    "checkpoint: deep JSON": checkpoint("[" * 100_000),
    "recipe: an alias": one(read_recipe, "r.yaml", b"a: &a [x, x]\nb: [*a, *a]\n"),
    "recipe: depth": one(read_recipe, "r.yaml", b"seed: " + b"[" * 20_000),
    "recipe: huge numbers": one(read_recipe, "r.yaml", b"extends: paws_digits\nseed: " + b"9" * 100_000),
    "recipe: 1 MB": one(read_recipe, "r.yaml", b"a: [" + b"1, " * 350_000 + b"]\n"),
    "recipe: a long key": one(read_recipe, "r.yaml", b"extends: paws_digits\n" + b"a" * 100_000 + b": 1\n"),
    "recipe: extends itself": one(read_recipe, "r.yaml", b"extends: ./r.yaml\n"),
    "recipe: extends a pipe": recipe_beside("pipe.yaml", os.mkfifo),
    "recipe: extends a device": recipe_beside("zero.yaml", lambda path: path.symlink_to("/dev/zero")),
    "labels: NUL": one(read_labels, "l.csv", named(b"cat", b"ca\0t", b"dog", b"dog")),
    "labels: UTF-16": one(read_labels, "l.csv", named(b"cat", b"cat", b"dog", b"dog").decode().encode("utf-16")),
    "labels: BOM and mixed line ends": one(
        read_labels, "l.csv", b"\xef\xbb\xbf" + named(b"cat", b"cat\r", b"dog\r", b"dog").replace(b"\r\n", b"\r\n")
    ),
    "labels: 10 million columns": one(read_labels, "l.csv", lambda: b"a," * 10**7 + b"\n"),
    "labels: a class of 100,000 digits": one(read_labels, "l.csv", named(b"1", b"1", b"9" * 100_000, b"2")),
    "labels: a path of 60,000 folders": one(read_labels, "l.csv", (b"a/" * 60_000 + b"x,cat\n") * 20),
    "labels: deep JSON": one(read_labels, "l.json", b"[" * 10**6),
    "labels: entities": one(
        read_labels, "l.xml", b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><annotations>&d;</annotations>'
    ),
    "answer log: deep JSON": answer_log(b"[" * 100_000),
    "answer log: labels that no file takes": answer_log(json.dumps(LINE | {"old": "a\nb,c"}).encode()),
    "request: no path": asked(method="OPTIONS", path="*"),
    "request: deep JSON": asked(body="[" * 100_000),
    "request: a number of 400 digits": asked(path="/TOKEN/train", body='{"unit": "steps", "length": %s}' % ("9" * 400)),
    "request: infinity": asked(path="/TOKEN/next", body='{"tab": "t", "count": Infinity}'),
    "request: seconds of 400 digits": asked(
        body='{"tab": "t", "answers": [[0, "a"]], "how": "key", "seconds": %s}' % ("9" * 400)
    ),
    "request: an image of 5,000 digits": asked(method="GET", path="/TOKEN/image/" + "9" * 5000, body=""),
    "request: a length in other digits": asked(
        headers={"host": "localhost", "origin": "http://localhost", "content-length": "²"}
    ),
}
"""What it is -> what makes and reads it."""
