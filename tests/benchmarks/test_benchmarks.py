"""The benchmarks run, at sizes too small to say anything about speed, and both ways compute the same loss."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from tapetum.data.batch import Batch, Views
from tapetum.losses.paws import paws_loss
from tapetum.methods.base import Progress
from tapetum.methods.paws import PAWS, PAWSConfig
from tapetum.nn.wide_resnet import WideResNet, WideResNetConfig
from tapetum.ops.randomness import make_keys, uniform
from tapetum.optim.optimizers import build_optimizer, set_schedules
from tapetum.recipe.recipe import load_recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


PEAKS = {"float32": 80.0, "bfloat16": 200.0, "float32_per_cpu_second": 80.0, "bfloat16_per_cpu_second": 200.0}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of benchmarks/; matrix peaks, which take seconds, are made up."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    known = set(sys.modules)

    def load_module(name: str) -> ModuleType:
        module = importlib.import_module(name)
        if hasattr(module, "peaks"):
            monkeypatch.setattr(module, "peaks", lambda threads: PEAKS)
        return module

    yield load_module
    for name in (
        "doctor",
        "layers",
        "matrix_peak",
        "parts",
        "side_by_side",
        "speed_of_light",
        "step",
        "usual",
        "views",
        "views_on_disk",
    ):
        if name not in known:
            sys.modules.pop(name, None)


@pytest.fixture
def usual(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("usual")


def run_main(module: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object]) -> None:
    parts = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["benchmark", *parts])
    module.main()


def test_views_are_compared(load, monkeypatch, tmp_path: Path, capsys) -> None:
    views, threads = load("views"), torch.get_num_threads()

    def measured_here(script: Path, arguments: Sequence[str], threads: int) -> object:
        return views.measure(arguments[1], int(arguments[3]))

    monkeypatch.setattr(load("side_by_side"), "in_own_process", measured_here)
    try:
        run_main(views, monkeypatch, {"images": 16, "rounds": 1, "json": tmp_path / "views.json"})
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "views.json").read_text())
    assert set(found["rounds"]) == {"usual", "exact", "matrix"}
    assert found["ratio_to_usual"]["usual"]["images_per_cpu_second"] == 1
    assert found["ratio_to_usual"]["exact"]["images_per_cpu_second"] > 0
    assert "ratio to usual" in capsys.readouterr().out


def test_views_of_files_are_compared(load, monkeypatch, tmp_path: Path) -> None:
    views, threads = load("views_on_disk"), torch.get_num_threads()
    for number, picture in enumerate(load("side_by_side").photographs(3)):
        Image.fromarray(picture).resize((150, 120)).save(tmp_path / f"{number}.jpg")

    def measured_here(script: Path, arguments: Sequence[str], threads: int) -> object:
        return views.measure(arguments[1], sorted(tmp_path.glob("*.jpg")))

    monkeypatch.setattr(load("side_by_side"), "in_own_process", measured_here)
    try:
        run_main(views, monkeypatch, {"images": tmp_path, "rounds": 1, "json": tmp_path / "views.json"})
    finally:
        torch.set_num_threads(threads)
    rounds = json.loads((tmp_path / "views.json").read_text())["rounds"]
    parts = {"decode_ms", "geometry_ms", "colour_ms"}
    assert {way: parts & set(found[0]) for way, found in rounds.items()} == {
        "usual": set(),
        "exact": parts,
        "matrix": parts,
        "fast": parts,
        "cut": {"decode_ms", "geometry_ms"},
        "fast_cut": {"decode_ms", "geometry_ms"},
    }


def test_parts_of_a_step_add_up_to_it(load, monkeypatch, tmp_path: Path, capsys) -> None:
    light, threads = load("speed_of_light"), torch.get_num_threads()
    small = ["data.batch_size=8", "support.images_per_class=2", "backbone.widths=[8,8,8]"]
    monkeypatch.setitem(light.RECIPES, "paws_cifar10_cpu", small)
    arguments = {"recipes": "paws_cifar10_cpu", "steps": 3, "threads": 1, "json": tmp_path / "light.json"}
    try:
        run_main(light, monkeypatch, arguments)
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "light.json").read_text())["recipes"]["paws_cifar10_cpu"]
    assert sum(found["parts"].values()) == pytest.approx(found["step_seconds"])
    assert {"draw", "crop", "colour", "backbone", "heads and loss", "backward", "optimiser"} <= set(found["parts"])
    assert found["gflop_per_step"] > 0
    assert "GFLOP/s in " in capsys.readouterr().out  # bfloat16 where there are units for it


def test_every_convolution_of_a_step_is_timed(load, monkeypatch, tmp_path: Path, capsys) -> None:
    layers, threads = load("layers"), torch.get_num_threads()
    small = ["data.batch_size=8", "support.images_per_class=2", "backbone.widths=[8,8,8]"]
    monkeypatch.setitem(load("speed_of_light").RECIPES, "paws_cifar10_cpu", small)
    arguments = {"recipes": "paws_cifar10_cpu", "repeats": 1, "threads": 1, "json": tmp_path / "layers.json"}
    try:
        run_main(layers, monkeypatch, arguments)
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "layers.json").read_text())["recipes"]["paws_cifar10_cpu"]
    names = [row["layer"] for row in found["layers"]]
    assert {"2x2, 3 to 24", "3x3, 24 to 8", "3x3, 8 to 8"} == set(names)
    stem = next(row for row in found["layers"] if row["layer"] == "2x2, 3 to 24")
    batch, _, height, width = stem["shape"][:4]
    assert stem["gflop"] == pytest.approx(2 * 2 * batch * (height - 1) * (width - 1) * 3 * 24 * 4 / 1e9)
    assert found["gflop"] == pytest.approx(sum(row["calls"] * row["gflop"] for row in found["layers"]))
    assert "of the peak, if nothing else took any time" in capsys.readouterr().out


@pytest.mark.slow
def test_steps_are_compared(load, monkeypatch, tmp_path: Path, capsys) -> None:
    """In processes of their own, whose peak memory is theirs."""
    sizes = {"fraction": 64, "depth": 10, "width": 1, "threads": 1, "steps": 1, "warmup": 1, "rounds": 1}
    run_main(load("step"), monkeypatch, {**sizes, "json": tmp_path / "step.json"})
    found = json.loads((tmp_path / "step.json").read_text())
    assert set(found["rounds"]) == {"usual", "ours"}
    for way in found["rounds"].values():
        assert way[0]["peak_memory_mb"] > 0
        assert way[0]["images_per_second"] > 0
    assert found["floor"]["step_seconds"] > 0
    printed = capsys.readouterr().out
    assert "peak memory" in printed
    assert "of the floor" in printed


@pytest.mark.slow
def test_the_doctors_share_of_a_step(load, monkeypatch, tmp_path: Path, capsys) -> None:
    """Everything that is there for the doctor is timed, and nothing stays patched."""
    threads, norm = torch.get_num_threads(), torch.nn.utils.get_total_norm
    arguments = {"steps": 14, "threads": 1, "recipes": "suave", "json": tmp_path / "doctor.json"}
    try:
        run_main(load("doctor"), monkeypatch, arguments)
    finally:
        torch.set_num_threads(threads)
    cost = json.loads((tmp_path / "doctor.json").read_text())["methods"]["suave"]
    assert set(cost["parts"]) == {"spread", "code_metrics", "mean_norm", "get_total_norm", "on_steps"}
    assert 0 < cost["share"] == pytest.approx(sum(cost["parts"].values()))
    assert "doctor" in capsys.readouterr().out
    assert torch.nn.utils.get_total_norm is norm


def _network() -> PAWS:
    torch.manual_seed(0)
    backbone = WideResNet(WideResNetConfig(depth=10, width=1))
    return PAWS(PAWSConfig(), backbone, num_classes=10, num_images=100)


def _pictures(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))


def test_the_usual_loss_and_update_are_ours(usual: ModuleType) -> None:
    """The same batch, the same weights: the benchmark compares two ways of doing one thing."""
    large, small, supports = _pictures(8, 32), _pictures(24, 18), _pictures(20, 32).flip(0)
    labels = torch.arange(10)
    method = _network()
    batch = Batch(
        views=Views((large, small), (2, 6)),
        index=torch.arange(4),
        support=Views((supports,), (2,)),
        support_labels=labels,
        support_classes=torch.arange(10),
    )
    config = load_recipe("paws_cifar10_4000").optimizer
    optimizer = build_optimizer(config, method)
    set_schedules(optimizer, config, step=0, steps_per_epoch=1, total_steps=100)
    loss = method(batch, Progress(0, 1, 1)).loss
    loss.backward()
    optimizer.step()

    other = _network()
    network = torch.nn.Sequential(other.backbone, other.projector)
    views = [*large.split(4), *small.split(4)]
    plain = usual.usual_loss(network, list(supports.split(10)), labels, views)
    plain.backward()
    usual.UsualLARS(network).step()
    torch.testing.assert_close(plain, loss, rtol=1e-5, atol=1e-5)
    for (name, mine), (_, theirs) in zip(method.named_parameters(), other.named_parameters()):
        torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-5, msg=name)


def test_support_sets_have_every_class_equally_often(usual: ModuleType) -> None:
    for batch in usual.class_batches(100, 3, 4):
        assert sorted(index % 10 for index in batch) == sorted(list(range(10)) * 3)
        assert len(set(batch)) == 30


def test_usual_targets_follow_the_paper(usual: ModuleType) -> None:
    """On plain vectors, without a network: the benchmark's loss is `losses.paws`."""
    generator = torch.Generator().manual_seed(1)
    supports, large, small = (torch.randn(n, 5, generator=generator) for n in (20, 8, 24))
    labels = torch.arange(10)
    views = [*large.split(4), *small.split(4)]
    plain = usual.usual_loss(torch.nn.Identity(), list(supports.split(10)), labels, views)
    one_hot = torch.nn.functional.one_hot(labels, 10).float().repeat(2, 1) * 0.9 + 0.01
    first, second = large.split(4)
    terms = paws_loss(torch.cat([large, small]), supports, one_hot, torch.cat([second, first]), supports, 6, 0.1, 0.25)
    torch.testing.assert_close(plain, sum(terms), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["train", "fit"])
def test_a_run_is_recorded(way, load, tmp_path, monkeypatch, one_thread):
    """With the command that repeats it, and no path of this machine."""
    monkeypatch.chdir(tmp_path)
    record_run = load("record_run")
    monkeypatch.setattr(record_run, "RESULTS", tmp_path / "results")
    images = (uniform(make_keys("recorded"), 40 * 100) * 255).astype(np.uint8).reshape(40, 10, 10)
    (tmp_path / "pixels").mkdir()
    np.savez(tmp_path / "pixels/noise.npz", x_train=images, y_train=np.arange(40) % 2)
    data = tmp_path / "pixels/noise.npz"
    if way == "train":
        arguments = ["paws_digits", [f"data.images={data}", "data.test=null", "trainer.steps=2", "data.batch_size=8"]]
        expected = "tapetum train paws_digits --output runs/tiny data.images=noise.npz data.test=null trainer.steps=2"
        expected += " data.batch_size=8"
    else:
        arguments = ["fit", [f"images={data}", "labels_per_class=4", "steps=2", "data.batch_size=8"]]
        expected = "tapetum fit --output runs/tiny --images noise.npz --labels-per-class 4 --steps 2 data.batch_size=8"
    path = record_run.record("tiny", *arguments)
    recorded = json.loads(path.read_text())
    assert recorded["command"] == expected
    assert recorded["summary"]["steps"] == 2
    assert str(tmp_path) not in path.read_text()


def test_what_a_run_started_from_is_recorded_with_it(load, tmp_path, monkeypatch, one_thread):
    """As its minutes count, too; a start from anything else has no record."""
    monkeypatch.chdir(tmp_path)
    record_run = load("record_run")
    monkeypatch.setattr(record_run, "RESULTS", tmp_path / "results")
    images = (uniform(make_keys("recorded"), 40 * 100) * 255).astype(np.uint8).reshape(40, 10, 10)
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=np.arange(40) % 2)
    settings = [f"data.images={tmp_path}/noise.npz", "data.test=null", "trainer.steps=2", "data.batch_size=8"]
    first = json.loads(record_run.record("speedrun/first", "paws_digits", settings).read_text())
    path = record_run.record("second", "paws_digits", [*settings, f"init={tmp_path}/runs/speedrun/first"])
    second = json.loads(path.read_text())
    assert second["recipe"]["init"] == "runs/speedrun/first"
    assert second["command"].endswith(" init=runs/speedrun/first")
    assert second["started_from"] == {key: first[key] for key in second["started_from"]}
    assert {"cpu_seconds", "matrix_gflops", "summary"} <= second["started_from"].keys()
    (tmp_path / "results/speedrun/first.json").unlink()
    third = record_run.record("third", "paws_digits", [*settings, "init=runs/speedrun/first"])
    assert "started_from" not in json.loads(third.read_text())
    assert "started_from" not in first
