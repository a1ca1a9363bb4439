"""Fingerprints: every difference is named, threads are restored, --inexact goes on."""

import pytest
import torch

from tapetum.engine.state import TrainState, check_fingerprint, differences, fingerprint, restore_threads


def test_the_fingerprint_holds_what_decides_bits(toy):
    found = fingerprint(toy.runtime(precision="bf16", channels_last=False), data="abc")
    assert found["threads"] == 1
    assert found["torch"] == torch.__version__
    assert str(found["cpu_capability"]).startswith(torch.backends.cpu.get_cpu_capability())
    assert {k: found[k] for k in ("device", "compile", "precision", "channels_last", "world_size", "data")} == {
        "device": "cpu", "compile": False, "precision": "bf16", "channels_last": False, "world_size": 1, "data": "abc",
    }  # fmt: skip


def test_every_difference_is_named():
    saved, current = {"torch": "2.14.1", "data": "a", "seed": 1}, {"torch": "2.15.0", "data": "b", "seed": 1, "new": 2}
    lines = ["torch: was 2.14.1, is 2.15.0", "data: was a, is b", "new: was not recorded, is 2"]
    assert differences(saved, current) == lines
    with pytest.raises(ValueError, match=r"torch: was 2\.14\.1, is 2\.15\.0; data: was a, is b; new.*--inexact"):
        check_fingerprint(saved, current)
    assert check_fingerprint(saved, current, inexact=True) == lines
    assert check_fingerprint(saved, saved) == []


def test_long_values_are_compared_to_their_end_but_where_older_checkpoints_cut_them():
    text = f"[{', '.join(30 * ['0.033'])}]"
    assert differences({"prior": text}, {"prior": f"{text[:-2]}4]"}) != []
    assert differences({"prior": f"{text[:77]}..."}, {"prior": text}) == []
    assert differences({"prior": f"{text[:77]}..."}, {"prior": f"[0.1, {text[1:]}"}) != []


def test_threads_are_restored():
    torch.set_num_threads(2)
    assert restore_threads({"threads": 1}, {"threads": 2, "seed": 0}) == {"threads": 1, "seed": 0}
    assert torch.get_num_threads() == 1


def test_the_state_survives_json():
    state = TrainState(step=4, images_seen=32, train_seconds=0.1, skipped_steps=[2])
    assert TrainState.from_scalars(vars(state)) == state


def test_resuming_under_other_conditions_is_refused_or_announced(toy, tmp_path):
    on = toy.runtime()
    toy.trainer(tmp_path, 8, on=on, config={"steps": 8}).fit()
    other = {**fingerprint(on, data="other"), "threads": 2}
    with pytest.raises(ValueError, match=r"data: was toy, is other; seed: was 3, is 4; total_steps: was 8, is 9"):
        toy.trainer(tmp_path, 9, fingerprint=other, seed=4).fit()
    assert torch.get_num_threads() == 1
    said = []
    state = toy.trainer(tmp_path, 9, fingerprint=other, seed=4, inexact=True, notify=said.append).fit()
    assert state.step == 9
    assert [line.split(":")[1].strip() for line in said] == ["threads", "data", "seed", "total_steps"]
