"""A trained model as one ONNX file: network, labelled images and prediction in one graph, for any ONNX runtime.

    images          (N, channels, crop, crop) uint8, resized and cropped as the metadata says; N is free
    probabilities   (N, C) by what the method predicts with: soft nearest neighbours, or its classifier
    in_domain       (N,) the method's estimate, else the cosine with the nearest support, clipped to 0..1
    nearest         (N, K) int64 rows of the supports, nearest first; K is 3, or fewer if there are fewer supports
    nearest_classes (N, K) int64 their classes
    similarity      (N, K) their cosines
    embedding       (N, D) of any scale; the only output of a model without labels

The supports are initializers: `supports` (S, D) of unit length, `support_labels` (S,), and `class_numbers` (C,), which
are 0 to C - 1. So a class is added by adding rows (`onnx_supports.py`), without torch. The metadata's entry "tapetum"
is JSON: what the numbers mean, and how images are prepared.

The graph is exported with the supports as inputs, which then become initializers: torch's exporter would otherwise
compute with constants in advance, and no row could be added. The operators are those of opset 18 (2022).
"""

import importlib
import json
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tapetum.data.views.apply import normalise
from tapetum.data.views.evaluation_views import evaluation_views, mean_over_views
from tapetum.evaluation.soft_neighbours import TEMPERATURE
from tapetum.interchange.exports.preprocessing import preprocessing
from tapetum.interchange.exports.requirements import require_suffix
from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.methods.base import Method
from tapetum.system.files import whole_file

ONNX_FORMAT = 1
"""Version of the names and the metadata above."""
OPSET = 18
METADATA_KEY = "tapetum"
_NEIGHBOURS = 3
_MOST_BYTES = 2**31 - 2**24  # protobuf's limit, less what the graph itself may need
_OUTPUTS = ("probabilities", "in_domain", "nearest", "nearest_classes", "similarity", "embedding")
_OWN_DOMAIN = "the method's estimate of how much an image is like labelled ones, 0 to 1"
_COSINE_DOMAIN = "the cosine with the nearest support, clipped to 0..1; the method itself makes no estimate"


class _Predictor(nn.Module):
    """Computes every output from the pixels."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.method, self._views = model.method, model.views
        self.num_neighbours = 0 if model.supports is None else min(_NEIGHBOURS, len(model.supports.labels))

    def forward(
        self,
        images: Tensor,
        supports: Tensor | None = None,
        support_labels: Tensor | None = None,
        class_numbers: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        pixels = normalise(images, self._views.mean, self._views.std)
        outputs = [self.method.embed_and_classify(v) for v in evaluation_views(pixels, self._views.evaluation)]
        embedding = mean_over_views([found for found, _ in outputs])
        if supports is None or support_labels is None:
            return (embedding,)
        cosines = normalize(embedding, dim=1) @ supports.T
        similarity, nearest = cosines.topk(self.num_neighbours, dim=1)
        domain = self.method.in_domain(similarity[:, 0])
        domain = similarity[:, 0].clamp(0, 1) if domain is None else domain
        if class_numbers is None:
            logits = [found for _, found in outputs if found is not None]
            probabilities = torch.softmax(mean_over_views(logits), dim=1)
        else:
            hard = (support_labels[:, None] == class_numbers).to(cosines.dtype)
            probabilities = torch.softmax(cosines / TEMPERATURE, dim=1) @ hard
        return probabilities, domain, nearest, support_labels[nearest], similarity, embedding


def export_onnx(model: TrainedModel, output: Path) -> Path:
    """Write a model with its labelled images to one ONNX file.

    The file is checked by onnx and, where onnxruntime is installed, run and compared with the model.

    Args:
        model: what to write; its probabilities are written uncalibrated.
        output: the file.

    Returns:
        The path written.

    Raises:
        ValueError: the file does not end in .onnx or cannot be written, onnx or onnxscript is not installed, the model
            is larger than 2 GB, or ONNX cannot express its network.
    """
    require_suffix(output, ".onnx")
    package("onnxscript")  # torch's exporter needs it
    supports = _support_tensors(model)
    _check_size(model, supports)
    predictor = _Predictor(model).eval()
    proto = _graph_of(predictor, model, supports)
    proto.producer_name, proto.producer_version, proto.doc_string = "tapetum", version("tapetum"), model.description
    content = checked(proto, _metadata(model))
    _compare(content, predictor, model, supports)
    with whole_file(output) as partial:
        partial.write_bytes(content)
    return output


def package(name: str) -> Any:
    """Import an optional package, or raise ValueError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is not installed: pip install 'tapetum[onnx]'.") from error


def _support_tensors(model: TrainedModel) -> dict[str, Tensor]:
    """Make the initializers by name; a classifier needs no numbers of classes."""
    if model.supports is None:
        return {}
    tensors = {
        "supports": normalize(model.supports.embeddings.float(), dim=1),
        "support_labels": model.supports.labels.to(torch.int64),
    }
    if model.method.predicts_by == "soft_neighbours":
        tensors["class_numbers"] = torch.arange(len(model.classes))
    return tensors


def _names(supports: Mapping[str, Tensor]) -> list[str]:
    """Names of the outputs."""
    return list(_OUTPUTS if supports else _OUTPUTS[-1:])


def _check_size(model: TrainedModel, supports: Mapping[str, Tensor]) -> None:
    tensors = [*model.method.state_dict().values(), *supports.values()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > _MOST_BYTES:
        raise ValueError(
            f"{model.name} has {size / 1e9:.1f} GB of weights and supports, and an ONNX file holds 2 GB at most: "
            "export it in another format."
        )


def _graph_of(predictor: _Predictor, model: TrainedModel, supports: Mapping[str, Tensor]) -> Any:
    """Export the graph, and turn its inputs that are supports into initializers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proto = _exported(predictor, model, supports)
    except Exception as error:  # torch's exporter fails in many ways on networks that it cannot express
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"ONNX cannot express the {model.backbone.kind} network of {model.name} ({reason}): export another format."
        ) from error
    images = [value for value in proto.graph.input if value.name not in supports]
    del proto.graph.input[:]
    proto.graph.input.extend(images)
    to_proto = package("onnx").numpy_helper.from_array
    proto.graph.initializer.extend(to_proto(tensor.numpy(), name) for name, tensor in supports.items())
    for part in (*proto.graph.node, *proto.graph.value_info):
        part.ClearField("metadata_props")  # stack traces with paths of this machine
    return proto


def _exported(predictor: _Predictor, model: TrainedModel, supports: Mapping[str, Tensor]) -> Any:
    images = torch.zeros(2, model.channels, model.views.evaluation.crop, model.views.evaluation.crop, dtype=torch.uint8)
    # The numbers of supports and of classes are free, like that of images; those of the examples say nothing.
    dim = torch.export.Dim
    few = dim("S", min=predictor.num_neighbours) if supports else None
    free = {"supports": (few, 5), "support_labels": (few, 5), "class_numbers": (dim("C"), 4)}
    sizes = [free[name] for name in supports]
    examples = [tensor.new_zeros(count, *tensor.shape[1:]) for (_, count), tensor in zip(sizes, supports.values())]
    program = torch.onnx.export(
        predictor,
        (images, *examples),
        dynamic_shapes=({0: dim("N")}, *({0: size} for size, _ in sizes)),
        input_names=["images", *supports],
        output_names=_names(supports),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    return program.model_proto  # type: ignore[union-attr]


def _metadata(model: TrainedModel) -> dict[str, Any]:
    prepared = preprocessing(model)
    found: dict[str, Any] = {
        "format": ONNX_FORMAT,
        "name": model.name,
        "description": model.description,
        "preprocessing": {key: value for key, value in prepared.items() if key not in ("mean", "std")},  # in the graph
        "classes": list(model.classes),
        "accuracies": dict(model.accuracies),
    }
    if model.supports is None:
        return found
    estimates = type(model.method).in_domain is not Method.in_domain
    return found | {
        "predicts_by": model.method.predicts_by,
        "temperature": TEMPERATURE if model.method.predicts_by == "soft_neighbours" else None,
        "calibrated": False,
        "in_domain": _OWN_DOMAIN if estimates else _COSINE_DOMAIN,
        "support_names": list(model.support_names),
    }


def checked(proto: Any, metadata: Mapping[str, Any]) -> bytes:
    """Put the metadata into a model and check it; returns the file's content."""
    onnx = package("onnx")
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _compare(content: bytes, predictor: _Predictor, model: TrainedModel, supports: Mapping[str, Tensor]) -> None:
    """Compare the file's numbers with the model's where onnxruntime is installed."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        return
    crop = model.views.evaluation.crop
    images = np.random.default_rng(0).integers(0, 256, (3, model.channels, crop, crop)).astype(np.uint8)
    with torch.no_grad():
        expected = dict(zip(_names(supports), predictor(torch.from_numpy(images), *supports.values())))
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    found = dict(zip(_names(supports), session.run(list(expected), {"images": images})))
    for name, tensor in expected.items():
        # Which of two equally near supports comes first may differ, so their rows are not compared.
        if tensor.is_floating_point() and not np.allclose(found[name], tensor.numpy(), rtol=1e-3, atol=1e-4):
            worst = float(np.abs(found[name] - tensor.numpy()).max())
            raise ValueError(
                f"{model.name} as ONNX computes another {name}, off by {worst:.2g}: export it in another format."
            )


def usage(model: TrainedModel, path: Path) -> str:
    """Lines that run the file."""
    side = model.views.evaluation.crop
    lines = [
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({str(path)!r})",
        f"# pixels: numpy uint8 (N, {model.channels}, {side}, {side}), from 0 to 255",
    ]
    outputs = '["probabilities", "in_domain"]' if model.supports is not None else '["embedding"]'
    return "\n".join([*lines, f'print(session.run({outputs}, {{"images": pixels}}))'])
