"""The ladder of ingredients runs, at sizes too small to say anything, and its parts are as in their papers."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from tapetum.ops.randomness import make_keys

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("ingredients", "ingredients_data", "ingredients_parts", "ingredients_rungs", "ingredients_training")
CLASSES, IMAGES = 3, 12
TINY = {"images": 4, "supports_per_class": 2, "widths": (8, 8, 8), "size": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one colour for each class, with noise."""
    root = tmp_path_factory.mktemp("images") / "train"
    for c in range(CLASSES):
        (root / f"class{c}").mkdir(parents=True)
        for i in range(IMAGES):
            noise = np.random.default_rng(100 * c + i).integers(0, 60, (32, 32, 3))
            picture = (noise + 180 * (np.arange(3) == c)).astype(np.uint8)
            Image.fromarray(picture).save(root / f"class{c}" / f"{i}.png")
    return root


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_thread: None) -> Iterator[dict[str, ModuleType]]:
    """The script and its parts, with tiny networks; matrix peaks, which take seconds, are made up."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    known = set(sys.modules)
    found = {name: importlib.import_module(name) for name in MODULES}
    rungs = found["ingredients_rungs"]
    for name in ("MANY_LABELS", "FEW_LABELS"):
        monkeypatch.setattr(rungs, name, replace(getattr(rungs, name), **TINY))
    monkeypatch.setattr(found["ingredients"], "matrix_peak", lambda dtype, repeats: 80.0)
    yield found
    for name in (*MODULES, "matrix_peak", "side_by_side"):
        if name not in known:
            sys.modules.pop(name, None)


@pytest.fixture
def pool(modules, folder: Path):
    return modules["ingredients_data"].open_pool(folder, 6, 4)


def run(modules, monkeypatch: pytest.MonkeyPatch, folder: Path, path: Path, *arguments: str) -> dict:
    parts = ["--images", str(folder), "--labels", "6", "--json", str(path), *arguments]
    monkeypatch.setattr(sys, "argv", ["ingredients.py", *parts])
    modules["ingredients"].main()
    return json.loads(path.read_text())


def test_every_rung_is_trained_for_the_same_work_and_judged(modules, monkeypatch, folder, tmp_path, capsys) -> None:
    rungs = modules["ingredients_rungs"]
    found = run(modules, monkeypatch, folder, tmp_path / "new" / "6.json", "--quick", "--budget", "0.6")
    assert list(found["rungs"]) == rungs.rungs_for(6)
    floors = (rungs.PIXELS, rungs.UNTRAINED)
    for name, rung in found["rungs"].items():
        (measured,) = rung["runs"]
        assert measured["matrix_gflops"] == {"before": {"float32": 80.0}, "after": {"float32": 80.0}}
        assert all(0 <= top1 <= 100 for top1 in measured["top1"]["plain"].values())
        assert measured["steps"] == 0 if name in floors else measured["steps"] >= 1
        assert set(measured["top1"]) == {"plain"} if name == rungs.PIXELS else {"plain", "mirrored"}
        assert ("pseudo_labels" in measured) <= (rung["settings"]["unlabelled"] == "pseudo_labels")
    assert found["rungs"][rungs.PIXELS]["runs"][0]["top1"]["plain"]["nearest_neighbours"] == 100
    assert f"1 of {len(found['rungs'])}  {rungs.PIXELS} (seed 0): nearest_neighbours 100.00" in capsys.readouterr().out


def test_a_later_call_adds_what_is_missing(modules, monkeypatch, folder, tmp_path) -> None:
    path, common = tmp_path / "6.json", ("--quick", "--budget", "4")
    first = run(modules, monkeypatch, folder, path, *common, "--rungs", "PAWS")
    trained: list[tuple[str, int]] = []
    train = modules["ingredients"].train

    def noted(pool, name, labels, seed, budget):
        trained.append((name, seed))
        return train(pool, name, labels, seed, budget)

    monkeypatch.setattr(modules["ingredients"], "train", noted)
    then = run(modules, monkeypatch, folder, path, *common, "--rungs", "PAWS,labels alone", "--seeds", "0,1")
    assert trained == [("labels alone", 0), ("PAWS", 1), ("labels alone", 1)]
    assert list(then["rungs"]) == ["labels alone", "PAWS"]  # in the order of the ladder
    assert then["rungs"]["PAWS"]["runs"][0] == first["rungs"]["PAWS"]["runs"][0]
    with pytest.raises(SystemExit, match=r"6\.json was measured with budget 4\.0, not 5\.0: name another --json"):
        run(modules, monkeypatch, folder, path, "--quick", "--budget", "5")


def test_a_rung_with_other_settings_is_trained_again(modules, monkeypatch, folder, tmp_path) -> None:
    path, arguments = tmp_path / "6.json", ("--quick", "--budget", "4", "--rungs", "PAWS")
    run(modules, monkeypatch, folder, path, *arguments)
    rungs = modules["ingredients_rungs"]
    monkeypatch.setattr(rungs, "FEW_LABELS", replace(rungs.FEW_LABELS, lr=0.1))
    found = run(modules, monkeypatch, folder, path, *arguments)
    assert found["rungs"]["PAWS"]["settings"]["lr"] == 0.1
    assert len(found["rungs"]["PAWS"]["runs"]) == 1


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("--labels", "7"), "labels is 7: give a multiple of 3"),
        (("--rungs", "PAW"), "--rungs names 'PAW': choose from"),
        (("--labels", "90"), "request at most 7"),
    ],
)
def test_wrong_arguments_are_told(modules, monkeypatch, folder, tmp_path, capsys, arguments, told) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(modules, monkeypatch, folder, tmp_path / "6.json", "--quick", *arguments)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_images_that_judge_are_used_for_nothing_else(modules, pool) -> None:
    assert len(pool.judged) == 4 * CLASSES
    others = np.setdiff1d(np.arange(CLASSES * IMAGES), pool.judged)
    assert set(pool.unlabelled(len(others), 0, 0)) == set(others)
    assert set(pool.supports(True, IMAGES - 4, 0, 0)) == set(others)
    chosen = [pool.supports(False, 2, 0, step) for step in range(3)]
    assert all(list(pool.truth[indices]) == [0, 0, 1, 1, 2, 2] for indices in chosen)
    assert {tuple(sorted(indices)) for indices in chosen} == {tuple(pool.chosen.labelled)}


def test_rungs_are_one_change_from_the_recipes(modules) -> None:
    rungs = modules["ingredients_rungs"]
    assert not any("," in name for name in rungs.RUNGS)  # which divides them on the command line
    many, few = (rungs.settings_of("PAWS", labels) for labels in (4000, 250))
    assert many == rungs.MANY_LABELS
    assert few == rungs.FEW_LABELS
    first = rungs.settings_of(rungs.FIRST, 4000)
    assert rungs.settings_of("FixMatch", 4000) == replace(
        first, unlabelled="pseudo_labels", view="strong", gate="fixmatch"
    )
    strong = {"strong views", "strong supports", "strong supports and teacher"}
    assert strong == set(rungs.rungs_for(4000)) - set(rungs.rungs_for(250))
    mild = {"milder views", "mild supports", "mild supports for middle views"}
    assert mild == set(rungs.rungs_for(250)) - set(rungs.rungs_for(4000))


def test_work_is_counted_in_passes_pixels_and_multiplications(modules) -> None:
    rungs = modules["ingredients_rungs"]
    settings = rungs.Settings(size=24, images=30, supports_per_class=4, start=0.5)
    assert settings.step_cost(0.4, 10) == 40
    assert settings.step_cost(0.5, 10) == 40 + 60
    assert replace(settings, unlabelled="pseudo_labels").step_cost(0.5, 10) == 40 + 40
    both = replace(settings, unlabelled="pseudo_labels", both_sides=True)
    assert both.step_cost(0.5, 10) == 40 + 50
    whole = replace(settings, unlabelled="pseudo_labels", whole=True, size=20)  # judged by 28 pixels
    assert whole.step_cost(0.5, 10) == pytest.approx((40 + 30 + 10 * 1.96) * (20 / 24) ** 2)
    assert replace(settings, rotations=0.5).step_cost(0.4, 10) == 40 + 30
    assert replace(settings, size=12).step_cost(0.4, 10) == 10
    assert replace(settings, size=24, first_size=(0.3, 12)).step_cost(0.2, 10) == 10
    wider = replace(settings, widths=(64, 128, 128)).step_cost(0.4, 10)
    assert 3 * 40 < wider < 4 * 40  # both dimensions of most matrices double
    assert settings.steps_for(7000, 10) == 100


def test_gates_weigh_as_in_their_papers(modules) -> None:
    parts = modules["ingredients_parts"]
    sure, fair, unsure = [0.97, 0.02, 0.01], [0.3, 0.6, 0.1], [0.4, 0.3, 0.3]
    probabilities = torch.tensor([sure, fair, unsure])
    assert parts.make_gate("confidence", 3)(probabilities).tolist() == pytest.approx([0.97, 0.6, 0.4])
    assert parts.make_gate("fixmatch", 3)(probabilities).tolist() == [1, 0, 0]
    free, soft = (parts.make_gate(name, 3) for name in ("freematch", "softmatch"))
    for _ in range(800):  # until the running means are those of this batch
        weights, smooth = free(probabilities), soft(probabilities)
    # thresholds: mean confidence 0.66 times each class's mean probability over the largest: 0.66, 0.36, 0.16
    assert weights.tolist() == [1, 1, 0]
    largest = np.array([0.97, 0.6, 0.4])
    below = np.minimum(largest - largest.mean(), 0)
    assert smooth.tolist() == pytest.approx(np.exp(-(below**2) / (2 * (largest.std(ddof=1) / 2) ** 2)), rel=1e-3)
    assert parts.make_gate("freematch", 3)(torch.tensor([[0.2, 0.6, 0.2]])).tolist() == [1]  # it begins low


def test_alignment_evens_the_classes(modules) -> None:
    probabilities = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
    align = modules["ingredients_parts"].Alignment(2)
    for _ in range(800):
        found = align(probabilities)
    ratios = probabilities / torch.tensor([0.7, 0.3])
    torch.testing.assert_close(found, ratios / ratios.sum(dim=1, keepdim=True), rtol=1e-3, atol=0)


def test_whitened_patches_have_no_correlation(modules) -> None:
    parts = modules["ingredients_parts"]
    torch.manual_seed(0)
    images = torch.randn(20, 3, 9, 9).cumsum(dim=2).cumsum(dim=3)
    stem = torch.nn.Conv2d(3, 24, 2)
    parts.whiten(stem, images, eps=0.0)
    rows = stem(images).detach().transpose(0, 1).flatten(1)
    torch.testing.assert_close(rows[:12] @ rows[:12].T / rows.shape[1], torch.eye(12), atol=1e-2, rtol=0)
    torch.testing.assert_close(rows[:12], -rows[12:])
    assert not stem.weight.requires_grad


def test_an_average_follows_and_forgets_its_start(modules) -> None:
    model = torch.nn.BatchNorm1d(1)
    average = modules["ingredients_parts"].Average(model, 0.5)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(2.0)
    average.update(model)  # keeps 1 / 11
    assert average.model.weight.item() == pytest.approx(1 / 11 + 3 * 10 / 11)
    assert average.model.running_mean.item() == pytest.approx(2 * 10 / 11)
    for _ in range(20):
        before = average.model.weight.item()
        average.update(model)
    assert average.model.weight.item() == pytest.approx((before + 3) / 2)


def test_cutout_removes_a_square(modules) -> None:
    views = torch.ones(200, 3, 20, 20)
    found = modules["ingredients_parts"].cutout(views, 0.5, make_keys(0, "cutout", np.arange(200)))
    cut = (found == 0).all(dim=1)
    assert bool(((found == 0).any(dim=1) == cut).all())  # all channels or none
    rows, columns = cut.any(dim=2).sum(dim=1), cut.any(dim=1).sum(dim=1)
    assert bool((cut.sum(dim=(1, 2)) == rows * columns).all())  # a rectangle
    assert {int(rows.max()), int(columns.max())} <= {9, 10}
    assert len(set(rows.tolist())) > 3  # some reach over the border


def test_half_of_the_views_are_warped_about_their_middle(modules) -> None:
    keys = make_keys(0, "warp", np.arange(100))
    columns = torch.linspace(-1, 1, 21).expand(100, 1, 21, 21)  # each pixel's value is its place from left to right
    found = modules["ingredients_parts"].warp(columns, 30.0, keys)
    kept = (found - columns).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert 35 < int(kept.sum()) < 65
    assert float(found[:, 0, 10, 10].abs().max()) < 1e-5  # the middle stays
    across = found[:, 0, 9:12, 9:12].diff(dim=2).mean(dim=(1, 2)) * 10  # 1 before; cos and shear change it
    down = found[:, 0, 9:12, 9:12].diff(dim=1).mean(dim=(1, 2)) * 10  # 0 before
    assert float((across - 1).abs().max()) < 0.3  # 1 - cos 30 degrees, and 0.3 sin 30 degrees
    assert 0.3 < float(down.abs().max()) < 0.8  # sin 30 degrees, and 0.3 cos 30 degrees
    assert modules["ingredients_parts"].warp(columns, 30.0, keys).equal(found)


def test_views_are_turned_by_quarters(modules) -> None:
    views = torch.randn(6, 3, 4, 4)
    found, turns = modules["ingredients_parts"].quarter_turns(views)
    assert turns.tolist() == [0, 1, 2, 3, 0, 1]
    assert found[4].equal(views[4])
    assert found[2].equal(views[2].flip(1, 2))
    assert found[1, :, 0].equal(views[1, :, :, -1])  # the right edge comes to the top


def test_mixing_mixes_images_and_what_is_learned_of_them(modules, pool) -> None:
    rungs, training = modules["ingredients_rungs"], modules["ingredients_training"]
    views, targets = torch.eye(12)[:, :, None, None].repeat(1, 1, 2, 2), torch.eye(12)
    for name, least in (("mixed labels", 0.0), ("mixed images", 0.5)):
        run = training.Training(pool, rungs.settings_of(name, 6), 0, 4.0)
        mixed, wanted = run._mixed(views, targets, 0)
        assert mixed.mean(dim=(2, 3)).allclose(wanted)
        assert wanted.sum(dim=1).allclose(torch.ones(12))
        assert float(wanted.diagonal().min()) >= least
        assert float(wanted.diagonal().min()) < 0.9


def test_smaller_views_come_first(modules, pool, monkeypatch) -> None:
    """And what a step shows the network is what its work was counted as."""
    training = modules["ingredients_training"]
    sizes: list[tuple[int, int]] = []
    forward = training.Learner.forward

    def noted(self, views):
        sizes.append((len(views), views.shape[-1]))
        return forward(self, views)

    monkeypatch.setattr(training.Learner, "forward", noted)
    settings = replace(modules["ingredients_rungs"].settings_of("labels first", 6), first_size=(0.75, 8))
    run = training.Training(pool, settings, seed=0, budget=4.0)
    run.run()
    supports, all_views = (6, 8), (6 + 2 * 4, 8)
    first, last = round(0.6 * run.steps), run.steps - round(0.75 * run.steps)
    assert run.steps > 8
    assert abs(sizes.count(supports) - first) <= 1
    assert abs(sizes.count((14, 12)) - last) <= 1
    assert sizes.count(all_views) == run.steps - sizes.count(supports) - sizes.count((14, 12))


def test_a_teacher_labels_and_an_average_is_judged(modules, pool) -> None:
    rungs, training = modules["ingredients_rungs"], modules["ingredients_training"]
    averaged = training.Training(pool, rungs.settings_of("averaged weights", 6), 0, 4.0)
    assert averaged.judged is not averaged.learner
    taught = training.Training(pool, rungs.settings_of("averaged teacher", 6), 0, 8.0)
    assert taught.judged is taught.learner
    told = taught.run()
    assert 0 < told["pseudo_labels"]["weight"] <= 1
    assert 0 <= told["pseudo_labels"]["right"] <= 1
    teacher = next(iter(taught.averages.values())).model
    assert not torch.equal(teacher.classifier.weight, taught.learner.classifier.weight)


def test_learning_is_repeatable_and_learns(modules, pool) -> None:
    rungs, training = modules["ingredients_rungs"], modules["ingredients_training"]
    settings = replace(
        rungs.settings_of("labels alone", 6), support_view="mild", lr=0.05
    )  # they differ in colour alone

    def learned(budget: float):
        run = training.Training(pool, settings, seed=0, budget=budget)
        run.run()
        return training.judge(run.judged, pool, settings), run.learner.classifier.weight

    (found, weights), (again, same) = learned(10.0), learned(10.0)
    assert found == again
    assert torch.equal(weights, same)
    assert found["plain"]["classifier"] > 90
