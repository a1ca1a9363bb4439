import json
from dataclasses import replace

import pytest
import torch
import yaml

from tapetum.interchange.exports.huggingface import export_huggingface, usage
from tapetum.nn.backbones import ResNetConfig, TimmConfig

transformers = pytest.importorskip("transformers", reason="transformers reads what is written")


def as_called(model, path):
    names = {}
    exec(usage(model, path).removesuffix('classify("photo.jpg")'), names)
    return names["classify"]


@pytest.fixture(params=["resnet", "timm"])
def model(request, make_model):
    networks = {"resnet": ResNetConfig(depth=18), "timm": TimmConfig(name="resnet10t")}
    return make_model(networks[request.param])


def test_a_pipeline_predicts_as_the_model(model, pictures, as_seen, tmp_path):
    classify = as_called(model, export_huggingface(model, tmp_path / "out"))
    images = pictures[:1]  # of the size to which images are resized; others are rounded elsewhere
    (answers,) = classify(images, top_k=None)
    with torch.no_grad():
        expected = torch.softmax(model.method.classify(as_seen(model, images))[0], dim=0)
    found = {answer["label"]: answer["score"] for answer in answers}
    assert found.keys() == set(model.classes)
    assert found == pytest.approx(dict(zip(model.classes, expected.tolist())), abs=1e-5)


def test_images_are_prepared_as_here_by_pil(resnet, pictures, as_seen, tmp_path):
    out = export_huggingface(resnet, tmp_path / "out")
    processor = transformers.AutoImageProcessor.from_pretrained(out, backend="pil")
    # Where an odd number of pixels is cut off, transformers may cut one more from the other side.
    even = [image for image in pictures if (40 * max(image.size) // min(image.size) - 32) % 4 != 3]
    assert len(even) >= 3
    seen = torch.cat([torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"]) for image in even])
    assert torch.allclose(seen, as_seen(resnet, even), atol=1e-5)


def test_bottlenecks_stride_where_ours_do(make_model, tmp_path):
    model = make_model(ResNetConfig(depth=50))
    theirs = as_called(model, export_huggingface(model, tmp_path / "out")).model
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(theirs(images).logits, model.method.classify(images), atol=1e-5)


def test_all_tensors_are_used(model, tmp_path):
    out = export_huggingface(model, tmp_path / "out")
    kind = transformers.AutoModelForImageClassification
    _, loading = kind.from_pretrained(out, output_loading_info=True)
    assert not any(loading[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not [path for path in out.iterdir() if path.suffix == ".py"]


def test_the_card_says_what_it_is(model, tmp_path):
    card = (export_huggingface(model, tmp_path / "out") / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header)["pipeline_tag"] == "image-classification"
    assert "- 81.25% of 30 test images" in text
    assert "Trained for a test." in text
    assert "resized to 40 pixels" in text
    assert all(f"- {name}\n" in text for name in model.classes)
    assert 'model="out"' in text


def test_the_card_of_a_model_that_nobody_measured(make_model, tmp_path):
    model = make_model(ResNetConfig(depth=18), resize=None)
    object.__setattr__(model, "accuracies", {})
    out = export_huggingface(model, tmp_path / "out")
    text = (out / "README.md").read_text()
    assert "Not measured" in text
    assert "Of an image the central square of 32 pixels" in text
    assert json.loads((out / "preprocessor_config.json").read_text())["do_resize"] is False


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mirrored": True}, "averaged over the mirror image of each image."),
        ({"scales": (0.8, 1.0)}, "averaged over 2 sizes of each image."),
        ({"mirrored": True, "scales": (0.8, 1.0)}, "averaged over the mirror image and 2 sizes of each image."),
        ({}, None),
    ],
)
def test_the_card_says_that_the_accuracy_is_of_averages(make_model, tmp_path, settings, words):
    model = make_model(ResNetConfig(depth=18))
    object.__setattr__(model, "views", replace(model.views, evaluation=replace(model.views.evaluation, **settings)))
    text = (export_huggingface(model, tmp_path / "out") / "README.md").read_text()
    assert ("an image once" in text) == (words is not None)
    assert words is None or words in text


def test_grey_networks_are_refused(make_model, tmp_path):
    with pytest.raises(ValueError, match=r"takes images of 1 channel, .*choose --format timm"):
        export_huggingface(make_model(TimmConfig(name="resnet10t"), channels=1), tmp_path / "out")
