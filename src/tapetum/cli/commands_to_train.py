"""Commands that train, and what comes before and goes with it: their parameters and help."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli.app import command
from tapetum.cli.arguments import (
    Images,
    Labels,
    LabelsPercent,
    LabelsPerClass,
    Output,
    Overrides,
    Plugins,
    Recipe,
    RunImages,
    RunLabels,
    Test,
    Weights,
)


@command
def demo(
    output: Annotated[Path | None, typer.Option(metavar="RUN", help="Keep the run in this new folder.")] = None,
) -> None:
    """See Tapetum work on small images; nothing to download.

    \b
    Example:  tapetum demo
    """


@command
def fit(
    images: Annotated[str, typer.Option(metavar="DIR", help="All images, labelled or not.")],
    output: Output,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE|DIR", help="CSV of path,label lines (or JSON, ...), or class folders.")
    ] = None,
    test: Test = None,
    labels_per_class: LabelsPerClass = None,
    labels_percent: LabelsPercent = None,
    minutes: Annotated[float | None, typer.Option(metavar="M", help="Train for about M minutes (default 10),")] = None,
    epochs: Annotated[float | None, typer.Option(metavar="E", help="or for E passes over the images,")] = None,
    steps: Annotated[int | None, typer.Option(metavar="S", help="or for S steps.")] = None,
    folds: Annotated[
        int | None, typer.Option(metavar="K", help="Measure on all labels, by K short runs that each hold out some.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="Start from these weights: timm:NAME, a run, or a file.")
    ] = None,
    frozen: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="Train nothing; evaluate these weights as they are.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at unreadable images instead of skipping.")] = False,
    overrides: Overrides = None,
    plugins: Plugins = None,
) -> None:
    """Train on your own images, with settings chosen to suit.

    \b
    Example:  tapetum fit --images photos --labels labels.csv --minutes 60 --output runs/first
    """


@command
def check(
    images: Annotated[str, typer.Argument(metavar="DIR", help="The images, labelled or not.")],
    labels: Labels = None,
    test: Annotated[str | None, typer.Option(metavar="DIR", help="Test images; reports those also in DIR.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="New folder for a page and JSON file.")] = None,
) -> None:
    """Find problems in images before training on them.

    \b
    Example:  tapetum check photos --labels labels.csv --output health
    """


@command
def label(
    images: Annotated[str, typer.Argument(metavar="DIR", help="The images, in any subfolders, or a list of them.")],
    labels: Annotated[
        str | None, typer.Option(metavar="FILE.CSV", help="The path,label lines to write (default labels.csv).")
    ] = None,
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="Begin with this run's predictions.")] = None,
    suggested: Annotated[
        Path | None, typer.Option(metavar="FILE.CSV", help="A table of suggest: ask these images first.")
    ] = None,
    port: Annotated[int | None, typer.Option(metavar="P", help="Where to listen (default: any free port).")] = None,
) -> None:
    """Label images on a page in the browser, and train there.

    \b
    Example:  tapetum label photos --labels labels.csv
    """


@command
def train(
    recipe: Recipe,
    output: Output,
    overrides: Overrides = None,
    plugins: Plugins = None,
) -> None:
    """Train exactly what a recipe says.

    \b
    Example:  tapetum train paws_cifar10_4000 --output runs/cifar data.images=cifar-10-batches-py
    """


@command
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was stopped.")],
    inexact: Annotated[bool, typer.Option("--inexact", help="Continue even if machine or versions differ.")] = False,
    plugins: Plugins = None,
    images: RunImages = None,
    labels: RunLabels = None,
    test: Annotated[str | None, typer.Option(metavar="DIR", help="Where its test images are now, if moved.")] = None,
) -> None:
    """Continue a stopped run, to a bit-identical result.

    \b
    Example:  tapetum resume runs/first
    """


@command
def submit(
    recipes: Annotated[
        list[str], typer.Argument(metavar="RECIPE... [KEY=VALUE...]", help="Recipes, and values to set in all of them.")
    ],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the run folders, named after recipes.")],
    cluster: Annotated[str, typer.Option(metavar="NAME", help="slurm, or local for this machine.")] = "slurm",
    partition: Annotated[str | None, typer.Option(metavar="NAME", help="Slurm partition.")] = None,
    nodes: Annotated[int, typer.Option(metavar="N", help="Machines per job.")] = 1,
    processes: Annotated[int | None, typer.Option(metavar="N", help="Processes per machine.")] = None,
    gpus: Annotated[int | None, typer.Option(metavar="N", help="GPUs per machine, with one process each.")] = None,
    cpus: Annotated[int | None, typer.Option(metavar="N", help="CPUs per process.")] = None,
    hours: Annotated[float | None, typer.Option(metavar="H", help="Time limit; a job then queues again.")] = None,
    minutes: Annotated[int | None, typer.Option(metavar="M", help="Minutes to add to these hours.")] = None,
    plugins: Plugins = None,
) -> None:
    """Train recipes as jobs of a Slurm cluster.

    \b
    Example:  tapetum submit paws_cifar10_4000 --output runs --gpus 1 --hours 12 data.images=cifar-10-batches-py
    """


@command
def doctor(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder of a run.")] = None,
    install: Annotated[bool, typer.Option("--install", help="Look at the installation instead of a run.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of sentences.")] = False,
    plugins: Plugins = None,
) -> None:
    """Find out what is wrong with a run or the installation.

    \b
    Example:  tapetum doctor runs/first
    """


@command
def finetune(
    weights: Weights,
    output: Output,
    images: Images = None,
    labels: Labels = None,
    test: Test = None,
    labels_per_class: LabelsPerClass = None,
    labels_percent: LabelsPercent = None,
    overrides: Overrides = None,
    plugins: Plugins = None,
) -> None:
    """Make an ordinary classifier of a pretrained network.

    \b
    Example:  tapetum finetune runs/first --output runs/classifier
    """
