"""The loop: one row per step, the order of evaluation, rows and checkpoint, NaN, interruption, no host sync."""

import os
import signal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tapetum.engine.callbacks import Callback
from tapetum.engine.checkpoint import list_checkpoints, read_checkpoint
from tapetum.engine.metrics import NonFiniteError
from tapetum.engine.trainer import TrainerConfig
from tapetum.system.interruption import Interrupted


class Stop(Exception):
    pass


class StopAt(Callback):
    """Dies, as from a kill, once a step's rows are out."""

    def __init__(self, step):
        self.step = step

    def on_steps(self, rows):
        if rows[-1]["step"] >= self.step:
            raise Stop


class SignalAt(Callback):
    """Sends this process a signal when a step's rows are out, just before the next step."""

    def __init__(self, step, number=signal.SIGINT):
        self.step, self.number = step, number

    def on_steps(self, rows):
        if rows[-1]["step"] == self.step:
            os.kill(os.getpid(), self.number)


def rows_of(path):
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    return [dict(zip(header, row)) for row in rows]


def test_one_row_per_step_with_time_last_and_evaluation_where_it_was(toy, tmp_path):
    state = toy.trainer(tmp_path, 13).fit()
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header[-2:] == ["train_seconds", "images_per_second"]
    assert header[:5] == ["step", "epoch", "images_seen", "lr", "weight_decay"]
    rows = rows_of(tmp_path / "metrics.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 14))
    assert [int(row["step"]) for row in rows if row["eval/mean"]] == [5, 10, 13]
    assert [int(row["epoch"]) for row in rows] == [0] * 7 + [1] * 6
    assert [int(row["images_seen"]) for row in rows] == [8 * step for step in range(1, 14)]
    assert float(rows[3]["lr"]) == pytest.approx(0.05 * (1 - 3 / 13))
    assert all(row["train/loss"] and row["train/pull"] and row["train/gradient_norm"] for row in rows)
    assert (state.step, state.images_seen) == (13, 104)
    assert state.train_seconds > 0


def test_training_lowers_the_loss_and_two_runs_agree(toy, tmp_path):
    first, second = toy.trainer(tmp_path / "a", 20), toy.trainer(tmp_path / "b", 20)
    first.fit()
    torch.manual_seed(12345)
    second.fit()
    assert toy.metrics_without_time(tmp_path / "a") == toy.metrics_without_time(tmp_path / "b")
    toy.assert_same(toy.state_of(first), toy.state_of(second))
    losses = [float(row["train/loss"]) for row in rows_of(tmp_path / "a" / "metrics.csv")]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_rows_do_not_depend_on_the_logging_interval(toy, tmp_path):
    toy.trainer(tmp_path / "a", 9, config={"log_every": 1}).fit()
    toy.trainer(tmp_path / "b", 9, config={"log_every": 100}).fit()
    assert toy.metrics_without_time(tmp_path / "a") == toy.metrics_without_time(tmp_path / "b")


def adamw(method):
    return torch.optim.AdamW(method.parameters(), lr=1e-3)


@pytest.mark.parametrize("killed_at", [1, 6, 7, 12])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_resumed_equals_uninterrupted(toy, tmp_path, killed_at, name):
    make = {"sgd": toy.sgd, "adamw": adamw}[name]
    whole = toy.trainer(tmp_path / "whole", 14, make_optimizer=make)
    whole.fit()
    folder = tmp_path / "resumed"
    with pytest.raises(Stop):
        toy.trainer(folder, 14, make_optimizer=make, config={"log_every": 1}, callbacks=[StopAt(killed_at)]).fit()
    resumed = toy.trainer(folder, 14, make_optimizer=make)
    resumed.fit()
    toy.assert_same(toy.state_of(whole), toy.state_of(resumed))
    assert toy.metrics_without_time(tmp_path / "whole") == toy.metrics_without_time(folder)
    final = [read_checkpoint(list_checkpoints(f / "checkpoints")[-1]) for f in (tmp_path / "whole", folder)]
    toy.assert_same(final[0].tensors, final[1].tensors)
    assert {**final[0].scalars, "train_seconds": 0} == {**final[1].scalars, "train_seconds": 0}


def test_resuming_a_finished_run_changes_nothing(toy, tmp_path):
    toy.trainer(tmp_path, 8).fit()
    before = (tmp_path / "metrics.csv").read_text()
    state = toy.trainer(tmp_path, 8).fit()
    assert state.step == 8
    assert (tmp_path / "metrics.csv").read_text() == before


def test_time_adds_up_over_resumptions(toy, tmp_path):
    with pytest.raises(Interrupted):
        toy.trainer(tmp_path, 40, callbacks=[SignalAt(8)]).fit()
    first = read_checkpoint(list_checkpoints(tmp_path / "checkpoints")[-1]).scalars["train_seconds"]
    state = toy.trainer(tmp_path, 40).fit()
    seconds = [float(row["train_seconds"]) for row in rows_of(tmp_path / "metrics.csv")]
    assert 0 < first < state.train_seconds
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(toy, tmp_path, number):
    said = []
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match=r"Saved step 9\. Continue with: tapetum resume ") as caught:
        toy.trainer(tmp_path / "run", 14, callbacks=[SignalAt(8, number)], notify=said.append).fit()
    assert caught.value.step == 9
    assert caught.value.is_agreed
    assert said[-1] == str(caught.value) == f"Saved step 9. Continue with: tapetum resume {tmp_path / 'run'}"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert list_checkpoints(tmp_path / "run" / "checkpoints")[-1].name == "step-00000009.safetensors"
    assert len(rows_of(tmp_path / "run" / "metrics.csv")) == 9
    toy.trainer(tmp_path / "whole", 14).fit()
    toy.trainer(tmp_path / "run", 14).fit()
    assert toy.metrics_without_time(tmp_path / "whole") == toy.metrics_without_time(tmp_path / "run")


def test_the_evaluation_due_at_an_interruption_is_made(toy, tmp_path):
    with pytest.raises(Interrupted):
        toy.trainer(tmp_path, 14, config={"evaluate_every": 9}, callbacks=[SignalAt(8)]).fit()
    assert rows_of(tmp_path / "metrics.csv")[-1]["eval/mean"]


def test_a_signal_while_the_last_step_is_evaluated_stops_before_what_follows(toy, tmp_path):
    def interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        return {"mean": 1.0}

    config = {"evaluate_every": None}
    with pytest.raises(Interrupted, match=r"Saved step 8\. Continue with: tapetum resume "):
        toy.trainer(tmp_path, 8, config=config, evaluate=interrupted).fit()
    assert toy.trainer(tmp_path, 8, config=config).fit().step == 8
    assert len(rows_of(tmp_path / "metrics.csv")) == 8


def test_rows_are_on_disk_before_the_checkpoint(toy, tmp_path, monkeypatch):
    seen = []

    def write(path, checkpoint):
        seen.append((checkpoint.step, len(rows_of(tmp_path / "metrics.csv"))))

    monkeypatch.setattr("tapetum.engine.resumption.write_checkpoint", write)
    toy.trainer(tmp_path, 14).fit()
    assert seen == [(6, 6), (12, 12), (14, 14)]


def test_nan_stops_and_leaves_no_checkpoint_after_it(toy, tmp_path, capsys):
    config = {"checkpoint_every": 3, "log_every": 10, "evaluate_every": None}
    run = toy.trainer(tmp_path, 14, batches=toy.nan_batches(7), config=config)
    with pytest.raises(NonFiniteError, match=r"step 7 .*last good checkpoint is .*step-00000006\.safetensors"):
        run.fit()
    assert [path.stem for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-00000003", "step-00000006"]
    assert rows_of(tmp_path / "metrics.csv")[-1]["train/loss"] == "nan"
    assert "lacks rows" not in capsys.readouterr().err  # those after the bad one are left out


def test_rows_that_an_error_leaves_unread_are_not_missed(toy, tmp_path, capsys):
    run = toy.trainer(tmp_path, 14, batches=lambda start, stop: toy.batches(start, 7))
    with pytest.raises(AssertionError, match="no more batches at step 7"):
        run.fit()
    assert len(rows_of(tmp_path / "metrics.csv")) == 6
    assert "lacks rows" not in capsys.readouterr().err


class Poisoned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, is_bad):
        ctx.is_bad = is_bad
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf") if ctx.is_bad else gradient, None


def test_a_gradient_that_is_not_finite_is_caught_in_its_own_step(toy):
    class Exploding(toy.Toy):
        def forward(self, batch, progress):
            output = super().forward(batch, progress)
            return toy.StepOutput(Poisoned.apply(output.loss, progress.step == 4), output.metrics, output.carry)

    with pytest.raises(NonFiniteError, match=r"step 4 .*no checkpoint"):
        toy.trainer(None, 14, method=Exploding()).fit()


@pytest.mark.parametrize("bad", [2, 8])
@pytest.mark.parametrize("on_disk", [True, False])
def test_rollback_leaves_the_bad_step_out(toy, tmp_path, bad, on_disk):
    config, said = {"on_nan": "rollback"}, []
    folder = tmp_path / "run" if on_disk else None
    run = toy.trainer(folder, 14, batches=toy.nan_batches(bad), config=config, notify=said.append)
    state = run.fit()
    assert state.skipped_steps == [bad]
    assert state.images_seen == 13 * 8
    assert all(torch.isfinite(value).all() for value in toy.state_of(run).values())
    assert f"Step {bad} is not finite" in said[0]
    # The same as a run that was told beforehand.
    told = toy.trainer(None, 14, config=config)
    told._load = lambda: None
    told._began, told.state.skipped_steps = 0.0, [bad]
    told._tell_start()
    told.fit()
    toy.assert_same(toy.state_of(run), toy.state_of(told))
    if folder is not None:
        rows = rows_of(folder / "metrics.csv")
        assert [int(row["step"]) for row in rows] == list(range(1, 15))
        assert [int(row["step"]) for row in rows if not row["train/loss"]] == [bad + 1]
        assert read_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).scalars["skipped_steps"] == [bad]


def test_rollback_survives_a_kill(toy, tmp_path):
    config = {"on_nan": "rollback"}
    toy.trainer(tmp_path / "whole", 14, batches=toy.nan_batches(8), config=config).fit()
    with pytest.raises(Stop):
        toy.trainer(tmp_path / "run", 14, batches=toy.nan_batches(8), config=config, callbacks=[StopAt(11)]).fit()
    toy.trainer(tmp_path / "run", 14, batches=toy.nan_batches(8), config=config).fit()
    assert toy.metrics_without_time(tmp_path / "whole") == toy.metrics_without_time(tmp_path / "run")


def test_rollback_gives_up_after_three(toy, tmp_path):
    run = toy.trainer(tmp_path, 14, batches=toy.nan_batches(1, 3, 8, 9), config={"on_nan": "rollback"})
    with pytest.raises(NonFiniteError, match="step 9 "):
        run.fit()
    assert run.state.skipped_steps == [1, 3, 8]


class Observer(Callback):
    def __init__(self):
        self.calls = []

    def on_start(self, step, total_steps):
        self.calls.append(("start", step, total_steps))

    def on_steps(self, rows):
        self.calls.append(("steps", *[row["step"] for row in rows]))
        torch.rand(100)

    def on_evaluate(self, step, results):
        self.calls.append(("evaluate", step, *results))

    def on_checkpoint(self, step):
        self.calls.append(("checkpoint", step))

    def on_end(self, step):
        self.calls.append(("end", step))


def test_removing_a_callback_changes_no_weight(toy):
    observer = Observer()
    watched, alone = toy.trainer(None, 9, callbacks=[observer]), toy.trainer(None, 9)
    watched.fit()
    alone.fit()
    toy.assert_same(toy.state_of(watched), toy.state_of(alone))
    assert observer.calls == [
        ("start", 0, 9),
        ("steps", 1, 2, 3, 4),
        ("evaluate", 5, "eval/mean"),
        ("steps", 5),
        ("steps", 6),
        ("checkpoint", 6),
        ("steps", 7, 8),
        ("evaluate", 9, "eval/mean"),
        ("steps", 9),
        ("checkpoint", 9),
        ("end", 9),
    ]


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for the device."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
        return function(*arguments, **(named or {}))


def test_no_host_sync_between_two_logs(toy, monkeypatch):
    lists = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: lists.append(1) or tolist(self))
    config = {"log_every": 10, "evaluate_every": None, "checkpoint_every": None}
    with Reads() as reads:
        toy.trainer(None, 20, config=config, evaluate=None).fit()
    assert (reads.count, len(lists)) == (0, 2)


def test_accumulation_is_the_mean_of_independent_batches(toy):
    said = []

    class Plain(toy.Toy):
        def forward(self, batch, progress):
            features = batch.views.groups[0].mean((2, 3))
            return toy.StepOutput(
                self.head(features.repeat(1, 6)[:, :16]).square().mean(), {}, features[:, :1].repeat(1, 16)
            )

    run = toy.trainer(
        None, 1, method=Plain(), batches=lambda a, b: toy.batches(a, b, 3), config={"accumulate": 3},
        on=toy.runtime(precision="float32"), notify=said.append,
    )  # fmt: skip
    by_hand = Plain()
    losses = [by_hand(toy.batch_of(0, part), None).loss for part in range(3)]
    torch.stack(losses).mean().backward()
    run.fit()
    torch.testing.assert_close(run.method.head.weight.grad, by_hand.head.weight.grad)
    assert run.state.images_seen == 24
    assert run.method.num_queued == 24
    assert "not one larger batch" in said[0]


def test_evaluation_leaves_training_mode_as_it_was(toy):
    run = toy.trainer(None, 6)
    run.method.backbone[1].train = lambda mode=True: run.method.backbone[1]
    run.fit()
    assert run.method.training
    assert run.method.backbone[3].training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "none of them"),
        ({"epochs": 1, "steps": 2}, "epochs and steps"),
        ({"steps": -1}, "steps is -1"),
        ({"steps": 5, "log_every": 0}, "log_every is 0"),
    ],
)
def test_config_errors_name_field_value_and_fix(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainerConfig(**changes)
