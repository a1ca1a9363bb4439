"""Commands that use what has been trained, and that show recipes: their parameters and help."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli.app import command
from tapetum.cli.arguments import (
    Images,
    Labels,
    LabelsPercent,
    LabelsPerClass,
    Overrides,
    Plugins,
    Recipe,
    Run,
    RunImages,
    RunLabels,
    Weights,
)

_TEST = "Labelled images unseen in training. Default: the recipe's test images, or else the held-out labels."


@command
def evaluate(
    run: Weights,
    test: Annotated[str | None, typer.Option(metavar="DIR", help=_TEST)] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="soft_nn (default), knn, linear, linear_crops, finetune or suncet."),
    ] = None,
    images: Images = None,
    labels: Labels = None,
    labels_per_class: LabelsPerClass = None,
    labels_percent: LabelsPercent = None,
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


@command
def predict(
    run: Run,
    images: Annotated[str, typer.Argument(metavar="DIR", help="Folder with images to predict, including subfolders.")],
    output: Annotated[Path, typer.Option(metavar="FILE.CSV", help="The table to write.")],
    neighbours: Annotated[int | None, typer.Option(metavar="K", help="Labelled images per row (default 3).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Write a JSON object per line instead of CSV.")] = False,
    reject: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Mark images unlike the labelled ones, e.g. 0.05 of these.")
    ] = None,
    plugins: Plugins = None,
    run_images: RunImages = None,
    run_labels: RunLabels = None,
) -> None:
    """Predict the class of every image, with reasons.

    \b
    Example:  tapetum predict runs/first photos --output predictions.csv
    """


@command
def embed(
    run: Run,
    images: Annotated[str, typer.Argument(metavar="DIR", help="Folder with images to embed, including subfolders.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file to write: .npz or .parquet.")],
    plugins: Plugins = None,
    run_images: RunImages = None,
    run_labels: RunLabels = None,
) -> None:
    """Write the embedding of every image.

    \b
    Example:  tapetum embed runs/first photos --output photos.npz
    """


@command
def cluster(
    run: Run,
    images: Annotated[str, typer.Argument(metavar="DIR", help="Folder with images to cluster, including subfolders.")],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the table and contact sheets.")],
    clusters: Annotated[int | None, typer.Option(metavar="K", help="Find K clusters by k-means.")] = None,
    plugins: Plugins = None,
    run_images: RunImages = None,
    run_labels: RunLabels = None,
) -> None:
    """Sort images into clusters, with a picture of each.

    \b
    Example:  tapetum cluster runs/first photos --clusters 20 --output clusters
    """


@command
def suggest(
    pool: Annotated[str, typer.Argument(metavar="RUN|DIR", help="A run, whose pool is meant, or images.")],
    count: Annotated[int, typer.Option(metavar="N", help="How many images to suggest.")],
    output: Annotated[Path, typer.Option(metavar="FILE.CSV", help="The table to write, and a picture beside it.")],
    labels: Annotated[str | None, typer.Option(metavar="FILE|DIR", help="Labels given so far; none for none.")] = None,
    frozen: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="For DIR: compare images by timm:NAME, a run, or a file.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="For DIR: train on it without labels for M minutes first.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="typiclust, probcover, kcenter, margin, badge, doubt or random."),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", help="Decides what is drawn (default 0).")] = None,
    plugins: Plugins = None,
    images: RunImages = None,
) -> None:
    """Find out which images to label next.

    \b
    Example:  tapetum suggest runs/swav --count 40 --output to_label.csv
    """


@command
def add_class(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images of one class, including subfolders.")],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The class. Default: the folder's name.")] = None,
    plugins: Plugins = None,
    images: RunImages = None,
    labels: RunLabels = None,
) -> None:
    """Give a trained run another class, without training.

    \b
    Example:  tapetum add-class runs/first photos/heron
    """


@command
def export(
    run: Run,
    format: Annotated[
        str, typer.Option(metavar="NAME", help="safetensors, torchvision, timm, torch.hub, huggingface or onnx.")
    ],
    output: Annotated[Path, typer.Option(metavar="PATH", help="The new file or folder to write.")],
    plugins: Plugins = None,
    images: RunImages = None,
    labels: RunLabels = None,
) -> None:
    """Write a model for other tools.

    \b
    Example:  tapetum export runs/first --format timm --output first-timm
    """


@command
def labels(
    labels: Annotated[str, typer.Argument(metavar="LABELS|RUN", help="Labels in any form fit takes, or a run.")],
    format: Annotated[
        str, typer.Option(metavar="NAME", help="label-studio, cvat, coco, fiftyone, imagefolder or csv.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The new file to write.")],
    images: Annotated[str | None, typer.Option(metavar="DIR", help="The images, if not those of LABELS.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Of predict, for review in Label Studio.")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Write labels for other tools.

    \b
    Example:  tapetum labels labels.csv --images photos --format label-studio --output tasks.json
    """


@command
def plot(
    run: Run,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the pictures.")] = None,
    umap: Annotated[bool, typer.Option("--umap", help="Also draw a map by UMAP.")] = False,
    plugins: Plugins = None,
    images: RunImages = None,
    labels: RunLabels = None,
) -> None:
    """Draw a run's curves, image map and confusion matrix.

    \b
    Example:  tapetum plot runs/first
    """


@command
def report(
    run: Run,
    output: Annotated[Path | None, typer.Option(metavar="FILE.HTML", help="The page to write.")] = None,
    plugins: Plugins = None,
    images: RunImages = None,
    labels: RunLabels = None,
) -> None:
    """Write everything about a run to one HTML page.

    \b
    Example:  tapetum report runs/first
    """


@command
def review(
    run: Run,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="New folder for the tables and the page.")],
    plugins: Plugins = None,
    images: RunImages = None,
    labels: RunLabels = None,
) -> None:
    """Find labels that may be wrong, and doubtful predictions.

    \b
    Example:  tapetum review runs/first --output second-look
    """


@command
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe in full.")] = None,
    fields: Annotated[str | None, typer.Option(metavar="METHOD", help="Print what METHOD lets you set.")] = None,
    plugins: Plugins = None,
) -> None:
    """List recipes, print one, or explain a method's fields.

    \b
    Example:  tapetum recipes --fields paws
    """


@command
def views(
    recipe: Recipe,
    output: Annotated[Path, typer.Option(metavar="SHEET.PNG", help="The picture to write.")],
    images: Annotated[str | None, typer.Option(metavar="DIR", help="Images to show instead of the recipe's.")] = None,
    overrides: Overrides = None,
    plugins: Plugins = None,
) -> None:
    """Draw the augmented views that a recipe trains on.

    \b
    Example:  tapetum views paws_cifar10_4000 --images photos --output sheet.png
    """
