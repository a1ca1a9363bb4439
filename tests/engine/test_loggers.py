"""metrics.csv row by row, TensorBoard where there is one, the bar on a terminal and lines elsewhere."""

import io
import sys

import pytest
from rich.console import Console

from tapetum.engine.callbacks import ProgressBar
from tapetum.engine.loggers import CSVLogger, read_rows, tensorboard_logger


def row(step, **more):
    return {"step": step, "train/loss": 0.5 / step, **more, "train_seconds": 1.5 * step, "images_per_second": 10.0}


def csv_after(tmp_path, *calls):
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.on_start(0, 10)
    for rows in calls:
        logger.on_steps(rows)
    logger.on_end(0)
    return (tmp_path / "metrics.csv").read_text()


def test_columns_that_come_later_go_before_time(tmp_path):
    text = csv_after(tmp_path, [row(1)], [row(2, **{"eval/top1": 0.25})], [row(4)])
    assert text.splitlines() == [
        "step,train/loss,eval/top1,train_seconds,images_per_second",
        "1,0.5,,1.5,10",
        "2,0.25,0.25,3,10",
        "4,0.125,,6,10",
    ]


def test_grouping_of_rows_leaves_no_mark(tmp_path):
    rows = [row(1), row(2, **{"eval/a": 1.0}), row(3, **{"train/b": 2.0})]
    assert csv_after(tmp_path, rows) == csv_after(tmp_path, *[[r] for r in rows])


def test_float32_survives_as_text(tmp_path):
    import numpy as np

    values = np.random.Generator(np.random.PCG64(0)).random(50).astype(np.float32)
    text = csv_after(tmp_path, [{"step": i + 1, "train/loss": float(v)} for i, v in enumerate(values)])
    assert [np.float32(line.split(",")[1]) for line in text.splitlines()[1:]] == list(values)


@pytest.mark.parametrize("cut", ["", "4,0.1", "4,0.125,6,10"])
def test_rows_beyond_the_checkpoint_and_half_rows_are_cut(tmp_path, cut):
    csv_after(tmp_path, [row(1), row(2), row(3)])
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(cut)
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.on_start(2, 10)
    logger.on_steps([row(3)])
    logger.on_checkpoint(3)
    logger.on_end(3)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "1", "2", "3"]


def test_missing_rows_are_announced_and_start_from_zero_forgets(tmp_path, capsys):
    csv_after(tmp_path, [row(1), row(2)])
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.on_start(5, 10)
    assert "lacks rows of the 5 steps" in capsys.readouterr().err
    logger.on_start(0, 10)
    logger.on_end(0)
    assert (tmp_path / "metrics.csv").read_text() == ""


def test_rows_that_are_gone_when_a_column_comes_are_announced(tmp_path, capsys):
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.on_start(0, 5)
    logger.on_steps([{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}])
    logger.on_checkpoint(2)
    (tmp_path / "metrics.csv").write_text("step,a\n1,1.0\n")
    logger.on_steps([{"step": 3, "a": 3.0, "b": 4.0}])
    logger.on_end(3)
    assert capsys.readouterr().err.count("metrics.csv lacks rows of the 2 steps") == 1
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")[1]] == ["1", "3"]


def test_rows_that_something_else_cuts_while_training_are_told_of_at_the_end(tmp_path, capsys):
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.on_start(0, 3)
    logger.on_steps([{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}])
    (tmp_path / "metrics.csv").write_text("step,a\n1,1.")
    logger.on_steps([{"step": 3, "a": 3.0}])
    logger.on_end(3)
    assert capsys.readouterr().err.count("metrics.csv lacks rows of the 3 steps") == 1


def test_tensorboard_gets_evaluations_and_one_row_per_interval(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = tensorboard_logger(tmp_path)
    assert logger is not None
    logger.on_start(0, 4)
    logger.on_steps([row(1), row(2, **{"eval/top1": 0.5}), row(3), row(4)])
    logger.on_checkpoint(4)
    logger.on_end(4)
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4]
    assert [event.value for event in events.Scalars("eval/top1")] == [0.5]


def test_tensorboard_is_skipped_with_a_notice(tmp_path, monkeypatch):
    said = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert tensorboard_logger(tmp_path, said.append) is None
    assert "TensorBoard is not installed" in said[0]


def progress(terminal):
    now, out = [0.0], io.StringIO()
    bar = ProgressBar(
        Console(file=out, force_terminal=terminal, width=100), line_every_seconds=30, clock=lambda: now[0]
    )
    bar.on_start(0, 10)
    for step in range(1, 10, 2):
        now[0] += 16
        bar.on_steps([row(step), row(step + 1)])
    bar.on_evaluate(10, {"eval/top1": 0.25})
    bar.on_end(10)
    return out.getvalue()


def test_without_a_terminal_a_line_every_so_often():
    assert progress(terminal=False).splitlines() == [
        "step 2/10  loss 0.25  10 images/s  0:00:12 left",
        "step 6/10  loss 0.08333  10 images/s  0:00:06 left",
        "step 10/10  loss 0.05  10 images/s",
        "step 10  eval/top1 0.25",
    ]


def test_on_a_terminal_a_bar():
    text = progress(terminal=True)
    assert "10/10" in text
    assert "10 images/s" in text


def test_the_time_left_weighs_steps_by_their_work():
    """Six steps of work 1 lie behind and four of work 5 ahead, at a second for a unit of work."""
    out = io.StringIO()
    bar = ProgressBar(
        Console(file=out, force_terminal=False),
        work=lambda step: min(step, 6) + 5 * max(0, step - 6),
        clock=lambda: 0.0,
    )
    bar.on_start(0, 10)
    bar.on_steps([{**row(step), "train_seconds": float(step)} for step in (5, 6)])
    assert "0:00:20 left" in out.getvalue()


def test_a_skipped_step_is_described():
    out = io.StringIO()
    bar = ProgressBar(Console(file=out, force_terminal=False))
    bar.on_start(0, 1)
    bar.on_steps([{"step": 1, "train_seconds": 1.0, "images_per_second": 0.0}])
    assert "skipped" in out.getvalue()
