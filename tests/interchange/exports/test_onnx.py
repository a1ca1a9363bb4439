"""ONNX files: onnxruntime computes from pixels what Tapetum computes, and new classes are new rows."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.data.views.apply import normalise
from tapetum.data.views.evaluation_views import evaluation_views
from tapetum.evaluation.embedding import Outputs
from tapetum.evaluation.prediction import Supports, predict_from
from tapetum.interchange.exports import onnx as exporting
from tapetum.interchange.exports.onnx import export_onnx, usage
from tapetum.interchange.exports.onnx_supports import add_supports
from tapetum.interchange.exports.trained_model import TrainedModel
from tapetum.nn.backbones import ResNetConfig, SmallNetConfig, TimmConfig, WideResNetConfig

onnx = pytest.importorskip("onnx", reason="onnx is an optional package")
pytest.importorskip("onnxscript", reason="torch's exporter needs onnxscript")
onnxruntime = pytest.importorskip("onnxruntime", reason="nothing else runs the files")

NAMES = [f"a {i}.png" for i in range(10)]
_written: dict[str, tuple[TrainedModel, bytes]] = {}
"""An export takes seconds, so each of these models is exported once."""


def pixels(count: int, model: TrainedModel, seed: int = 1) -> np.ndarray:
    """Noise around colours that differ, because a network of random weights tells only these apart."""
    generator, side = np.random.default_rng(seed), model.views.evaluation.crop
    colours = generator.integers(0, 226, (count, model.channels, 1, 1))
    return (colours + generator.integers(0, 30, (count, model.channels, side, side))).astype(np.uint8)


@torch.no_grad()
def outputs(model: TrainedModel, images: np.ndarray) -> Outputs:
    seen = normalise(torch.from_numpy(images), model.views.mean, model.views.std)
    return Outputs(model.method.embed(seen), model.method.classify(seen))


def spread(embeddings: torch.Tensor) -> torch.Tensor:
    """Make vectors less alike, so that no two are equally near to another."""
    return embeddings + embeddings.std() * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))


def labelled(model: TrainedModel, count: int = 10) -> TrainedModel:
    """The model with supports: vectors around the embeddings of images."""
    embeddings = spread(outputs(model, pixels(count, model, seed=0)).embeddings)
    return replace(model, supports=Supports(embeddings, torch.arange(count) % 3, 3), support_names=tuple(NAMES[:count]))


def run(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def metadata(path: Path) -> dict:
    return json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["tapetum"])


def assert_same(path: Path, model: TrainedModel, supports: Supports) -> None:
    """The file's outputs are the model's, for one image and for seven."""
    for count in (1, 7):
        images = pixels(count, model)
        found, expected = run(path, images), outputs(model, images)
        k = min(3, len(supports.labels))
        predicted = predict_from(expected, supports, model.method.predicts_by, k)
        np.testing.assert_allclose(found["probabilities"], predicted.scores.softmax(dim=1), atol=1e-5)
        np.testing.assert_array_equal(found["nearest"], predicted.neighbours)
        np.testing.assert_array_equal(found["nearest_classes"], supports.labels[predicted.neighbours])
        np.testing.assert_allclose(found["embedding"], expected.embeddings, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found["similarity"][:, 0], predicted.nearest, atol=1e-5)
        rows = torch.nn.functional.normalize(supports.embeddings, dim=1)[predicted.neighbours]
        cosines = (rows * torch.nn.functional.normalize(expected.embeddings, dim=1)[:, None]).sum(dim=2)
        np.testing.assert_allclose(found["similarity"], cosines, atol=1e-5)
        domain = model.method.in_domain(predicted.nearest)
        np.testing.assert_allclose(
            found["in_domain"], predicted.nearest.clamp(0, 1) if domain is None else domain, atol=1e-4
        )


@pytest.fixture
def ropaws(make_model, tmp_path) -> tuple[TrainedModel, Path]:
    return exported(labelled(make_model(method="ropaws")), tmp_path)


@pytest.fixture
def supervised(make_model, tmp_path) -> tuple[TrainedModel, Path]:
    return exported(labelled(make_model(method="supervised", channels=1, resize=None), count=2), tmp_path)


def exported(model: TrainedModel, folder: Path) -> tuple[TrainedModel, Path]:
    path, kind = folder / "model.onnx", type(model.method).__name__
    if kind not in _written:
        assert export_onnx(model, path) == path
        _written[kind] = model, path.read_bytes()
    path.write_bytes(_written[kind][1])
    return _written[kind][0], path


def test_soft_neighbours_are_the_same(ropaws):
    model, path = ropaws
    assert model.supports is not None
    assert_same(path, model, model.supports)


def test_a_classifier_is_the_same(supervised):
    model, path = supervised
    assert model.supports is not None
    assert_same(path, model, model.supports)  # two supports only, grey images
    assert metadata(path)["in_domain"].startswith("the cosine with the nearest support")
    assert metadata(path)["temperature"] is None


def test_a_model_without_labels_only_embeds(make_model, tmp_path):
    model = make_model(method="swav", classes=())
    path = export_onnx(model, tmp_path / "swav.onnx")
    images = pixels(7, model)
    found = run(path, images)
    assert list(found) == ["embedding"]
    np.testing.assert_allclose(found["embedding"], outputs(model, images).embeddings, rtol=1e-3, atol=1e-5)
    assert metadata(path)["classes"] == []
    with pytest.raises(ValueError, match=r"swav.onnx does not predict by labelled images, so none can be added"):
        add_supports(path, np.zeros((1, 16)), [0], ["a"])


def test_mirror_images_are_in_the_graph(make_model, tmp_path):
    """A run whose evaluation averages over mirror images predicts elsewhere as it does here."""
    model = make_model()
    evaluation = replace(model.views.evaluation, mirrored=True)
    model = labelled(replace(model, views=replace(model.views, evaluation=evaluation)))
    path = export_onnx(model, tmp_path / "out.onnx")
    images = pixels(4, model)
    here, there = outputs(model, images), outputs(model, np.ascontiguousarray(images[..., ::-1]))
    found = run(path, images)
    np.testing.assert_allclose(found["embedding"], (here.embeddings + there.embeddings) / 2, rtol=1e-3, atol=1e-5)
    logits = (here.logits + there.logits) / 2
    np.testing.assert_allclose(found["probabilities"], logits.softmax(dim=1), rtol=1e-3, atol=1e-5)
    assert metadata(path)["preprocessing"]["mirrored"] is True


def test_views_of_other_sizes_are_in_the_graph(make_model, tmp_path):
    model = make_model()
    evaluation = replace(model.views.evaluation, scales=(0.75, 1.0), mirrored=True)
    model = labelled(replace(model, views=replace(model.views, evaluation=evaluation)))
    path = export_onnx(model, tmp_path / "out.onnx")
    images = pixels(4, model)
    found, seen = run(path, images), normalise(torch.from_numpy(images), model.views.mean, model.views.std)
    views = evaluation_views(seen, evaluation)
    with torch.no_grad():
        embedding = torch.stack([model.method.embed(view) for view in views]).mean(dim=0)
        logits = torch.stack([model.method.classify(view) for view in views]).mean(dim=0)
    np.testing.assert_allclose(found["embedding"], embedding, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], logits.softmax(dim=1), rtol=1e-3, atol=1e-5)
    assert metadata(path)["preprocessing"]["scales"] == [0.75, 1.0]


def test_the_file_says_what_it_is(ropaws):
    model, path = ropaws
    about = metadata(path)
    assert (about["format"], about["name"], about["description"]) == (1, "trees", "Trained for a test.")
    assert about["preprocessing"] == {
        "channels": 3,
        "resize": 40,
        "interpolation": "bilinear",
        "antialias": True,
        "crop": 32,
        "mirrored": False,
        "scales": [1.0],
    }
    assert about["classes"] == list(model.classes)
    assert about["support_names"] == NAMES
    assert about["accuracies"] == {"30 test images": 81.25}
    assert (about["predicts_by"], about["temperature"], about["calibrated"]) == ("soft_neighbours", 0.1, False)
    assert about["in_domain"].startswith("the method's estimate")


def test_the_graph_is_plain_and_names_its_supports(ropaws):
    model, path = ropaws
    proto = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    assert [value.name for value in proto.graph.input] == ["images"]
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert model.supports is not None
    np.testing.assert_allclose(np.linalg.norm(known["supports"], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(known["support_labels"], model.supports.labels)
    np.testing.assert_array_equal(known["class_numbers"], [0, 1, 2])
    content = path.read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in content
    assert b"site-packages" not in content


def test_a_class_is_added_by_adding_rows(ropaws):
    model, path = ropaws
    images = pixels(4, model, seed=5)
    rows, labels = spread(torch.from_numpy(run(path, images)["embedding"])), [3, 3, 3, 0]
    assert add_supports(path, rows, labels, [*model.classes, "willow"], ["w0", "w1", "w2", "w3"]) == path
    assert model.supports is not None
    embeddings = torch.cat([model.supports.embeddings, rows])
    everything = Supports(embeddings, torch.cat([model.supports.labels, torch.tensor(labels)]), 4)
    assert_same(path, model, everything)
    found = run(path, images)
    assert found["probabilities"].shape == (4, 4)
    assert (found["nearest"] >= 10).any()
    about = metadata(path)
    assert about["classes"] == [*model.classes, "willow"]
    assert about["support_names"] == [*NAMES, "w0", "w1", "w2", "w3"]
    add_supports(path, rows[:1], [1], about["classes"])
    assert metadata(path)["support_names"][-1] == "added 0"
    assert run(path, images)["probabilities"].shape == (4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": np.zeros((2, 3))}, r"embeddings has the shape \(2, 3\): give \(n, 128\) finite numbers"),
        ({"embeddings": np.full((2, 128), np.nan)}, "finite numbers"),
        ({"labels": [0]}, "there are 1 labels and 0 names for 2 images: one for each"),
        ({"names": ["a"]}, "there are 2 labels and 1 names for 2 images"),
        ({"classes": ["x", "y", "z"]}, "begin with the file's own"),
        ({"labels": [0, 3]}, "labels span 0 to 3: use 0 to 2"),
        ({"path": "nowhere.onnx"}, "there is no file nowhere.onnx"),
        ({"path": "other.onnx"}, "other.onnx is no ONNX file of Tapetum"),
    ],
)
def test_rows_that_do_not_fit_are_refused(ropaws, changes, message, monkeypatch):
    model, path = ropaws
    monkeypatch.chdir(path.parent)
    Path("other.onnx").write_bytes(b"\x01nothing")
    before = path.read_bytes()
    given = {"path": path, "embeddings": np.ones((2, 128)), "labels": [0, 1], "classes": model.classes, **changes}
    with pytest.raises(ValueError, match=message) as error:
        add_supports(**given)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_a_file_that_computes_something_else_is_not_written(ropaws, monkeypatch, tmp_path):
    model, path = ropaws
    proto = onnx.load(path)
    (weight,) = [tensor for tensor in proto.graph.initializer if tensor.name.endswith("stem.bias")]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 0.5, weight.name))
    monkeypatch.setattr(exporting, "_graph_of", lambda *_: proto)
    with pytest.raises(
        ValueError, match=r"^trees as ONNX computes another \w+, off by .*: export it in another format"
    ):
        export_onnx(model, tmp_path / "wrong.onnx")
    assert not list(tmp_path.glob("wrong*"))


def test_what_cannot_be_exported_says_so(make_model, tmp_path, monkeypatch):
    model, path = labelled(make_model(method="supervised")), tmp_path / "out.onnx"
    with pytest.raises(ValueError, match=r"does not end in .onnx"):
        export_onnx(model, tmp_path / "out.bin")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(ValueError, match=r"^onnxscript is not installed: pip install 'tapetum\[onnx\]'\.$"):
            export_onnx(model, path)
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "_MOST_BYTES", 1000)
        with pytest.raises(ValueError, match=r"^trees has 0.0 GB of weights and supports, and an ONNX file holds 2 GB"):
            export_onnx(model, path)

    def fail(*arguments, **options):
        raise RuntimeError("no operator\nfor this")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(
        ValueError, match=r"^ONNX cannot express the small_net .* of trees \(no operator for this\): exp"
    ):
        export_onnx(model, path)
    assert not list(tmp_path.iterdir())


def test_the_usage_runs(ropaws, capsys):
    model, path = ropaws
    exec(usage(model, path), {"pixels": pixels(2, model)})
    assert "array" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [
        ResNetConfig(depth=18),
        WideResNetConfig(depth=28, width=2),
        SmallNetConfig(pool="max", activation="relu"),
        TimmConfig(name="resnet26d"),
        TimmConfig(name="vit_tiny_patch16_224", options={"img_size": 32, "patch_size": 8}),
    ],
    ids=lambda config: getattr(config, "name", config.kind),
)
def test_networks_of_every_kind(backbone, make_model, tmp_path):
    if isinstance(backbone, TimmConfig):
        pytest.importorskip("timm", reason="timm is an optional package")
    model = labelled(make_model(backbone, "paws"))
    assert model.supports is not None
    assert_same(export_onnx(model, tmp_path / "model.onnx"), model, model.supports)
