"""`tapetum plot`: draw a run as pictures."""

from collections.abc import Sequence
from pathlib import Path

from tapetum.data.sources.folders import refuse_among
from tapetum.reporting.figures import write_figures
from tapetum.runs.places import moved_to
from tapetum.runs.review import review
from tapetum.runs.run_folder import LOCK
from tapetum.runs.trained_run import open_trained_run
from tapetum.system.files import owned, writing


def plot(
    run: str | Path,
    output: str | Path | None = None,
    umap: bool = False,
    plugins: Sequence[str] = (),
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
) -> list[Path]:
    """Draw a run: curves of loss and accuracy, a map of its images, the confusion matrix, and a reliability diagram.

    The last two need test images or, if the run has none, held-out labels; without either they are not drawn.

    Args:
        run: the run's folder.
        output: a folder for the pictures; None for `plots` in the run's folder.
        umap: whether to draw a map by UMAP as well.
        plugins: modules to import first; they register methods.
        images, labels: where the run's own images and labels are now, if they have been moved.

    Returns:
        The files: a PNG and an SVG of each picture.

    Raises:
        ValueError: there is no run folder, or a package is not installed.

    Example:
        >>> import tapetum
        >>> files = tapetum.plot("runs/first")  # doctest: +SKIP
    """
    trained = open_trained_run(run, plugins, moved=moved_to(images, labels))
    seen = review(trained)
    folder = trained.folder / "plots" if output is None else Path(output)
    refuse_among(folder / LOCK, trained.parts.recipe.data.images)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with owned(folder / LOCK):
        written = write_figures(seen, folder, umap)
    print(f"Pictures in {folder}: {', '.join(dict.fromkeys(path.stem for path in written))}, each as PNG and SVG.")
    if seen.judged is None:
        print(seen.no_accuracy)
    print(f"Next: tapetum report {run}")
    return written
