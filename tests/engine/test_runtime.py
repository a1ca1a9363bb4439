"""What a runtime resolves, and that setting a method up changes no name, dtype or number."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tapetum.data.batch import Batch, Views
from tapetum.engine import runtime as runtime_module
from tapetum.engine.runtime import Runtime, RuntimeConfig
from tapetum.system.launcher import Launched
from tapetum.system.machine import available_threads


@pytest.mark.parametrize("units", [True, False])
def test_auto_takes_bf16_and_channels_last_where_there_are_units(monkeypatch, units):
    monkeypatch.setattr(runtime_module, "has_bf16_units", lambda device: units)
    automatic = Runtime(RuntimeConfig(accelerator="cpu"))
    assert (automatic.precision, automatic.channels_last) == (("bf16", True) if units else ("float32", False))
    told = Runtime(
        RuntimeConfig(accelerator="cpu", precision="bf16" if not units else "float32", channels_last=not units)
    )
    assert (told.precision, told.channels_last) == (("float32", False) if units else ("bf16", True))


def test_the_resolved_config_has_no_auto_left():
    made = Runtime(RuntimeConfig(accelerator="cpu", threads=1))
    made.launch()
    config = made.resolved()
    assert config.precision in ("float32", "bf16")
    assert config.channels_last is not None
    assert config.threads == torch.get_num_threads() == 1


def test_threads_default_to_what_the_process_may_use(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert available_threads() == 1
    Runtime(RuntimeConfig(accelerator="cpu")).launch()
    assert torch.get_num_threads() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert available_threads() >= 1


def test_processes_of_one_machine_share_its_threads_once(monkeypatch):
    """Fabric's launch leaves a process's share in the environment, which must not be divided again."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)), raising=False)
    for _ in range(2):
        made = Runtime(RuntimeConfig(accelerator="cpu", devices=4))
        monkeypatch.setattr(made._fabric, "launch", lambda: monkeypatch.setenv("OMP_NUM_THREADS", "4"))
        made.launch()
        assert torch.get_num_threads() == 4
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("device", "threads"), [("cpu", 2), ("cuda", 8)])
def test_each_process_beside_a_gpu_has_the_threads_that_the_environment_says(monkeypatch, device, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)), raising=False)
    made = Runtime(RuntimeConfig(accelerator="cpu", devices=4))
    fabric = SimpleNamespace(launch=lambda: None, device=torch.device(device), world_size=4)
    monkeypatch.setattr(made, "_fabric", fabric)
    made.launch()
    assert torch.get_num_threads() == threads
    assert os.environ["OMP_NUM_THREADS"] == "8"


def test_setup_keeps_names_objects_and_float32(toy):
    method = toy.Toy()
    names, parameters = list(method.state_dict()), list(method.parameters())
    optimizer = toy.sgd(method)
    on = toy.runtime(precision="bf16", channels_last=True)
    module, stepper = on.setup(method, optimizer)
    assert list(method.state_dict()) == names
    assert all(a is b for a, b in zip(method.parameters(), parameters))
    assert all(p.dtype == torch.float32 for p in parameters)
    assert method.backbone[0].weight.is_contiguous(memory_format=torch.channels_last)
    with on.autocast():
        output = module(toy.batch_of(0), None)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    on.backward(output.loss)
    stepper.step()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in parameters)


def test_batches_cross_the_wrapper_unrounded(toy):
    class Echo(toy.Toy):
        def forward(self, batch, progress):
            assert batch.views.groups[0].dtype == torch.float32
            return toy.StepOutput(self.head.weight.double().sum())

    module, _ = (on := toy.runtime(precision="bf16")).setup(method := Echo(), toy.sgd(method))
    with on.autocast():
        assert module(toy.batch_of(0), None).loss.dtype == torch.float64


def test_place_moves_every_tensor_and_sets_the_memory_format(toy):
    images = torch.randn(4, 3, 8, 8)
    batch = Batch(Views((images,), (1,)), torch.arange(4), Views((images,), (1,)), torch.arange(4), torch.arange(2))
    placed = toy.runtime(channels_last=True).place(batch)
    assert placed.views.groups[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed.support.groups[0], images)
    assert placed.support_classes is not None
    assert toy.runtime().place(Batch(None, None)) == Batch(None, None)


def test_seed_is_manual_seed(toy):
    toy.runtime().seed(11)
    first = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(first, torch.rand(3))


def test_compile_asks_for_a_backbone(toy):
    method = toy.Toy()
    method.backbone = None
    with pytest.raises(ValueError, match="Toy has no backbone"):
        toy.runtime(compile=True).setup(method, toy.sgd(method))


def test_compile_is_in_place(toy, monkeypatch):
    calls = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: calls.append((self, options)))
    method = toy.Toy()
    names = list(method.state_dict())
    toy.runtime(compile=True).setup(method, toy.sgd(method))
    assert calls == [(method.backbone, {"dynamic": False})]
    assert torch._dynamo.config.recompile_limit >= 64  # a shape past it would go on uncompiled
    assert not toy.runtime(compile=True).config.to_use().compile
    assert list(method.state_dict()) == names


@pytest.mark.slow
def test_a_compiled_run_resumes_to_the_same_bits(toy, tmp_path):
    on = toy.runtime(compile=True)
    whole, cut = toy.trainer(tmp_path / "whole", 8, on=on), toy.trainer(tmp_path / "cut", 8, on=on)
    whole.fit()
    cut.batches = lambda start, stop: toy.batches(start, 7)
    with pytest.raises(AssertionError, match="no more batches at step 7"):
        cut.fit()
    resumed = toy.trainer(tmp_path / "cut", 8, on=toy.runtime(compile=True))
    resumed.fit()
    toy.assert_same(toy.state_of(whole), toy.state_of(resumed))


def test_collectives_are_the_identity_alone(toy):
    on = toy.runtime()
    on.barrier()
    assert on.broadcast(3) == 3
    assert (on.any(True), on.any(False)) == (True, False)
    assert [list(state) for state in on.gather({"queue": torch.ones(2)})] == [["queue"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 0}, "runtime.devices is 0"),
        ({"threads": 0}, "runtime.threads is 0"),
        ({"compile": True, "strategy": "fsdp"}, "runtime.compile is true, .* runtime.strategy fsdp: set compile to"),
        ({"compile": True, "recompute": "blocks"}, "runtime.compile is true, .* or recompute to none"),
    ],
)
def test_config_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        RuntimeConfig(**changes)


@pytest.mark.parametrize(
    ("by", "local_rank", "gpus", "device"),
    [("torchrun", 1, 4, [1]), ("srun", 3, 4, [3]), ("srun", 3, 1, [0]), ("torchrun", 0, 0, 1), ("srun", 1, 2, [1])],
)
def test_a_launched_process_takes_the_gpu_of_its_number(monkeypatch, by, local_rank, gpus, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    place = place_of(by, local_rank)
    assert runtime_module._device_of(place, "auto") == device
    assert runtime_module._device_of(place, "cpu") == 1


@pytest.mark.parametrize(("by", "gpus"), [("torchrun", 1), ("torchrun", 2), ("srun", 2)])
def test_more_processes_than_gpus_are_refused(monkeypatch, by, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=f"{by} started 4 processes on a machine that shows {gpus} GPU"):
        runtime_module._device_of(place_of(by, 3), "auto")


def place_of(by, local_rank):
    numbers = {"rank": 4 + local_rank, "world_size": 8, "local_rank": local_rank, "local_size": 4}
    return Launched(by=by, address="127.0.0.1", port=29500, threads=None, **numbers)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_device_is_a_clear_error():
    with pytest.raises(ValueError, match=r"this machine does not have .*auto or cpu"):
        Runtime(RuntimeConfig(accelerator="cuda"))


def test_one_process_has_nothing_to_share_out():
    with pytest.raises(ValueError, match=r"there is one process: set runtime.devices to 2 or more, or strategy to ddp"):
        Runtime(RuntimeConfig(accelerator="cpu", strategy="fsdp")).launch()
