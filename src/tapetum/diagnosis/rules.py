"""The collapse doctor's rules: what can be wrong with a training, how its metrics show it, and what to change.

A rule is a function of the metrics so far and of the run's settings that returns a `Finding` or None. It needs only
columns of metrics.csv, and finds nothing where a method does not report them. To add a rule, write the function and put
it into `RULES`, causes before their consequences.

K is the number of prototypes, C the number of classes. Guessing evenly costs a loss of ln K or ln C.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tapetum.diagnosis.history import Finding, History, Setting

NEARLY = 0.98
"""An entropy above this share of its bound counts as having reached it."""
_LOWER_RATE = "divide optimizer.lr.peak by 3"

Rule = Callable[[History, Setting], Finding | None]


def _finding(since: int | None, what: str, *changes: str | None) -> Finding | None:
    """What a rule returns: nothing where `since` is None; a change that is None does not apply to the method."""
    return None if since is None else Finding(what, since, tuple(filter(None, changes)))


def not_finite(history: History, setting: Setting) -> Finding | None:
    """Loss or gradient is NaN or infinite."""
    bad = np.isinf(history.column("train/loss")) | np.isinf(history.column("train/gradient_norm"))
    return _finding(
        int(history.column("step")[bad.argmax()]) if bad.any() else None,
        "Loss or gradient became NaN or infinite.",
        "divide optimizer.lr.peak by 3, or warm up for longer (optimizer.lr.warmup_epochs)",
        "set runtime.precision=float32",
        "set trainer.on_nan=rollback, which skips up to 3 such steps",
    )


def diverging(history: History, setting: Setting) -> Finding | None:
    """The loss is far above where it began, and above the loss of guessing evenly."""
    loss = history.smooth("train/loss")
    start = history.column("train/loss")[0]
    bound = max(start + 0.1 * max(1.0, abs(start)), 1.1 * _mean_log(setting.prototype_counts))
    return _finding(
        history.since(loss > bound, setting.patience),
        f"The loss rose from {start:.3g} to {loss[-1]:.3g} and stays there: steps are too long.",
        "divide optimizer.lr.peak by 10",
        "warm up for longer (optimizer.lr.warmup_epochs)",
    )


def prototypes_not_unit(history: History, setting: Setting) -> Finding | None:
    """Prototypes are not of unit length, so scores are no cosines and temperatures mean nothing."""
    norm = history.smooth("train/prototype_norm")
    return _finding(
        history.since(np.abs(norm - 1) > 0.01),
        f"Prototypes have length {norm[-1]:.3g} instead of 1, so temperature and epsilon mean nothing.",
        "call `Prototypes.normalise()` in the method's `after_step`",
        "scale projections to unit length, too (`tapetum.nn.heads.unit_length`)",
    )


def too_many_prototypes(history: History, setting: Setting) -> Finding | None:
    """Far more prototypes share a batch than it has images, and no queue helps."""
    shared_by = setting.batch_size + setting.get("queue_length")
    most = max(setting.prototype_counts, default=0)
    return _finding(
        1 if hasattr(setting.method, "queue_length") and most > 4 * shared_by else None,
        f"{most} prototypes are to be used evenly by {shared_by} images, so nearly every image has a code of its own.",
        f"set method.num_prototypes=[{max(2, shared_by // 2)}], or ten times the number of classes you expect",
        f"set method.queue_length={-(-most // setting.batch_size) * setting.batch_size}, and start it late",
        "use larger batches (data.batch_size)",
    )


def queue_too_early(history: History, setting: Setting) -> Finding | None:
    """The queue fills with the features of an untrained network."""
    length = setting.get("queue_length")
    is_late = setting.get("queue_start_epoch", 1) > 0 or setting.starts_trained
    return _finding(
        None if length <= setting.batch_size or is_late else 1,
        f"The queue of {length} images fills from the first step, while features still change from step to step.",
        "set method.queue_start_epoch to a tenth of the epochs, at least 1",
        f"shorten the queue: method.queue_length={setting.batch_size}",
    )


def queue_raised_loss(history: History, setting: Setting) -> Finding | None:
    """The loss went up when the queue came into use, and stayed up; it should go down."""
    if not setting.get("queue_length") or not setting.get("queue_start_epoch"):
        return None
    loss = history.smooth(_assignment_loss(history))
    begun = history.column("epoch") >= setting.get("queue_start_epoch")
    before = loss[~begun]
    if len(before) < 3 or not begun.any():
        return None
    level = float(np.median(before[-3:]))
    steps = history.column("step")
    in_use = begun & (steps >= steps[begun.argmax()] + setting.get("queue_length") / setting.batch_size)
    since = history.since(in_use & (loss > level + 0.1 * abs(level)), setting.patience)
    return _finding(
        since if since is not None and np.array_equal(in_use, steps >= since) else None,
        f"The loss was {level:.3g} before the queue and is {loss[-1]:.3g} with it; a queue should lower it.",
        "start the queue later (method.queue_start_epoch)",
        "shorten it (method.queue_length)",
        "lower optimizer.lr.peak, so that earlier projections stay valid for longer",
    )


def embeddings_alike(history: History, setting: Setting) -> Finding | None:
    """All images have nearly the same embedding."""
    spread = history.smooth("train/embedding_std")
    augment = "augment less, or with fewer small views (views.small.count)"
    return _finding(
        history.since(spread < 0.1, setting.patience),
        f"All images have nearly the same embedding (standard deviation {spread[-1]:.2g} of at most 1).",
        *_first_three(_lower_epsilon(setting), _freeze_longer(setting), _LOWER_RATE, augment),
        "in a method of your own, check that targets carry no gradient (`.detach()`) and that something balances them",
    )


def embeddings_on_a_line(history: History, setting: Setting) -> Finding | None:
    """Embeddings differ in one direction only."""
    rank = history.smooth("train/effective_rank")
    since = history.since((rank < 1.03) & (history.smooth("train/embedding_std") >= 0.1), setting.patience)
    return _finding(
        None if setting.num_classes == 2 else since,
        f"Embeddings differ in one direction only (effective rank {rank[-1]:.3g}).",
        _LOWER_RATE,
        "widen the projector (method.head.hidden, method.head.output)",
        "check with `tapetum views` whether augmentation leaves anything to tell images apart by",
    )


def codes_uniform(history: History, setting: Setting) -> Finding | None:
    """Codes are spread evenly over all prototypes, so there is nothing to predict."""
    counts = setting.prototype_counts
    if not counts:
        return None
    entropy, bound = history.smooth("train/code_entropy"), math.log(counts[-1])
    return _finding(
        history.since(entropy > NEARLY * bound, setting.patience),
        f"Codes say nothing: their entropy is {entropy[-1]:.3g} of at most ln K = {bound:.3g}.",
        _lower_epsilon(setting),
        _freeze_longer(setting),
        "set method.hard_codes=true",
    )


def loss_at_ln_k(history: History, setting: Setting) -> Finding | None:
    """The loss stays at that of guessing evenly."""
    counts = setting.prototype_counts
    if not counts:
        return None
    loss, chance = history.smooth(_assignment_loss(history)), _mean_log(counts)
    fewer = f"use fewer prototypes: method.num_prototypes=[{max(2, max(counts) // 3)}]"
    return _finding(
        history.since(np.abs(loss - chance) < 0.01 * chance, setting.patience),
        f"The loss stays at ln K = {chance:.4g}: predictions are no better than guessing evenly.",
        *_first_three(_lower_epsilon(setting), _freeze_longer(setting), fewer, _LOWER_RATE),
    )


def few_prototypes_used(history: History, setting: Setting) -> Finding | None:
    """Most prototypes have no image."""
    counts = setting.prototype_counts
    if not counts:
        return None
    codes = setting.batch_size * len(setting.get("assigning_views", (0, 1))) / setting.processes
    expected = counts[-1] * -math.expm1(-codes / counts[-1])  # prototypes that this many even draws hit
    used = history.smooth("train/used_prototypes")
    return _finding(
        history.since(used < 0.3 * expected, setting.patience),
        f"Only {used[-1]:.3g} of {counts[-1]} prototypes are used in a batch, where about {expected:.0f} should be.",
        f"use fewer prototypes: method.num_prototypes=[{max(2, counts[-1] // 3)}]",
        "balance in more rounds (method.iterations)",
        "in a method of your own, check that codes are balanced (`tapetum.ops.sinkhorn`) and carry no gradient",
    )


def one_class(history: History, setting: Setting) -> Finding | None:
    """All images are predicted to be of one class, or there is only one."""
    if setting.num_classes == 1 and setting.uses_labels:
        return _finding(
            1,
            "All labels are of one class, so there is nothing to tell apart.",
            "give labels of two classes or more (`tapetum check` shows the classes)",
            "use a method without labels",
        )
    if setting.num_classes is None:
        return None
    entropy = -history.smooth("train/mean_entropy")
    return _finding(
        history.since(entropy < 0.1 * math.log(setting.num_classes), setting.patience),
        f"Nearly all images are predicted to be of one class (mean entropy {entropy[-1]:.2g}).",
        "set method.me_max=true",
        _LOWER_RATE,
        "draw more support images of each class",
    )


def predictions_uniform(history: History, setting: Setting) -> Finding | None:
    """Every image is predicted to be of all classes equally: mean entropy is at its bound, and so is each image's."""
    if setting.num_classes is None or setting.num_classes < 2 or setting.get("class_prior", None) is not None:
        return None
    bound = NEARLY * math.log(setting.num_classes)
    mean, each = -history.smooth("train/mean_entropy"), history.smooth("train/cross_entropy")
    return _finding(
        history.since((mean > bound) & (each > bound), setting.patience),
        "Every image is predicted to be of all classes equally: mean-entropy maximisation has won over agreement.",
        _LOWER_RATE,
        "set method.supervised_weight=0.5, so that labels alone can begin to tell classes apart",
        "sharpen more (method.sharpen), or lower method.temperature",
    )


RULES: tuple[Rule, ...] = (
    *(not_finite, one_class, prototypes_not_unit, diverging, too_many_prototypes, queue_too_early, queue_raised_loss),
    *(codes_uniform, embeddings_alike, embeddings_on_a_line, predictions_uniform, few_prototypes_used, loss_at_ln_k),
)
"""Causes before consequences."""


def diagnose(history: History, setting: Setting) -> list[Finding]:
    """What is wrong now, the likeliest cause first; nothing before the first step."""
    found = {rule.__name__: rule(history, setting) for rule in RULES} if len(history) else {}
    return [
        replace(finding, rule=name, changes=_possible(finding.changes, setting))
        for name, finding in found.items()
        if finding is not None
    ]


def _possible(changes: tuple[str, ...], setting: Setting) -> tuple[str, ...]:
    """The changes that name no field that the method lacks."""
    fields = {change: re.findall(r"method\.(\w+)", change) for change in changes}
    return tuple(change for change in changes if all(hasattr(setting.method, field) for field in fields[change]))


def _first_three(*changes: str | None) -> tuple[str, ...]:
    return tuple(filter(None, changes))[:3]


def _mean_log(counts: tuple[int, ...]) -> float:
    return sum(math.log(count) for count in counts) / len(counts) if counts else -math.inf


def _assignment_loss(history: History) -> str:
    """The column of the unlabelled loss: Suave reports it separately."""
    return "train/loss" if np.isnan(history.column("train/swapped")).all() else "train/swapped"


def _lower_epsilon(setting: Setting) -> str | None:
    epsilon = setting.get("epsilon", None)
    return None if epsilon is None else f"set method.epsilon={0.05 if epsilon > 0.05 else round(0.6 * epsilon, 4)}"


def _freeze_longer(setting: Setting) -> str | None:
    steps = setting.get("freeze_steps", None)
    return None if steps is None else f"freeze prototypes for longer: method.freeze_steps={max(100, 3 * steps)}"
