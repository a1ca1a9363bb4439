"""`tapetum export` on runs: what goes into a model, what is printed, and what is refused."""

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import tapetum
from tapetum.cli.main import main
from tapetum.runs.trained_model import trained_model
from tapetum.runs.trained_run import open_trained_run


@pytest.fixture
def classifier_run(recipe):
    tapetum.train(recipe, "classified", ["method={kind: supervised}", "trainer.steps=2"])
    return recipe.parent / "classified"


def header(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["tapetum"])


def test_a_run_is_exported_with_all_about_it(classifier_run, capsys):
    assert tapetum.export(classifier_run, "out.safetensors", format="safetensors").name == "out.safetensors"
    said = capsys.readouterr().out
    assert said.startswith("Exported classified as safetensors: out.safetensors\n")
    assert "load_file('out.safetensors')" in said
    assert said.endswith(f"Next: tapetum predict {classifier_run} DIR --output predictions.csv\n")
    about = header("out.safetensors")
    assert about["classes"] == ["0", "1", "2"]
    assert about["preprocessing"]["mean"] == [0.4, 0.4, 0.4]
    assert set(about["accuracies"]) == {"30 test images", "12 held-out labels"}
    summary = json.loads((classifier_run / "summary.json").read_text())
    assert about["accuracies"]["30 test images"] == summary["test_top1"]
    assert "method supervised, 2 steps, 48 images, 9 of them with labels" in about["description"]
    weights = open_trained_run(classifier_run).checkpoint.part("method")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_file("out.safetensors").items())


def test_images_of_other_sizes_are_resized_to_the_pools(run):
    """As `predict` does: the recipe itself names no size."""
    trained = open_trained_run(run)
    assert trained.parts.recipe.views.evaluation.resize is None
    assert trained_model(trained, with_supports=False).views.evaluation.resize == 10


def test_supports_are_embedded_for_formats_that_hold_them(run):
    trained = open_trained_run(run)
    expected = trained.supports
    model = trained_model(open_trained_run(run), with_supports=True)
    assert torch.equal(model.supports.embeddings, expected.embeddings)
    assert model.support_names == tuple(trained.all_labels.names[i] for i in trained.all_labels.labelled)
    assert trained_model(trained, with_supports=False).supports is None


def test_a_model_is_in_float32_and_evaluation_mode(classifier_run):
    trained = open_trained_run(classifier_run)
    trained.parts.method.double().train()
    method = trained_model(trained, with_supports=False).method
    assert {tensor.dtype for tensor in method.parameters()} == {torch.float32}
    assert not any(module.training for module in method.modules())


def test_an_unfinished_run_has_no_accuracies(classifier_run, capsys):
    summary = classifier_run / "summary.json"
    (classifier_run / "recipe.yaml").write_text(
        (classifier_run / "recipe.yaml").read_text().replace("steps: 2\n", "steps: 4\n")
    )
    assert "test_top1" in summary.read_text()
    tapetum.export(classifier_run, "out.safetensors", format="safetensors")
    assert "has not finished: these are its weights after step 2" in capsys.readouterr().out
    assert header("out.safetensors")["accuracies"] == {}


def test_accuracies_of_other_classes_or_labels_are_left_out(run, capsys):
    def accuracies():
        return trained_model(open_trained_run(run), with_supports=False).accuracies

    assert set(accuracies()) == {"30 test images", "12 held-out labels"}
    recipe, pictures = run / "recipe.yaml", run.parent / "grey"
    own = recipe.read_text()
    recipe.write_text(own.replace("label_seed: 0", "label_seed: 1"))
    assert accuracies() == {}
    recipe.write_text(own)
    pictures.mkdir()
    Image.new("RGB", (10, 10), (90, 90, 90)).save(pictures / "0.png")
    capsys.readouterr()
    tapetum.add_class(run, pictures)
    assert accuracies() == {}
    assert "are left out, as its labels or classes have changed since training" in capsys.readouterr().err


def test_a_method_without_classifier_gives_features(recipe, capsys):
    tapetum.train(recipe, "alone", ["method={kind: simclr}", "support=null", "trainer.steps=1"])
    capsys.readouterr()
    tapetum.export("alone", "alone-hub", format="torch.hub")
    assert "Next: tapetum predict" in capsys.readouterr().out
    assert torch.hub.load("alone-hub", "model", source="local", trust_repo=True).classes == ()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--format", "torchvison", "--output", "new.pth"], "(did you mean torchvision?)"),
        (["--format", "torch.hub", "--output", "."], "cannot be replaced by what is written"),
        (["--format", "torch.hub", "--output", "run"], "run is not empty: give another --output."),
        (["--format", "safetensors", "--output", "colours.npz"], "colours.npz exists already"),
        (["--format", "safetensors", "--output", "new.pt"], "new.pt does not end in .safetensors"),
        (["--format", "huggingface", "--output", "new"], "choose --format torch.hub"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(run, arguments, message, capsys):
    before = sorted(run.parent.iterdir())
    with pytest.raises(SystemExit) as stop:
        main(["export", str(run), *arguments])
    said = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert said[-1].startswith("tapetum: error: ")
    assert message in said[-1]
    assert sorted(run.parent.iterdir()) == before


def test_an_empty_folder_is_taken(run):
    (run.parent / "new").mkdir()
    tapetum.export(run, "new", format="torch.hub")
    assert (run.parent / "new" / "hubconf.py").is_file()


def test_photographs_that_are_shrunk_are_mentioned(classifier_run, capsys):
    recipe = classifier_run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("shrink_to: null", "shrink_to: 256"))
    tapetum.export(classifier_run, "out.safetensors", format="safetensors")
    assert "shrinks photographs to 256 pixels" in capsys.readouterr().err
