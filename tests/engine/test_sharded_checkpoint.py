"""Checkpoints in parts: joined, refused where something is missing, whole or absent, and pruned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tapetum.engine.checkpoint import (
    Checkpoint,
    checkpoint_path,
    latest_checkpoint,
    list_checkpoints,
    prune,
    read_checkpoint,
    write_checkpoint,
)
from tapetum.engine.sharded_checkpoint import part_name, write_parts

WHOLE = {"method.backbone.weight": torch.arange(15.0).reshape(5, 3), "method.head.bias": torch.ones(2)}
SCALARS = {"step": 6, "format": 1, "optimizer": {}, "rows": {"method.backbone.weight": 5}}


def parts() -> list[Checkpoint]:
    """Of two processes: three rows and whatever is whole, and two rows with a queue of its own."""
    name = "method.backbone.weight"
    first = {**WHOLE, name: WHOLE[name][:3], "local.0.queue": torch.zeros(1)}
    return [Checkpoint(first, SCALARS), Checkpoint({name: WHOLE[name][3:], "local.1.queue": torch.ones(1)}, SCALARS)]


def write(folder: Path, step: int = 6, count: int = 2, **changes) -> Path:
    def write_all(partial: Path) -> None:
        for rank, part in enumerate(parts()[:count]):
            about = {**part.scalars, "step": step, **changes}
            write_checkpoint(partial / part_name(rank, 2), Checkpoint(part.tensors, about))

    path = checkpoint_path(folder, step)
    write_parts(path, 0, write_all, lambda: None)
    return path


def test_parts_are_joined(tmp_path):
    found = read_checkpoint(write(tmp_path))
    assert found.step == 6
    assert "rows" not in found.scalars
    expected = {**WHOLE, "local.0.queue": torch.zeros(1), "local.1.queue": torch.ones(1)}
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.items())


def test_a_missing_part_and_changed_bits_send_back_to_the_checkpoint_before(tmp_path):
    write(tmp_path, 2)
    for step, damage in ((4, lambda path: path.unlink()), (6, change_a_bit)):
        path = write(tmp_path, step)
        damage(path / part_name(1, 2))
        notices: list[str] = []
        found = latest_checkpoint(tmp_path, notices.append)
        assert found is not None
        assert found.step == 2
        assert str(path) in notices[0]
    with pytest.raises(ValueError, match=r"step-00000004.safetensors lacks part-00001-of-00002.safetensors: restore"):
        read_checkpoint(checkpoint_path(tmp_path, 4))


@pytest.mark.parametrize("processes", ["999999999", "9" * 200, "\N{SUPERSCRIPT TWO}"])
def test_names_of_strangers_that_tell_endless_parts_are_refused_at_once(tmp_path, processes):
    folder = checkpoint_path(tmp_path, 6)
    folder.mkdir()
    (folder / f"part-00000-of-{processes}.safetensors").touch()
    with pytest.raises(ValueError, match=r"step-00000006.safetensors lacks part-0000\d-of-\d+.safetensors: restore"):
        read_checkpoint(folder)


def change_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_parts_of_different_checkpoints_are_refused(tmp_path):
    first, second = write(tmp_path, 2), write(tmp_path, 4)
    (first / part_name(1, 2)).replace(second / part_name(1, 2))
    with pytest.raises(ValueError, match=r"step-00000004.safetensors has parts of different checkpoints: restore it"):
        read_checkpoint(second)


@pytest.mark.parametrize("rows", [{"method.backbone.weight": 6}, {"method.backbone.weight": 5, "method.more": 2}])
def test_missing_rows_are_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="lacks rows of method"):
        read_checkpoint(write(tmp_path, rows=rows))


def test_a_whole_checkpoint_is_no_part(tmp_path):
    path = write(tmp_path)
    write_checkpoint(path / part_name(1, 2), Checkpoint({}, {"step": 6, "format": 1, "optimizer": {}}))
    with pytest.raises(ValueError, match="parts of different checkpoints"):
        read_checkpoint(path)


def test_a_folder_has_its_name_only_once_it_is_complete(tmp_path):
    def stop(partial: Path) -> None:
        write_checkpoint(partial / part_name(0, 2), parts()[0])
        raise KeyboardInterrupt

    path = checkpoint_path(tmp_path, 6)
    with pytest.raises(KeyboardInterrupt):
        write_parts(path, 0, stop, lambda: None)
    assert list_checkpoints(tmp_path) == []
    assert list_checkpoints(write(tmp_path).parent) == [path]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_old_folders_and_leftovers_are_deleted(tmp_path):
    for step in (2, 4, 6, 8):
        write(tmp_path, step)
    left = tmp_path / "step-00000009.safetensors.partial"
    left.mkdir()
    (left / part_name(0, 2)).touch()
    prune(tmp_path, keep_every=4)
    assert [int(path.stem.split("-")[1]) for path in list_checkpoints(tmp_path)] == [4, 6, 8]
    assert not left.exists()


def test_a_step_may_be_saved_again(tmp_path):
    write(tmp_path)
    assert read_checkpoint(write(tmp_path, seed=1)).scalars["seed"] == 1
