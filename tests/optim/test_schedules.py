"""Schedules against the published ones, and their own promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.optim.schedules import ScheduleConfig, value


def _assert_close(ours, golden):
    assert np.abs(np.asarray(ours) - golden).max() <= 1e-9 * np.abs(golden).max()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_paws(golden, number):
    data = golden(f"paws_schedule_{number}")
    total, warmup = int(data["total_steps"]), int(data["warmup_steps"])
    config = ScheduleConfig(
        start=float(data["start_lr"]),
        peak=float(data["ref_lr"]),
        final=float(data["final_lr"]),
        warmup_epochs=warmup / 10,
    )
    _assert_close([value(config, step, 10, total) for step in range(total)], data["lr"])


@pytest.mark.parametrize("number", [0, 1])
def test_swav(golden, number):
    data = golden(f"swav_schedule_{number}")
    per_epoch = int(data["steps_per_epoch"])
    config = ScheduleConfig(
        start=float(data["start_warmup"]),
        peak=float(data["base_lr"]),
        final=float(data["final_lr"]),
        warmup_epochs=float(data["warmup_epochs"]),
        warmup_reaches_peak=True,
    )
    total = int(data["epochs"]) * per_epoch
    _assert_close([value(config, step, per_epoch, total) for step in range(total)], data["lr"])


numbers = st.floats(0, 10, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(
    numbers, numbers, numbers, st.floats(0, 5), st.sampled_from(["cosine", "linear", "constant"]), st.booleans(),
    st.integers(1, 50), st.integers(1, 500),
)  # fmt: skip
def test_stays_between_its_values_and_ends_at_final(start, peak, final, warmup, shape, reaches, per_epoch, total):
    config = ScheduleConfig(
        start=start, peak=peak, final=final, warmup_epochs=warmup, shape=shape, warmup_reaches_peak=reaches
    )
    values = [value(config, step, per_epoch, total) for step in range(total)]
    slack = 1e-9
    assert min(start, peak, final) - slack <= min(values)
    assert max(values) <= max(start, peak, final) + slack
    after = total + round(warmup * per_epoch)
    assert value(config, after, per_epoch, total) == pytest.approx(peak if shape == "constant" else final)


def test_a_single_warmup_step_that_reaches_the_peak_is_at_the_peak():
    config = ScheduleConfig(peak=2.0, warmup_epochs=1, warmup_reaches_peak=True)
    assert value(config, 0, 1, 4) == 2.0


def test_rising_weight_decay_and_linear():
    rising = ScheduleConfig(peak=0.04, final=0.4)
    assert value(rising, 0, 10, 100) == pytest.approx(0.04)
    assert value(rising, 50, 10, 100) == pytest.approx(0.22)
    assert value(rising, 100, 10, 100) == pytest.approx(0.4)
    linear = ScheduleConfig(peak=1.0, final=0.0, shape="linear")
    assert [value(linear, step, 1, 4) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


@pytest.mark.parametrize("total,warmup", [(1000, 50), (500, 50), (400, 40), (9, 0)])
def test_a_short_training_warms_up_for_no_more_than_its_share(total, warmup):
    config = ScheduleConfig(peak=1.0, warmup_epochs=5, warmup_limit=0.1)
    assert config.peak == value(config, warmup, 10, total) > value(config, warmup + 1, 10, total)
    assert [value(config, step, 10, total) for step in range(warmup)] == [step / warmup for step in range(warmup)]


FAULTY = [{"peak": -1.0}, {"peak": float("nan")}, {"warmup_epochs": -1.0}, {"final": -0.1}]
FAULTY += [{"hold": share} for share in (-0.1, 1.0)]
FAULTY += [{"warmup_limit": limit} for limit in (0.0, -0.1, 1.1)]


@pytest.mark.parametrize("field", FAULTY)
def test_errors_name_field_and_value(field):
    ((name, number),) = field.items()
    with pytest.raises(ValueError, match=f"{name} is {number}"):
        ScheduleConfig(**{"peak": 1.0, **field})


@pytest.mark.parametrize("arguments", [(-1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_impossible_steps(arguments):
    with pytest.raises(ValueError, match="steps_per_epoch"):
        value(ScheduleConfig(peak=1.0), *arguments)


def test_steps_down_at_milestones():
    config = ScheduleConfig(peak=0.2, shape="step", milestones=(12, 16), gamma=0.2)
    at = [value(config, 10 * epoch + part, 10, 200) for epoch in (11, 12, 15, 16, 19) for part in (0, 9)]
    assert at == pytest.approx([0.2, 0.2, 0.04, 0.04, 0.04, 0.04, 0.008, 0.008, 0.008, 0.008])
    with pytest.raises(ValueError, match=r"milestones is \[\]: give epochs with the shape step, and only there"):
        ScheduleConfig(peak=1.0, shape="step")
    with pytest.raises(ValueError, match=r"milestones is \[2\]: give epochs with the shape step"):
        ScheduleConfig(peak=1.0, milestones=(2,))


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_it_may_hold_the_peak_first(shape):
    held = ScheduleConfig(peak=0.3, warmup_epochs=1, hold=0.5, shape=shape)
    assert [value(held, step, 10, 100) for step in (5, 10, 49, 50)] == pytest.approx([0.15, 0.3, 0.3, 0.3])
    short = ScheduleConfig(peak=0.3, shape=shape)
    for step in range(50, 100):
        assert value(held, step, 10, 100) == pytest.approx(value(short, step - 50, 10, 50))


def test_a_warm_up_may_be_longer_than_the_hold():
    held, usual = (ScheduleConfig(peak=0.3, warmup_epochs=3, hold=hold) for hold in (0.2, 0.0))
    assert [value(held, step, 10, 100) for step in range(100)] == [value(usual, step, 10, 100) for step in range(100)]


def test_per_epoch_holds_the_value_of_the_epochs_first_step():
    smooth, stepped = ScheduleConfig(peak=0.3), ScheduleConfig(peak=0.3, per_epoch=True)
    for step in range(40):
        assert value(stepped, step, 10, 40) == value(smooth, step // 10 * 10, 10, 40)
