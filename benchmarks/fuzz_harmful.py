"""Makes files that do harm: bombs, pipes, links, headers that lie, names that are programs."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fuzz_readers import READERS, read_recipe, read_source
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
    begin = packer.compress(bytes(MEGABYTES)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(MEGABYTES)) + packer.flush(zlib.Z_FULL_FLUSH)  # needs nothing before it
    size = 3 * 1024
    check_sum = struct.pack(">I", size * MEGABYTES % 65_521 << 16 | 1)  # Adler-32 of zeros
    packed = begin + again * (size - 1) + b"\3\0" + check_sum
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
