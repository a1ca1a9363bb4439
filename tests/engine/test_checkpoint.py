"""One file, whole or not at all; every tensor back in its bits and strides; nothing unpickled."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tapetum.engine.checkpoint import (
    Checkpoint,
    capture,
    checkpoint_path,
    latest_checkpoint,
    list_checkpoints,
    prune,
    read_checkpoint,
    restore,
    write_checkpoint,
)


def write(folder, step, **tensors):
    path = checkpoint_path(folder, step)
    write_checkpoint(
        path, Checkpoint(tensors or {"method.w": torch.arange(4.0)}, {"step": step, "format": 1, "optimizer": {}})
    )
    return path


def trained(toy, make):
    run = toy.trainer(None, 3, make_optimizer=make)
    run.fit()
    return run


def adamw(method):
    return torch.optim.AdamW(method.parameters(), lr=1e-3)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_method_and_its_optimizer_survive_the_file(toy, tmp_path, name):
    make = {"sgd": toy.sgd, "adamw": adamw}[name]
    run = trained(toy, make)
    path = checkpoint_path(tmp_path, 3)
    write_checkpoint(path, capture(run.method, run.optimizer, [run.method.local_state()], {"step": 3}))
    other = toy.trainer(None, 3, method=toy.Toy(seed=9), make_optimizer=make)
    restore(read_checkpoint(path), other.method, other.optimizer, rank=0)
    toy.assert_same(toy.state_of(run), toy.state_of(other))
    for mine, its in zip(run.optimizer.state.values(), other.optimizer.state.values(), strict=True):
        assert {k: type(v) for k, v in mine.items()} == {k: type(v) for k, v in its.items()}


def test_names_follow_the_contract(toy):
    run = trained(toy, toy.sgd)
    names = set(toy.state_of(run))
    assert {"method.backbone.0.weight", "method.centroids", "optimizer.head.weight.momentum_buffer"} <= names
    assert {"local.0.queue", "local.0.num_queued"} <= names


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.randn(4, 3, 1, 1).to(memory_format=torch.channels_last),
        torch.randn(5, 7).T,
        torch.randn(2, 3).bfloat16(),
        torch.tensor(3.0),
        torch.zeros(0, 8),
        torch.tensor([True, False]),
        torch.arange(3),
    ],
    ids=lambda t: f"{t.dtype}{tuple(t.shape)}",
)
def test_tensors_keep_bits_and_strides(toy, tmp_path, tensor):
    path = write(tmp_path, 1, **{"method.w": tensor})
    toy.assert_same({"method.w": tensor}, read_checkpoint(path).tensors)


def test_shared_and_expanded_tensors_are_written(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
            self.b.weight = self.a.weight
            self.register_buffer("wide", torch.ones(1, 3).expand(4, 3))

    method = Tied()
    checkpoint = capture(method, torch.optim.SGD(method.parameters(), lr=1.0), [], {"step": 1})
    write_checkpoint(tmp_path / "x.safetensors", checkpoint)
    tensors = read_checkpoint(tmp_path / "x.safetensors").tensors
    assert torch.equal(tensors["method.a.weight"], tensors["method.b.weight"])
    assert tensors["method.wide"].shape == (4, 3)


def test_numbers_of_an_optimizer_are_kept():
    method = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    optimizer.state[method.weight] = {"count": 7, "ratio": 0.1, "first": True, "buffer": None}
    checkpoint = capture(method, optimizer, [], {"step": 1})
    assert checkpoint.scalars["optimizer"] == {"weight": {"count": 7, "ratio": 0.1, "first": True, "buffer": None}}
    optimizer.state[method.weight] = {"history": [1]}
    with pytest.raises(ValueError, match="list as history of weight"):
        capture(method, optimizer, [], {"step": 1})


def test_a_checkpoint_of_another_method_is_refused(toy):
    run = trained(toy, toy.sgd)
    checkpoint = capture(run.method, run.optimizer, [{}], {"step": 1})
    with pytest.raises(ValueError, match="does not fit this Linear"):
        restore(checkpoint, nn.Linear(2, 2), torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0), rank=0)


def test_another_optimizer_starts_anew_where_that_is_accepted(toy, tmp_path):
    def trainer(steps, make, kind, **changes):
        known = {"optimizer.kind": kind}
        return toy.trainer(tmp_path, steps, make_optimizer=make, fingerprint=known, **changes)

    trainer(6, toy.sgd, "sgd").fit()
    said = []
    changes = {"config": {"checkpoint_every": 100, "on_nan": "rollback"}, "batches": toy.nan_batches(8)}
    other = trainer(12, adamw, "adamw", inexact=True, notify=said.append, **changes)
    assert other.fit().skipped_steps == [8], "it went back to that checkpoint"
    assert said.count("The state of the optimizer starts anew, as the checkpoint has that of sgd.") == 2
    assert {key for state in other.optimizer.state.values() for key in state} == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_named_with_the_fix(tmp_path, share):
    path = write(tmp_path, 1, **{"method.w": torch.randn(1000)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"{path.name} is cut short, so that its end is missing: .*delete it"):
        read_checkpoint(path)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_no_changed_bit_goes_unnoticed_or_looks_like_a_cut_file(tmp_path):
    path = write(tmp_path, 1, **{"method.w": torch.randn(9, 3), "local.0.queue": torch.arange(5)})
    bits = 8 * path.stat().st_size
    for bit in range(0, bits, 13):  # any byte, and any bit of a byte
        flip(path, bit)
        with pytest.raises(ValueError, match=r"has its whole length, but bits of it have changed .*delete it"):
            read_checkpoint(path)
        flip(path, bit)
    assert read_checkpoint(path).step == 1


def test_a_checkpoint_from_before_there_were_checksums_is_read(tmp_path):
    about = {"tapetum": json.dumps({"step": 7, "format": 1, "optimizer": {}, "strides": {}})}
    save_file({"method.w": torch.ones(2)}, tmp_path / "old.safetensors", about)
    assert read_checkpoint(tmp_path / "old.safetensors").step == 7


def test_foreign_files_are_refused_and_not_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    pickled = tmp_path / "step-00000001.safetensors"
    pickled.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="no safetensors file"):
        read_checkpoint(pickled)
    assert not (tmp_path / "exploded").exists()
    save_file({"w": torch.ones(2)}, tmp_path / "timm.safetensors")
    with pytest.raises(ValueError, match="not written by Tapetum"):
        read_checkpoint(tmp_path / "timm.safetensors")
    write_checkpoint(tmp_path / "new.safetensors", Checkpoint({}, {"step": 1, "format": 99, "optimizer": {}}))
    with pytest.raises(ValueError, match="format 99, newer"):
        read_checkpoint(tmp_path / "new.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*gone\.safetensors"):
        read_checkpoint(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("way", ["cut", "changed"])
def test_a_damaged_latest_falls_back_with_a_notice(tmp_path, way):
    said = []
    assert latest_checkpoint(tmp_path, said.append) is None
    write(tmp_path, 5)
    damaged = write(tmp_path, 10)
    if way == "cut":
        damaged.write_bytes(damaged.read_bytes()[:-1])
    else:
        flip(damaged, 8 * damaged.stat().st_size - 20)
    found = latest_checkpoint(tmp_path, said.append)
    assert found is not None
    assert found.step == 5
    assert damaged.name in said[0]
    assert {"cut": "is cut short", "changed": "bits of it have changed"}[way] in said[0]
    assert said[0].endswith("Going back to the checkpoint before it.")
    write(tmp_path, 5).write_bytes(b"")
    with pytest.raises(ValueError, match="No checkpoint in"):
        latest_checkpoint(tmp_path, said.append)


@pytest.mark.parametrize("way", ["cut", "changed"])
def test_a_resumed_run_falls_back_and_still_ends_the_same(toy, tmp_path, way):
    for folder in (tmp_path / "whole", tmp_path / "damaged"):
        toy.trainer(folder, 14).fit()
    path = list_checkpoints(tmp_path / "damaged" / "checkpoints")[-1]
    if way == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        flip(path, 8 * path.stat().st_size - 100)
    said = []
    toy.trainer(tmp_path / "damaged", 14, notify=said.append).fit()
    assert path.name in said[0]
    assert toy.metrics_without_time(tmp_path / "whole") == toy.metrics_without_time(tmp_path / "damaged")
    whole = read_checkpoint(list_checkpoints(tmp_path / "whole" / "checkpoints")[-1])
    assert read_checkpoint(path).step == whole.step == 14
    toy.assert_same(read_checkpoint(path).tensors, whole.tensors)


def test_a_write_that_breaks_leaves_the_old_file(tmp_path, monkeypatch):
    path = write(tmp_path, 5)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no power")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(ValueError, match=r"step-00000005.safetensors cannot be written \(no power\): make room"):
        write(tmp_path, 5, **{"method.w": torch.zeros(9)})
    assert path.read_bytes() == before
    assert list_checkpoints(tmp_path) == [path]
    prune(tmp_path, None)
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_checkpoint_does_not_count_among_the_last_two(tmp_path):
    paths = [write(tmp_path, step) for step in (5, 10, 15, 20)]
    prune(tmp_path, None, damaged={paths[3]})
    assert list_checkpoints(tmp_path) == paths[1:], "later than the last good one, it stays"
    newest = write(tmp_path, 25)
    prune(tmp_path, None, damaged={paths[3]})
    assert list_checkpoints(tmp_path) == [paths[2], newest]


def test_the_last_two_and_every_so_many_steps_are_kept(tmp_path):
    for step in range(5, 45, 5):
        write(tmp_path, step)
        prune(tmp_path, keep_every=15)
    assert [int(path.stem[5:]) for path in list_checkpoints(tmp_path)] == [15, 30, 35, 40]
    prune(tmp_path, keep_every=None)
    assert [int(path.stem[5:]) for path in list_checkpoints(tmp_path)] == [35, 40]


def test_a_checkpoint_that_cannot_be_deleted_stays_until_the_next_time(tmp_path, monkeypatch):
    paths = [write(tmp_path, step) for step in (5, 10, 15, 20)]
    left = tmp_path / ".tmp123"
    left.touch()
    unlink = Path.unlink

    def refuse(path, **options):
        if path in (paths[0], left):
            raise PermissionError(13, "The process cannot access the file", str(path))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    prune(tmp_path, None)
    assert list_checkpoints(tmp_path) == [paths[0], *paths[2:]]
    monkeypatch.undo()
    prune(tmp_path, None)
    assert sorted(tmp_path.iterdir()) == paths[2:]
