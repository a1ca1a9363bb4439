"""Every tensor of a model in one safetensors file, whose header says what the model is."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tapetum.interchange.exports.preprocessing import preprocessing
from tapetum.interchange.exports.requirements import require_suffix
from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.system.files import whole_file

FORMAT_VERSION = 1


def export_safetensors(model: TrainedModel, output: Path) -> Path:
    """Write backbone, heads and classifier under the method's own names; `--init FILE` reads them, too.

    The header's entry `tapetum` is JSON: `format`, `name`, `description`, `method`, `backbone` (its config), `classes`,
    `predicts_by`, `preprocessing` and `accuracies`.

    Raises:
        ValueError: the file does not end in .safetensors, or cannot be written.
    """
    require_suffix(output, ".safetensors")
    about = {
        "format": FORMAT_VERSION,
        "name": model.name,
        "description": model.description,
        "method": type(model.method).__name__,
        "backbone": asdict(model.backbone),
        "classes": model.classes,
        "predicts_by": model.method.predicts_by,
        "preprocessing": preprocessing(model),
        "accuracies": dict(model.accuracies),
    }
    with whole_file(output) as partial:
        write_tensors(model.method.state_dict(), partial, {"tapetum": json.dumps(about)})
    return output


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors, row-major, and compare them with what is read back.

    Raises:
        RuntimeError: the file holds something else.
    """
    kept = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(kept, path, {"format": "pt", **(metadata or {})})
    written = load_file(path)
    if written.keys() != kept.keys() or not all(torch.equal(written[name], kept[name]) for name in kept):
        raise RuntimeError(f"{path} does not hold what was written")


def usage(model: TrainedModel, path: Path) -> str:
    """Lines that show how to read the file."""
    return (
        f"from safetensors.torch import load_file\n"
        f"tensors = load_file({str(path)!r})\n"
        f"# or continue from it:  tapetum fit --images DIR --labels FILE --init {path} --output RUN"
    )
