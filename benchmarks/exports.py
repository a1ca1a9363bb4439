"""Whether exported models predict elsewhere what they predict here: one run, every format, loaders without Tapetum.

    python benchmarks/exports.py --images DIR [--new DIR] [--count 1000] [--json docs/results/exports/NAME.json]

DIR holds class folders, or `train` and `test` with class folders. A ResNet-18 with a linear classifier is trained on 20
images of each class for a few steps and exported in every format. A fresh virtual environment, in which Tapetum cannot
be imported, loads each export by the lines that `tapetum export` prints, and labels COUNT images of the test part (or
of --new) through the tool's own preprocessing. Their labels are compared with those of `tapetum predict`. transformers
resizes by torchvision unless it is asked for PIL; the two round pixels differently, so it is asked both ways.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import write_json

import tapetum
from tapetum.data.images.decoding import IMAGE_SUFFIXES
from tapetum.interchange.exports.formats import FORMATS, usage
from tapetum.runs.trained_model import trained_model
from tapetum.runs.trained_run import open_trained_run

RECIPE = """
description: A classifier to export
method: {kind: supervised}
backbone: {kind: resnet, depth: 18, stem: imagenet}
data: {images: pool, batch_size: 32}
views:
  large: {size: 64, scale: [0.4, 1.0]}
  mean: [0.49, 0.48, 0.45]
  std: [0.25, 0.24, 0.26]
  evaluation: {crop: 64, resize: 72}
support: {images_per_class: 3}
optimizer: {kind: sgd, weight_decay: 1e-4, lr: {start: 0.02, peak: 0.05, final: 0.0, warmup_epochs: 1}}
runtime: {accelerator: cpu, precision: float32}
trainer: {steps: 200, log_every: 50}
"""
SUFFIXES = {"safetensors": ".safetensors", "torchvision": ".pth", "onnx": ".onnx"}
IMAGES = """
import json, pathlib, sys
import torch
from PIL import Image
files = sorted(pathlib.Path("new").iterdir())
images = [Image.open(file).convert("RGB") for file in files]
classes = json.loads(pathlib.Path("classes.json").read_text())
"""
NETWORK = """
with torch.no_grad():
    logits = torch.cat([model(preprocess(image)[None]) for image in images])
labels = [classes[i] for i in logits.argmax(dim=1).tolist()]
"""
CONSUMERS = {
    "huggingface": 'labels = [answers[0]["label"] for answers in classify(images)]\n',
    "huggingface, resized by PIL": """
from transformers import AutoImageProcessor, pipeline
processor = AutoImageProcessor.from_pretrained("huggingface", backend="pil")
classify = pipeline("image-classification", model="huggingface", image_processor=processor)
labels = [answers[0]["label"] for answers in classify(images)]
""",
    "onnx": """
import numpy, onnxruntime
from torchvision import transforms
session = onnxruntime.InferenceSession("onnx.onnx")
about = json.loads(session.get_modelmeta().custom_metadata_map["tapetum"])
sizes = about["preprocessing"]
cut = transforms.Compose([transforms.Resize(sizes["resize"]), transforms.CenterCrop(sizes["crop"])])
pixels = numpy.stack([numpy.asarray(cut(image)).transpose(2, 0, 1) for image in images])
(probabilities,) = session.run(["probabilities"], {"images": pixels})
labels = [about["classes"][i] for i in probabilities.argmax(axis=1)]
""",
    "safetensors": """
import torchvision
from safetensors import safe_open
from torchvision import transforms
with safe_open("safetensors.safetensors", "pt") as file:
    about = json.loads(file.metadata()["tapetum"])["preprocessing"]
model = torchvision.models.resnet18(num_classes=len(classes)).eval()
model.load_state_dict({name.removeprefix("backbone.").replace("classifier", "fc"): tensors[name] for name in tensors})
preprocess = transforms.Compose([transforms.Resize(about["resize"]), transforms.CenterCrop(about["crop"]),
    transforms.ToTensor(), transforms.Normalize(about["mean"], about["std"])])
"""
    + NETWORK,
}
SAY = '\njson.dump(labels, open("labels.json", "w"))\n'


def lay_out(images: Path, new: Path | None, count: int, folder: Path) -> None:
    """Copy the pool and the images to label into a folder; the latter are as many of each part of the list."""
    pool, test = (images / part if (images / part).is_dir() else images for part in ("train", "test"))
    for place in sorted(path for path in pool.iterdir() if path.is_dir()):
        (folder / "pool" / place.name).mkdir(parents=True)
        for file in image_files(place)[:20]:
            shutil.copy(file, folder / "pool" / place.name)
    files = image_files(test if new is None else new)
    (folder / "new").mkdir()
    for number, index in enumerate(np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)):
        shutil.copy(files[index], folder / "new" / f"{number:06}{files[index].suffix}")


def image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def environment(folder: Path) -> Path:
    """Make a virtual environment with this one's packages but without Tapetum; returns its Python."""
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = Path(torch.__file__).parents[1]
    # Paths that are named in such a file are searched, but the same files in them (editable installs) are not read.
    (folder / "lib" / version / "site-packages" / "packages.pth").write_text(f"{packages}\n")
    python = folder / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", "import tapetum"], capture_output=True, text=True, cwd=folder)
    if done.returncode == 0:
        raise SystemExit(f"tapetum is installed in {packages}: install it with `pip install --editable`, then repeat.")
    print(f"in the fresh environment, `import tapetum` fails: {done.stderr.splitlines()[-1]}")
    return python


def labels_of(format: str, lines: str, python: Path, folder: Path) -> list[str]:
    """Label the images by a format's own loader, in a process of its own."""
    begin = lines.removesuffix('classify("photo.jpg")') if format != "onnx" else ""
    program = IMAGES + begin + "\n" + CONSUMERS.get(format, NETWORK) + SAY
    subprocess.run([python, "-I", "-c", program], cwd=folder, check=True, capture_output=True)
    found: list[str] = json.loads((folder / "labels.json").read_text())
    return found


def compare(images: Path, new: Path | None, count: int, folder: Path) -> dict[str, Any]:
    """Train, export, and label the images here and by every format."""
    lay_out(images, new, count, folder)
    (folder / "classifier.yaml").write_text(RECIPE)
    run = folder / "run"
    tapetum.train(folder / "classifier.yaml", run, [f"data.images={folder / 'pool'}"])
    tapetum.predict(run, folder / "new", folder / "here.csv")
    with (folder / "here.csv").open() as file:
        here = [row["label"] for row in csv.DictReader(file)]
    python, model = environment(folder / "elsewhere"), trained_model(open_trained_run(run), with_supports=False)
    (folder / "classes.json").write_text(json.dumps(model.classes))
    found = {}
    for format in FORMATS:
        path = Path(f"{format}{SUFFIXES.get(format, '')}")
        tapetum.export(run, folder / path, format)
        lines = usage(format, model, path) or ""
        for way in (name for name in dict.fromkeys((*FORMATS, *CONSUMERS)) if name.split(",")[0] == format):
            found[way] = sum(map(str.__eq__, here, labels_of(way, lines, python, folder)))
    return {"images": len(here), "labels": len(set(here)), "equal": found}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--new", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(options.images, options.new, options.count, Path(folder))
    for format, equal in result["equal"].items():
        print(f"{format:27} {equal:4} of {result['images']} labels equal ({result['labels']} classes were predicted)")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
