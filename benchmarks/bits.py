"""What a refactoring must not change: hashes of losses, weights, views and predictions, one line for each.

    python benchmarks/bits.py [--keep FOLDER] > before.txt       on one commit
    python benchmarks/bits.py [--old FOLDER] > after.txt         on another; the two files must not differ

Every method trains 20 steps on scikit-learn's digits, is resumed from step 10, and predicts. Only the public functions
of `tapetum` are called, so the script runs on commits whose modules lie elsewhere. `--keep` leaves the run folders
there; `--old` also predicts with, and resumes, run folders that another commit has left.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

import tapetum

STEPS, MIDDLE = 20, 10
SHARED = (
    f"trainer.steps={STEPS}",
    f"trainer.checkpoint_every={MIDDLE}",
    "trainer.log_every=1",
    "data.held_out_per_class=5",
    "data.batch_size=128",
    "views.small.size=8",
    "views.small.scale=[0.3, 0.6]",
    "views.small.count=2",
    "runtime.precision=float32",
    "runtime.threads=2",
)
PROTOTYPES = "method.num_prototypes=[20, 30]"
METHODS: dict[str, tuple[str, ...]] = {
    "paws": (),
    "ropaws": (),
    "suncet": ("method.supervised_epochs=1",),
    "simclr": (),
    "swav": (PROTOTYPES, "method.freeze_steps=3", "method.queue_length=256", "method.queue_start_epoch=0"),
    "deepcluster": (PROTOTYPES,),
    "sela": (PROTOTYPES,),
    "suave": (),
    "fixmatch": ("method.threshold=null", "method.even_classes=true", "method.teacher_decay=0.9"),
    "supervised": (),
}
BF16 = ("runtime.precision=bf16", "runtime.channels_last=true")


def digest(content: bytes) -> str:
    """The first 16 hexadecimal digits of a hash."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def losses(run: Path) -> str:
    """Of every number in metrics.csv but those of the clock."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    return digest(json.dumps(rows).encode())


def weights(run: Path) -> str:
    """Of every tensor in the last checkpoint: weights, buffers, momentum, queues and banks."""
    last = max((run / "checkpoints").glob("step-*.safetensors"))
    found = hashlib.blake2b(digest_size=8)
    with safe_open(last, framework="np") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            found.update(f"{name} {tensor.shape} {tensor.dtype}".encode() + tensor.tobytes())
    return found.hexdigest()


def predictions(run: Path, folder: Path) -> str:
    """Of the table that `predict` writes for the test digits; of embeddings, where no label is known."""
    table, embedded = folder / f"{run.name}.csv", folder / f"{run.name}.npz"
    tapetum.predict(run, "digits", table)
    tapetum.embed(run, "digits", embedded)
    return digest(table.read_bytes() + np.load(embedded)["embeddings"].tobytes())


def resumed(run: Path, folder: Path) -> str:
    """Weights after step 20 of a copy that was taken up at step 10."""
    copy = folder / f"{run.name}-resumed"
    shutil.copytree(run, copy)
    max((copy / "checkpoints").glob("step-*.safetensors")).unlink()
    tapetum.resume(copy)
    return weights(copy)


def photographs(folder: Path) -> Path:
    """Pieces of the two photographs that come with scikit-learn, of several sizes, in two class folders."""
    from sklearn.datasets import load_sample_images

    for name, pixels in zip(("china", "flower"), load_sample_images().images):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            top, left, side = 17 * i, 23 * i, 90 + 9 * i
            Image.fromarray(pixels[top : top + side, left : left + side + 4 * i]).save(folder / name / f"{i:02}.png")
    return folder


def views(folder: Path) -> Iterator[tuple[str, str]]:
    """Of contact sheets: of digits, and of photographs through every distortion of the published recipes."""
    pictures = photographs(folder / "photographs")
    for recipe, images in (
        ("paws_digits", "digits"),
        ("paws_cifar10_4000", str(pictures)),
        ("paws_imagenet_10percent_100ep", str(pictures)),
        ("swav_imagenet_400ep", str(pictures)),
    ):
        sheet = tapetum.views(recipe, folder / f"{recipe}.png", images)
        yield f"views {recipe}", digest(np.asarray(Image.open(sheet)).tobytes())
    run = folder / "fitted"
    tapetum.fit(pictures, None, run, steps=STEPS, overrides=["runtime.precision=float32", "runtime.threads=2"])
    recipe = (run / "recipe.yaml").read_text().replace(str(folder), "")
    yield "fit recipe", digest(recipe.encode())
    yield "fit losses", losses(run)
    yield "fit weights", weights(run)


def trained(folder: Path) -> Iterator[tuple[str, str]]:
    """Of every method, alone and, for one, in bfloat16 and in two processes."""
    cases = {**METHODS, "paws-bf16": (*METHODS["paws"], *BF16)}
    for name, own in cases.items():
        run = folder / name
        tapetum.train("paws_digits", run, [f"method.kind={name.split('-')[0]}", *SHARED, *own])
        yield f"{name} losses", losses(run)
        yield f"{name} weights", weights(run)
        yield f"{name} resumed", resumed(run, folder)
        yield f"{name} predictions", predictions(run, folder)
    run = folder / "paws-two-processes"
    words = [sys.executable, "-m", "tapetum", "train", "paws_digits", "--output", str(run), *SHARED]
    subprocess.run([*words, "runtime.devices=2", "runtime.threads=1"], check=True, stdout=subprocess.DEVNULL)
    yield "paws-two-processes losses", losses(run)
    yield "paws-two-processes weights", weights(run)


def of_old(old: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Run folders of another commit, resumed and predicting; the lines are those of `trained`."""
    for name in (*METHODS, "paws-bf16"):
        yield f"{name} resumed", resumed(old / name, folder)
        yield f"{name} predictions", predictions(old / name, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="new folder for the runs")
    parser.add_argument("--old", type=Path, help="runs that another commit kept: resume and predict with these")
    options = parser.parse_args()
    os.environ["TAPETUM_CACHE"] = tempfile.mkdtemp(prefix="tapetum-bits-")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        parts: list[Any] = [views(folder), trained(folder)] if options.old is None else [of_old(options.old, folder)]
        for part in parts:
            with contextlib.ExitStack() as stack:
                said = stack.enter_context(open(os.devnull, "w"))
                while True:
                    with contextlib.redirect_stdout(said):
                        line = next(part, None)
                    if line is None:
                        break
                    print("{:<28} {}".format(*line), flush=True)


if __name__ == "__main__":
    main()
