"""Commands to strike: a verb, a method and a number of processes, on images that take a fraction of a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tapetum.ops.randomness import make_keys, uniform

CLASSES = ("red", "green", "blue")
_HEAD = "head: {hidden: 8, output: 4, layers: 2}"
METHODS = {
    "paws": f"supervised_weight: 0.5, {_HEAD}",
    "ropaws": _HEAD,
    "simclr": _HEAD,
    "suncet": f"supervised_epochs: 1, {_HEAD}",
    "swav": f"num_prototypes: [4], queue_length: 16, queue_start_epoch: 1, {_HEAD}",
    "deepcluster": f"num_prototypes: [4, 3], {_HEAD}",
    "sela": f"num_prototypes: [4, 3], {_HEAD}",
    "suave": f"queue_length: 16, queue_start_epoch: 1, {_HEAD}",
    "fixmatch": "threshold: null, even_classes: true, teacher_decay: 0.9, unlabelled_start: 0.3, suncet_weight: 0.3, "
    + _HEAD,
    "supervised": "",
}
"""Methods that train, with settings that bring their state into play within a few steps."""
_WITH_SUPPORT = ("paws", "ropaws", "suncet", "suave", "fixmatch", "supervised")
_SMALL_VIEWS = {"fixmatch": "{size: 8, count: 1, scale: [0.3, 1.0], brightness: 0.6}"}
"""Of methods that need them."""
_RECIPE = """description: a few steps
method: {{kind: {method}, {settings}}}
backbone: {{kind: small_net, stem: 4, widths: [4, 4]}}
data: {{images: photos, test: unseen, held_out_per_class: 1, batch_size: 8}}
views:
  large: {{size: 8, count: 2, scale: [0.5, 1.0], brightness: 0.3}}
  small: {small}
  mean: [0.4, 0.4, 0.4]
  std: [0.3, 0.3, 0.3]
  evaluation: {{crop: 8}}
optimizer: {{kind: sgd, weight_decay: 1e-4, lr: {{start: 0.05, peak: 0.1, final: 0.0, warmup_epochs: 1}}}}
runtime: {{accelerator: cpu, precision: float32, channels_last: false, threads: 1}}
trainer: {{steps: 8, log_every: 2, evaluate_every: 4, checkpoint_every: 3}}
"""
_FIT = ("data.batch_size=8", "trainer.checkpoint_every=3", "runtime.precision=float32", "runtime.channels_last=false")
_SMALL = ("backbone={kind: small_net, stem: 4, widths: [4, 4]}", "support.images_per_class=2", "data.shrink_to=null")


@dataclass(frozen=True)
class Begin:
    """A command that comes before the one to strike; if `until` is given, it is killed when an event names that."""

    command: tuple[str, ...]
    until: str | None = None


@dataclass(frozen=True)
class Case:
    """A command to strike."""

    verb: str
    method: str
    command: tuple[str, ...]
    begins: tuple[Begin, ...] = ()
    processes: int = 1
    run: str | None = None
    """The run folder that it trains in, for `resume`."""
    option: str = ""
    """What else tells it from others of the same verb and method."""

    @property
    def name(self) -> str:
        """Unique among cases, and a good name for a folder."""
        return "-".join(filter(None, (self.verb, self.option, self.method, str(self.processes))))

    def again(self, folder: Path) -> tuple[str, ...]:
        """What a user would type after it has been struck."""
        if self.run is not None and (folder / self.run / "recipe.yaml").is_file():
            return ("resume", self.run)
        return self.command


def write_data(folder: Path) -> None:
    """Write images in class folders, recipes that train on them, and a folder of one more class."""
    for part, per_class in (("photos", 8), ("unseen", 2)):
        for label, name in enumerate(CLASSES):
            _write_images(folder / part / name, per_class, (part, label), label)
    _write_images(folder / "grey", 3, ("grey",), None)
    for method, settings in METHODS.items():
        text = _RECIPE.format(method=method, settings=settings, small=_SMALL_VIEWS.get(method, "null"))
        if method in _WITH_SUPPORT:
            text += "support: {images_per_class: 4}\n"
        (folder / f"{method}.yaml").write_text(text)


def _write_images(folder: Path, count: int, key: Sequence[object], label: int | None) -> None:
    """Noisy images of 10x10 pixels, of one colour if they have a label."""
    folder.mkdir(parents=True)
    for number in range(count):
        noise = uniform(make_keys("faults", *map(str, key), number), 300).reshape(10, 10, 3)
        if label is not None:
            noise[..., label] += 1
        Image.fromarray((120 * noise).astype(np.uint8)).save(folder / f"{number:02d}.png")


def _train(method: str, run: str = "run") -> tuple[str, ...]:
    return ("train", f"{method}.yaml", "--output", run)


def _trained(method: str, run: str = "run") -> Begin:
    return Begin(_train(method, run))


def _using(verb: str, method: str, *arguments: str, option: str = "", processes: int = 1) -> Case:
    """A command that uses a finished run."""
    command = (verb.replace("_", "-"), "run", *arguments)
    return Case(verb, method, command, (_trained(method),), processes, option=option)


def all_cases() -> Iterator[Case]:
    """Every command there is to strike, those that train first."""
    yield from _training()
    yield _using("predict", "paws", "unseen", "--output", "out/table.jsonl", "--json", option="json")
    for processes in (1, 4):
        for method in METHODS:
            yield _using("predict", method, "unseen", "--output", "out/table.csv", processes=processes)
        for method in ("paws", "swav"):
            yield _using("embed", method, "unseen", "--output", "out/rows.npz", processes=processes)
            yield _using("evaluate", method, "--test", "unseen", processes=processes)
    yield _using("embed", "paws", "unseen", "--output", "out/rows.parquet", option="parquet")
    yield _using("evaluate", "paws", "--test", "unseen", "--protocol", "linear", option="linear")
    yield _using("cluster", "swav", "photos", "--output", "out")
    yield _using("cluster", "paws", "photos", "--output", "out", "--clusters", "3", option="k-means")
    yield _using("suggest", "paws", "--count", "3", "--labels", "none", "--output", "out/next.csv")
    yield _using("add_class", "paws", "grey")
    yield _using("report", "paws")
    yield _using("review", "paws", "--output", "out")
    yield _using("doctor", "paws")
    for format, ending in (("safetensors", ".safetensors"), ("torch.hub", "")):
        yield _using("export", "paws", "--format", format, "--output", f"out/model{ending}", option=format)
    yield _using("labels", "paws", "--format", "csv", "--output", "out/labels.csv", option="run")
    for format, ending in (("label-studio", ".json"), ("coco", ".json")):
        command = ("labels", "photos", "--format", format, "--output", f"out/labels{ending}")
        yield Case("labels", "", command, option=format)
    yield Case("check", "", ("check", "photos", "--test", "unseen", "--output", "out"))
    yield Case("views", "", ("views", "paws.yaml", "--output", "out/sheet.png"))
    yield Case("recipes", "", ("recipes",))


def _training() -> Iterator[Case]:
    for processes in (1, 4):
        for method in METHODS:
            yield Case("train", method, _train(method), processes=processes, run="run")
    for processes in (1, 4):
        for method in METHODS:
            begin = Begin(_train(method), "rename run/checkpoints/step-00000006")
            yield Case("resume", method, ("resume", "run"), (begin,), processes=processes, run="run")
    fit = ("fit", "--images", "photos", "--test", "unseen", "--steps", "4", "--output", "run", *_FIT, *_SMALL)
    yield Case("fit", "paws", fit, run="run")
    yield Case("fit", "paws", (*fit, "--folds", "2"), run="run", option="folds")
    frozen = ("fit", "--images", "photos", "--test", "unseen", "--output", "run", "--frozen", "earlier")
    yield Case("fit", "frozen", frozen, (_trained("paws", "earlier"),), run="run")
    tune = ("finetune", "earlier", "--output", "run", "trainer.steps=4", "trainer.checkpoint_every=3")
    yield Case("finetune", "finetune", tune, (_trained("swav", "earlier"),), run="run")
