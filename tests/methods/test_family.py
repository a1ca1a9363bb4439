"""What holds for every method of the family: it learns, and processes share its work rightly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from tapetum.engine.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


def test_training_lowers_the_loss_and_keeps_the_embedding_alive(family, kind):
    run = family.trainer(kind, None, 40)
    losses = family.losses_of(run.method)
    run.fit()
    assert torch.stack(losses[-8:]).mean() < torch.stack(losses[:8]).mean()
    images = family.batch_of(0).views.groups[0]
    assert (run.method.eval().embed(images).std(0) > 1e-3).any()


def test_embedding_and_classifying_at_once_changes_no_bit(family, kind):
    method = family.trainer(kind, None, 1).method.eval()
    images, passes = family.batch_of(0).views.groups[0], []
    hook = method.backbone.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        embeddings, logits = method.embed_and_classify(images)
        hook.remove()
        assert torch.equal(embeddings, method.embed(images))
        expected = method.classify(images)
    assert (logits is None) == (expected is None)
    assert logits is None or torch.equal(logits, expected)
    assert len(passes) == 1


Ranks = list[tuple[dict[str, Tensor], dict[str, Tensor]]]
"""Losses and weights, and local state, of each process."""


@pytest.fixture(scope="session")
def folder_of(family, tmp_path_factory) -> Callable[[int], Path]:
    """Number of processes -> what they left. They are started once for all methods."""
    folders: dict[int, Path] = {}

    def folder(processes: int) -> Path:
        if processes not in folders:
            folders[processes] = tmp_path_factory.mktemp(f"{processes} processes")
            environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
            command = [sys.executable, family.__file__, "compare", str(folders[processes]), str(processes)]
            subprocess.run(command, env=environment, check=True, timeout=300)
        return folders[processes]

    return folder


@pytest.fixture(scope="session")
def trained_in(folder_of) -> Callable[[int, str], Ranks]:
    """(number of processes, method) -> what it came to."""
    return lambda processes, kind: [torch.load(folder_of(processes) / f"{kind}-{rank}.pt") for rank in range(processes)]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_equal_one(family, kind, processes, trained_in):
    [(one, local)] = trained_in(1, kind)
    several = trained_in(processes, kind)

    def assert_close(found: Tensor, expected: Tensor, name: str) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, msg=lambda text: f"{name}: {text}")

    assert_close(torch.stack([parts["losses"] for parts, _ in several]).mean(0), one["losses"], "losses")
    for parts, _ in several:
        for name in one.keys() - {"losses"}:
            assert_close(parts[name], one[name], name)
    for name, expected in local.items():
        assert_close(family.joined(name, [state[name] for _, state in several]), expected, name)


def test_autocast_lowers_no_loss(family, kind):
    """Under bfloat16 the loss is float32, and so is every gradient, all finite."""
    method, batch = family.make(kind, torch.float32), family.batch_of(0, dtype=torch.float32)
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(batch, family.progress_of(0))
    assert {output.loss.dtype, *(metric.dtype for metric in output.metrics.values())} == {torch.float32}
    output.loss.backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_metrics_are_detached_numbers(family, kind):
    method = family.make(kind)
    method.before_epoch(family.progress_of(0), family.embed_all(method))
    output = method(family.batch_of(0), family.progress_of(0))
    assert all(metric.ndim == 0 and not metric.requires_grad for metric in output.metrics.values())
    assert torch.equal(output.metrics["loss"], output.loss.detach())


def test_small_views_do_not_move_the_backbones_running_statistics(family, kind):
    means = []
    for keeps_small in (True, False):
        method, batch = family.make(kind), family.batch_of(0)
        method.before_epoch(family.progress_of(0), family.embed_all(method))
        if not keeps_small:
            batch.views.groups = (batch.views.groups[0], torch.zeros_like(batch.views.groups[1]))
        method(batch, family.progress_of(0))
        means.append(method.backbone.norm.running_mean)
    assert torch.equal(*means)


def test_bad_temperatures_name_field_and_value(family, kind):
    if kind == "finetune":
        pytest.skip("it has no temperature")
    with pytest.raises(ValueError, match=r"^temperature is 0.0: use "):
        family.make(kind, temperature=0.0)


@pytest.mark.parametrize("method", ["swav", "deepcluster", "finetune"])
def test_sharing_out_the_backbone_changes_nothing(method, trained_in):
    """FSDP beside DDP: losses, weights, buffers, queues and banks; the other methods are in test_sharding.py."""
    for rank, (expected, local) in enumerate(trained_in(2, method)):
        found, found_local = trained_in(2, f"{method}-fsdp")[rank]
        assert_same_to_rounding(found, expected)
        assert_same_to_rounding(found_local, local)


@pytest.mark.parametrize("case", ["transformer", "small_net_recomputed", "not_finite"])
def test_sharing_out_blocks_changes_nothing(case, trained_in):
    """With LARS, rows that do not share out evenly, blocks and supports computed again, and a bad step."""
    sharded, plain = (trained_in(2, f"{case}-{strategy}") for strategy in ("fsdp", "ddp"))
    for (found, _, skipped), (expected, _, expected_skipped) in zip(sharded, plain, strict=True):
        assert skipped == expected_skipped == ([2] if case == "not_finite" else [])
        norms = found["gradient norms"]
        assert torch.equal(norms[norms.isfinite()], sharded[0][0]["gradient norms"][norms.isfinite()])
        assert_same_to_rounding(found, expected)


def assert_same_to_rounding(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        ours = {"rtol": 1e-12, "atol": 1e-12, "equal_nan": True}
        torch.testing.assert_close(found[name], tensor, **ours, msg=lambda text, name=name: f"{name}: {text}")


def test_a_sharded_run_that_is_taken_up_ends_with_the_same_bits(folder_of):
    """Two processes write a file each; theirs of the whole run and of the run that was broken off are equal."""
    folders = [folder_of(2) / run / "checkpoints" / "step-00000005.safetensors" for run in ("whole", "parts")]
    names = ["part-00000-of-00002.safetensors", "part-00001-of-00002.safetensors"]
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        whole, parts = (load_file(folder / name) for folder in folders)
        assert whole.keys() == parts.keys()
        assert [key for key in whole if whole[key].tobytes() != parts[key].tobytes()] == []
    whole, parts = ((folder_of(2) / run / "metrics.csv").read_text().splitlines() for run in ("whole", "parts"))
    assert [line.split(",")[:-2] for line in whole] == [line.split(",")[:-2] for line in parts]


def test_one_process_reads_what_several_have_written(folder_of, trained_in):
    joined = read_checkpoint(folder_of(2) / "whole" / "checkpoints" / "step-00000005.safetensors")
    weights, momentum = joined.part("method"), joined.part("optimizer")
    found, _, _ = trained_in(2, "transformer-fsdp")[0]
    assert joined.step == 5
    assert weights.keys() == found.keys() - {"losses", "gradient norms"}
    for name, tensor in weights.items():
        assert torch.equal(tensor, found[name]), name
    assert all(momentum[f"{name}.momentum_buffer"].shape == weights[name].shape for name in ("backbone.token",))
