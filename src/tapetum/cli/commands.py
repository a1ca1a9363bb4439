"""The commands: the parameters and help of each verb. A command calls the public function of the same name.

Verbs are imported when their command is called, so that `tapetum --help` loads no torch. Defaults and behaviour belong
to the verbs, not here.
"""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tapetum.system.launcher import launched

_REPEATABLE = ("overrides", "plugins", "recipes")  # lists on the command line, tuples in Python
_SHARED = ("fit", "train", "resume", "finetune")  # the verbs that several processes can run together

# Plain text: Typer's rich help costs a third of the time that `--help` may take.
app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe values to set, e.g. optimizer.lr.peak=1.6")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Output = Annotated[Path, typer.Option(metavar="RUN", help="New folder for checkpoints, metrics and the recipe.")]
_TEST = "Labelled images unseen in training. Default: the recipe's test images, or else the held-out labels."
Plugins = Annotated[list[str] | None, typer.Option("--plugin", metavar="MODULE", help="Import this first; repeatable.")]


def _command(declared: Callable[..., None]) -> Callable[..., None]:
    """Make a command from a verb's parameters and help. It calls the public function of the same name."""

    @functools.wraps(declared)
    def run(**given: Any) -> None:
        name, place = declared.__name__, launched()
        if place is not None and place.world_size > 1 and name not in _SHARED:
            raise ValueError(
                f"{place.by} started {place.world_size} processes, but {name.replace('_', '-')} needs one: "
                f"call it without {place.by}."
            )
        verb = getattr(importlib.import_module(f"tapetum.verbs.{name}"), name)
        verb(**{key: tuple(value or ()) if key in _REPEATABLE else value for key, value in given.items()})

    return app.command()(run)


@_command
def demo(
    output: Annotated[Path | None, typer.Option(metavar="RUN", help="Keep the run in this new folder.")] = None,
) -> None:
    """See Tapetum work on small images; nothing to download.

    \b
    Example:  tapetum demo
    """


@_command
def fit(
    images: Annotated[str, typer.Option(metavar="DIR", help="All images, labelled or not.")],
    output: Output,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE|DIR", help="CSV of path,label lines (or JSON, ...), or class folders.")
    ] = None,
    test: Annotated[str | None, typer.Option(metavar="DIR", help="Labelled images to test the result on.")] = None,
    labels_per_class: Annotated[int | None, typer.Option(metavar="N", help="Use only N labels of each class.")] = None,
    labels_percent: Annotated[
        float | None, typer.Option(metavar="P", help="Use only P percent of the labels of each class.")
    ] = None,
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
) -> None:
    """Train on your own images, with settings chosen to suit.

    \b
    Example:  tapetum fit --images photos --labels labels.csv --minutes 60 --output runs/first
    """


@_command
def check(
    images: Annotated[str, typer.Argument(metavar="DIR", help="The images, labelled or not.")],
    labels: Annotated[str | None, typer.Option(metavar="FILE|DIR", help="Their labels, in any form fit takes.")] = None,
    test: Annotated[str | None, typer.Option(metavar="DIR", help="Test images; reports those also in DIR.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="New folder for a page and JSON file.")] = None,
) -> None:
    """Find problems in images before training on them.

    \b
    Example:  tapetum check photos --labels labels.csv --output health
    """


@_command
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")],
    output: Output,
    overrides: Overrides = None,
    plugins: Plugins = None,
) -> None:
    """Train exactly what a recipe says.

    \b
    Example:  tapetum train paws_cifar10_4000 --output runs/cifar data.images=cifar-10-batches-py
    """


@_command
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was stopped.")],
    inexact: Annotated[bool, typer.Option("--inexact", help="Continue even if machine or versions differ.")] = False,
    plugins: Plugins = None,
) -> None:
    """Continue a stopped run, to a bit-identical result.

    \b
    Example:  tapetum resume runs/first
    """


@_command
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


@_command
def doctor(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of sentences.")] = False,
    plugins: Plugins = None,
) -> None:
    """Find out what is wrong with a run, and what to change.

    \b
    Example:  tapetum doctor runs/first
    """


@_command
def finetune(
    weights: Annotated[str, typer.Argument(metavar="RUN|FILE|timm:NAME", help="What to start from.")],
    output: Output,
    images: Annotated[str | None, typer.Option(metavar="DIR", help="Images, if not those of the run.")] = None,
    labels: Annotated[str | None, typer.Option(metavar="FILE|DIR", help="Labels, in any form fit takes.")] = None,
    test: Annotated[str | None, typer.Option(metavar="DIR", help="Labelled images to test the result on.")] = None,
    labels_per_class: Annotated[int | None, typer.Option(metavar="N", help="Use only N labels of each class.")] = None,
    labels_percent: Annotated[
        float | None, typer.Option(metavar="P", help="Use only P percent of the labels of each class.")
    ] = None,
    overrides: Overrides = None,
    plugins: Plugins = None,
) -> None:
    """Make an ordinary classifier of a pretrained network.

    \b
    Example:  tapetum finetune runs/first --output runs/classifier
    """


@_command
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN|FILE|timm:NAME", help="What to evaluate.")],
    test: Annotated[str | None, typer.Option(metavar="DIR", help=_TEST)] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="soft_nn (default), knn, linear, linear_crops, finetune or suncet."),
    ] = None,
    images: Annotated[str | None, typer.Option(metavar="DIR", help="Labelled images, if not those of the run.")] = None,
    labels: Annotated[str | None, typer.Option(metavar="FILE|DIR", help="Their labels, in any form fit takes.")] = None,
    labels_per_class: Annotated[int | None, typer.Option(metavar="N", help="Use only N labels of each class.")] = None,
    labels_percent: Annotated[
        float | None, typer.Option(metavar="P", help="Use only P percent of the labels of each class.")
    ] = None,
    draws: Annotated[int | None, typer.Option(metavar="N", help="Mean and spread over N draws of labels.")] = None,
    features: Annotated[
        str | None, typer.Option(metavar="NAME", help="What stands for an image: own, backbone or predictor.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", help="Of soft neighbours (default 0.1).")] = None,
    top_k: Annotated[int | None, typer.Option(metavar="K", help="Soft neighbours that vote (default all).")] = None,
    output: Annotated[Path | None, typer.Option(metavar="RUN", help="Folder for a protocol that trains.")] = None,
    overrides: Overrides = None,
    plugins: Plugins = None,
) -> None:
    """Measure accuracy on labelled images.

    \b
    Example:  tapetum evaluate runs/first --test photos/test
    """


@_command
def predict(
    run: Run,
    images: Annotated[str, typer.Argument(metavar="DIR", help="Folder with images to predict, including subfolders.")],
    output: Annotated[Path, typer.Option(metavar="FILE.CSV", help="The table to write.")],
    neighbours: Annotated[int | None, typer.Option(metavar="K", help="Labelled images per row (default 3).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Write a JSON object per line instead of CSV.")] = False,
    plugins: Plugins = None,
) -> None:
    """Predict the class of every image, with reasons.

    \b
    Example:  tapetum predict runs/first photos --output predictions.csv
    """


@_command
def embed(
    run: Run,
    images: Annotated[str, typer.Argument(metavar="DIR", help="Folder with images to embed, including subfolders.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file to write: .npz or .parquet.")],
    plugins: Plugins = None,
) -> None:
    """Write the embedding of every image.

    \b
    Example:  tapetum embed runs/first photos --output photos.npz
    """


@_command
def cluster(
    run: Run,
    images: Annotated[str, typer.Argument(metavar="DIR", help="Folder with images to cluster, including subfolders.")],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the table and contact sheets.")],
    clusters: Annotated[int | None, typer.Option(metavar="K", help="Find K clusters by k-means.")] = None,
    plugins: Plugins = None,
) -> None:
    """Sort images into clusters, with a picture of each.

    \b
    Example:  tapetum cluster runs/first photos --clusters 20 --output clusters
    """


@_command
def add_class(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images of one class, including subfolders.")],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The class. Default: the folder's name.")] = None,
    plugins: Plugins = None,
) -> None:
    """Give a trained run another class, without training.

    \b
    Example:  tapetum add-class runs/first photos/heron
    """


@_command
def export(
    run: Run,
    format: Annotated[
        str, typer.Option(metavar="NAME", help="safetensors, torchvision, timm, torch.hub, huggingface or onnx.")
    ],
    output: Annotated[Path, typer.Option(metavar="PATH", help="The new file or folder to write.")],
    plugins: Plugins = None,
) -> None:
    """Write a model for other tools.

    \b
    Example:  tapetum export runs/first --format timm --output first-timm
    """


@_command
def plot(
    run: Run,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the pictures.")] = None,
    umap: Annotated[bool, typer.Option("--umap", help="Also draw a map by UMAP.")] = False,
    plugins: Plugins = None,
) -> None:
    """Draw a run's curves, image map and confusion matrix.

    \b
    Example:  tapetum plot runs/first
    """


@_command
def report(
    run: Run,
    output: Annotated[Path | None, typer.Option(metavar="FILE.HTML", help="The page to write.")] = None,
    plugins: Plugins = None,
) -> None:
    """Write everything about a run to one HTML page.

    \b
    Example:  tapetum report runs/first
    """


@_command
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe in full.")] = None,
    fields: Annotated[str | None, typer.Option(metavar="METHOD", help="Print what METHOD lets you set.")] = None,
) -> None:
    """List recipes, print one, or explain a method's fields.

    \b
    Example:  tapetum recipes --fields paws
    """


@_command
def views(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")],
    output: Annotated[Path, typer.Option(metavar="SHEET.PNG", help="The picture to write.")],
    images: Annotated[str | None, typer.Option(metavar="DIR", help="Images to show instead of the recipe's.")] = None,
    overrides: Overrides = None,
) -> None:
    """Draw the augmented views that a recipe trains on.

    \b
    Example:  tapetum views paws_cifar10_4000 --images photos --output sheet.png
    """
