"""Which published layouts of weights are recognised, what is used of them, and how close outputs come to golden ones.

    TAPETUM_TEST_DATA=FOLDER python benchmarks/layouts.py [--json docs/results/layouts/published.json]

A file in each layout is written, as its tool writes it, and loaded by `load_initial_weights` into a method with that
layout's heads. Those of PAWS and SwAV hold the golden weights of FOLDER/golden; those of PASSL and PAWS-TF were written
by PaddlePaddle and TensorFlow (tests/fixtures). The error is the largest difference of an output in evaluation mode,
relative to the largest value of the code that it is compared with; in float64 except for these two frameworks.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import write_json
from torch import Tensor, nn

from tapetum.interchange.weights.initial_weights import Taken, load_initial_weights
from tapetum.interchange.weights.networks import network_of
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.nn.backbones import ResNetConfig
from tapetum.recipe.from_weights import network_title

ROOT = Path(__file__).parents[1]
FOREIGN = {
    "published": ("PAWS-TF, SavedModel", "TensorFlow"),
    "keras2.h5": ("PAWS-TF, .h5 of Keras 2", "TensorFlow"),
    "keras3.weights.h5": ("PAWS-TF, .weights.h5 of Keras 3", "TensorFlow"),
    "protocol4.pdparams": ("PASSL, .pdparams", "PaddlePaddle"),
}


def row(title: str, path: Path, taken: Taken, error: float | None, compared_with: str | None) -> dict[str, Any]:
    """One line of the table."""
    config, _ = network_of(read_weights(path))
    return {
        "file": title,
        "network": network_title(config),
        "layout": taken.layout,
        "used": len(taken.used),
        "unused": dict(Counter(taken.unused.values())),
        "new": len(taken.new),
        "golden_error": error,
        "compared_with": compared_with,
    }


def difference(output: Tensor, wanted: Any) -> float:
    """The largest difference, relative to the largest wanted value."""
    wanted = np.asarray(wanted)
    return float(np.abs(output.numpy() - wanted).max() / np.abs(wanted).max())


def published(name: str, layouts: Any, golden: Any, folder: Path) -> dict[str, Any]:
    """The golden weights as PAWS or SwAV publish theirs."""
    kind, backbone, settings, _ = layouts.PUBLISHED[name]
    method = layouts.method_of(kind, backbone, settings).double().eval()
    path = layouts.written(name, folder / f"{name}.pth.tar")
    taken = load_initial_weights(method, path)
    expected = np.load(golden.golden_file(f"model_{name}.npz"))
    images = [golden.images(j, int(expected["batch"]), int(size)) for j, size in enumerate(expected["input_sizes"])]
    calls = [torch.cat([x for x in images if x.shape[-1] == s]) for s in dict.fromkeys(x.shape[-1] for x in images)]
    with torch.no_grad():
        outputs = layouts.outputs(method, calls)
    errors = [difference(output, expected[f"eval_out{j}"]) for j, output in enumerate(outputs)]
    return row(name, path, taken, max(errors), "the published code")


def foreign(name: str, files: Any, folder: Path) -> dict[str, Any]:
    """A file that another framework wrote."""
    title, framework = FOREIGN[name]
    _, kind, settings, backbone, *_ = files.FILES[name]
    path = files.unpacked(name, folder)
    method, taken = files.loaded(path, kind, settings, backbone)
    return row(title, path, taken, max(files.errors(method, path.parent).values()), framework)


def libraries(networks: Any, folder: Path) -> Iterator[dict[str, Any]]:
    """Networks of torchvision and timm with their classifiers, against their own outputs."""
    import timm
    import torchvision

    models: dict[str, nn.Module] = {
        "torchvision": torchvision.models.resnet18(),
        "timm": timm.create_model("vit_tiny_patch16_224", depth=2),
    }
    for library, model in models.items():
        path = folder / f"{library}.pth"
        torch.save(model.double().eval().state_dict(), path)
        method = networks.frozen(network_of(read_weights(path))[0]).double().eval()
        taken = load_initial_weights(method, path)
        images = torch.randn(2, 3, 224, 224, dtype=torch.float64)
        for classifier in {"fc", "head"} & dict(model.named_children()).keys():
            model.add_module(classifier, nn.Identity())
        with torch.no_grad():
            yield row(library, path, taken, difference(method.embed(images), model(images)), library)


def by_names(networks: Any, folder: Path) -> Iterator[dict[str, Any]]:
    """Layouts known by their names alone: there are no outputs to compare with."""
    for config in networks.TRANSFORMERS[:4]:
        path, _ = networks.dino(folder, config)
        method = networks.frozen(config)
        yield row(f"DINO, {config.name}", path, load_initial_weights(method, path), None, None)
    for part, names in networks.EXPORTS["torchvision/resnet18"].items():
        path = folder / f"{part}.pt"
        torch.save({name: torch.zeros(shape) for name, shape in names.items()}, path)
        method = networks.frozen(ResNetConfig(depth=18, stem="imagenet"))
        yield row(f"lightly-train, {part}", path, load_initial_weights(method, path), None, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "tests" / "interchange")]
    import test_foreign_files as files
    import test_layouts as layouts
    import test_networks as networks

    import golden

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = [published(name, layouts, golden, folder) for name in layouts.PUBLISHED]
        rows += [foreign(name, files, folder) for name in FOREIGN]
        rows += [*libraries(networks, folder), *by_names(networks, folder)]
    for each in rows:
        print(json.dumps(each))
    if options.json is not None:
        write_json(options.json, {"layouts": rows})


if __name__ == "__main__":
    main()
