"""Every recipe for CIFAR-10 on a CPU trains, through the same door as any user's, on images that take a second."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from run_files import rows, weights

import tapetum
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.ops.randomness import make_keys, uniform
from tapetum.recipe.files import shipped_recipes

RECIPES = [name for name in shipped_recipes() if name.endswith("cifar10_cpu")]
SHORT = ["data.batch_size=16", "trainer.steps=4", "runtime.threads=1", "data.held_out_per_class=1"]


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """200 images in the layout of CIFAR-10; runs are made beside them."""
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar10"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        rows = (uniform(make_keys(name), 40 * 3072) * 256).astype(np.uint8).reshape(40, 3072)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [i % 10 for i in range(40)]}))
    threads = torch.get_num_threads()
    yield folder
    torch.set_num_threads(threads)


def shortened(name: str) -> list[str]:
    """The recipe's overrides for 200 images."""
    recipe = tapetum.load_recipe(name)
    changes = [*SHORT]
    if recipe.data.labels_per_class:
        changes += ["data.labels_per_class=4", "support.images_per_class=2"]
    if hasattr(recipe.method, "num_prototypes"):
        changes.append(f"method.num_prototypes={[8 for _ in recipe.method.num_prototypes]}")
    if getattr(recipe.method, "queue_length", 0):
        changes.append("method.queue_length=32")
    return changes


def test_the_walk_finds_the_recipes():
    assert {"paws_cifar10_cpu", "swav_cifar10_cpu", "deepcluster_cifar10_cpu"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_resumes_and_is_evaluated(name, cifar):
    summary = tapetum.train(name, "run", [f"data.images={cifar}", f"data.test={cifar}", *shortened(name)])
    assert summary["steps"] == 4
    assert summary["test"]["nearest_neighbours"]["20"]["count"] == 40
    assert tapetum.resume("run")["test"] == summary["test"]
    assert tapetum.evaluate("run", cifar, protocol="knn").headline.top1 == summary["test_top1"]


@pytest.mark.slow
def test_the_first_bank_is_that_of_the_pool_in_any_number_of_processes(cifar):
    """Of 200 images one a class is held out. Each process embeds its share, and batch statistics are of all."""
    name = "deepcluster_cifar10_cpu"
    words = [f"data.images={cifar}", *shortened(name), "runtime.precision=float32", "trainer.log_every=1"]
    losses = {}
    for processes in (1, 2):
        run = f"of{processes}"
        words_of = ["train", name, "--output", run, *words, f"runtime.devices={processes}"]
        subprocess.run([sys.executable, "-m", "tapetum", *words_of], check=True)
        losses[processes] = [float(row["train/loss"]) for row in rows(run)]
    assert losses[1] == pytest.approx(losses[2], rel=1e-4)
    (pool,) = (tensor for key, tensor in weights("of1").items() if key.endswith("pool"))
    assert len(pool) == 190


def test_suncet_goes_on_from_paws(cifar):
    """The head is taken as well, and no statistics move."""
    small = [f"data.images={cifar}", "data.batch_size=16", "data.labels_per_class=4", "runtime.threads=1"]
    small += ["backbone.depth=10", "support.images_per_class=2"]
    tapetum.train("paws_cifar10_4000", "paws", [*small, "trainer.steps=2", "views.small.count=1"])
    tapetum.train("suncet_cifar10_after_paws", "tuned", [*small, "trainer.steps=2", "init=paws"])
    before, after = (read_weights(run) for run in ("paws", "tuned"))
    moved = {name for name in after if name.startswith("method.") and not torch.equal(before[name], after[name])}
    assert {"method.projector.fc1.weight", "method.projector.bn1.weight", "method.backbone.conv1.weight"} <= moved
    assert not any("running" in name for name in moved)
