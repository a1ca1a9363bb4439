"""Files that people make to do harm: bombs, pipes, links, headers that lie, names that are programs."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from fuzz_readers import READERS, read_any_weights, read_image, read_labels, read_recipe, read_source
from fuzz_seeds import requests
from PIL import Image

from tapetum.data.health.unreadable import readable
from tapetum.data.sources.open_source import open_source
from tapetum.engine.checked_tensors import write_tensors

Make = Callable[[Path], Callable[[Path], None]]
"""A folder to write into -> what reads it, given a folder of five images."""
MEGABYTES = 2**20


def one(reader: Callable[[Path, Path], None], name: str, content: bytes | Callable[[], bytes]) -> Make:
    """A single file, whose content may be made late."""

    def make(folder: Path) -> Callable[[Path], None]:
        (folder / name).write_bytes(content() if callable(content) else content)
        return lambda pool: reader(folder / name, pool)

    return make


def png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG of any size in its header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose comment unpacks to 200 MB."""
    plain = png(2, 2, data=b"\0" * 14)
    content = b"a\0\0" + zlib.compress(b"x" * (200 * MEGABYTES), 1)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return plain[:33] + chunk + plain[33:]


def many_scans() -> bytes:
    """A progressive JPEG of 100 megapixels that is drawn thousands of times over itself, in 200 kB."""
    file = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(file, "JPEG", progressive=True, quality=1)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last : last + 12] * 20_000 + b"\xff\xd9"


def zipped(**members: bytes) -> bytes:
    """A zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_npy", ".npy"), content)
    return file.getvalue()


def npy(shape: tuple[int, ...], content: bytes = b"", kind: str = "|u1") -> bytes:
    """A .npy file of any shape in its header."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def npz_bomb() -> bytes:
    """An archive of an array of 1 GB, all zeros."""
    file = io.BytesIO()
    archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("images.npy", "w", force_zip64=True) as member:
        member.write(npy((2**10, 2**10, 2**10)))
        for _ in range(2**10):
            member.write(bytes(MEGABYTES))
    return file.getvalue()


def idx_folder(images: bytes, end: str = "") -> Make:
    """MNIST's two files."""

    def make(folder: Path) -> Callable[[Path], None]:
        (folder / f"train-images-idx3-ubyte{end}").write_bytes(images)
        (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 2) + b"\0\1")
        return lambda pool: read_source(folder, pool)

    return make


def mat_bomb() -> bytes:
    """A MATLAB file whose packed part unpacks to 3 GB."""
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(MEGABYTES)) for _ in range(3 * 1024)) + packer.flush()
    return b"MATLAB 5.0".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed


def cifar_folder(meta: bytes) -> Make:
    """CIFAR-10's folder with a pickle of one's own."""

    def make(folder: Path) -> Callable[[Path], None]:
        (folder / "batches.meta").write_bytes(meta)
        return lambda pool: read_source(folder, pool)

    return make


TUPLES = b"\x80\2}Nq\0" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(60)) + b"K\1s."
"""A dictionary whose key is a pair of a pair of a pair, 60 deep, each holding the same pair twice."""
MEMO = b"\x80\2}r\xff\xff\xff\x7f."


def torch_zip(content: bytes) -> bytes:
    """A file as torch writes it, with a pickle of one's own."""
    file = io.BytesIO()
    torch.save({}, file)
    packed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(packed, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, content if member.filename.endswith("data.pkl") else old.read(member))
    return packed.getvalue()


def torch_saved(content: object) -> bytes:
    """A file that torch wrote."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def laughing() -> object:
    """Dictionaries that hold each other, 2**60 in all."""
    content: object = {}
    for _ in range(60):
        content = {"a": content, "b": content}
    return content


def linked_h5() -> bytes:
    """HDF5 that links to another file."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as content:
        content.attrs["layer_names"] = ["a"]
        content["a"] = h5py.ExternalLink("/etc/passwd", "/")
    return file.getvalue()


def large_h5() -> bytes:
    """HDF5 with an array of 4 TB, none of which is stored."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as content:
        content.attrs["layer_names"] = ["a"]
        content.create_group("a").attrs["weight_names"] = ["kernel:0"]
        content["a"].create_dataset("kernel:0", shape=(2**20, 2**20), chunks=(64, 64), dtype="f4")
    return file.getvalue()


def beside_images(special: Callable[[Path], object]) -> Make:
    """A folder of images with something that is none beside them, under the name of one."""

    def make(folder: Path) -> Callable[[Path], None]:
        pictures = folder / "pictures"
        pictures.mkdir()
        Image.new("RGB", (4, 4)).save(pictures / "good.png")
        held = special(pictures)  # such as a socket, which must stay open

        def read(pool: Path) -> None:
            kept, unreadable = readable(open_source(pictures, "none"))
            assert [*kept.store.names] == ["good.png"], kept.store.names
            assert held is None or len(unreadable) == 1

        return read

    return make


def bound(folder: Path) -> socket.socket:
    """A socket in a folder; by a relative path, because those of sockets are short."""
    here = os.getcwd()
    os.chdir(folder)
    try:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("socket.png")
        return listening
    finally:
        os.chdir(here)


def recipe_beside(name: str, special: Callable[[Path], object]) -> Make:
    """A recipe that extends something that is none."""

    def make(folder: Path) -> Callable[[Path], None]:
        special(folder / name)
        (folder / "recipe.yaml").write_text(f"extends: {name}\n")
        return lambda pool: read_recipe(folder / "recipe.yaml", pool)

    return make


def checkpoint(about: str) -> Make:
    """A checkpoint with a right check sum, and wrong words beside its tensors."""

    def make(folder: Path) -> Callable[[Path], None]:
        (folder / "checkpoints").mkdir()
        write_tensors(folder / "checkpoints" / "step-00000002.safetensors", {"a": torch.ones(2, 3)}, about, "")
        return lambda pool: READERS["checkpoints"](folder, pool)

    return make


def asked(**changes: object) -> Make:
    """A request to the label page."""
    usual = json.loads(requests()[9].files["request.json"])
    return one(READERS["requests"], "request.json", json.dumps(usual | changes).encode())


def answer_log(content: bytes) -> Make:
    """The log of a label page that another person wrote."""

    def make(folder: Path) -> Callable[[Path], None]:
        (folder / "labels.csv").write_bytes(b"path,label\n")
        (folder / "labels.log.jsonl").write_bytes(content + b"\n")
        return lambda pool: READERS["answer_logs"](folder / "labels.csv", pool)

    return make


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
