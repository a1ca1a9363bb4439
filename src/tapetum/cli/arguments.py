"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Weights = Annotated[str, typer.Argument(metavar="RUN|FILE|timm:NAME", help="A run, a file of weights, or timm's.")]
Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe values to set, e.g. optimizer.lr.peak=1.6")
]

Output = Annotated[Path, typer.Option(metavar="RUN", help="New folder for checkpoints, metrics and the recipe.")]
Images = Annotated[str | None, typer.Option(metavar="DIR", help="Labelled images, if not those of the run.")]
Labels = Annotated[str | None, typer.Option(metavar="FILE|DIR", help="Their labels, in any form fit takes.")]
RunImages = Annotated[
    str | None, typer.Option("--images", metavar="DIR", help="Where the run's own images are now, if moved.")
]
RunLabels = Annotated[
    str | None, typer.Option("--labels", metavar="FILE|DIR", help="Where the run's own labels are now, if moved.")
]
Test = Annotated[str | None, typer.Option(metavar="DIR", help="Labelled images to test the result on.")]
LabelsPerClass = Annotated[int | None, typer.Option(metavar="N", help="Use only N labels of each class.")]
LabelsPercent = Annotated[
    float | None, typer.Option(metavar="P", help="Use only P percent of the labels of each class.")
]
Plugins = Annotated[list[str] | None, typer.Option("--plugin", metavar="MODULE", help="Import this first; repeatable.")]
