"""`tapetum plot`: a run as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tapetum.reporting.figures import write_figures
from tapetum.runs.review import review
from tapetum.runs.trained_run import open_trained_run


def plot(
    run: str | Path, output: str | Path | None = None, umap: bool = False, plugins: Sequence[str] = ()
) -> list[Path]:
    """Draw a run: curves of loss and accuracy, a map of its images, the confusion matrix, how far to trust confidence.

    Confusion and reliability are of test images, where the run has some, else of held-out labels, else not drawn.

    Args:
        run: its folder.
        output: a folder for the pictures; None: `plots` in the run's.
        umap: whether to draw a map by UMAP, too.
        plugins: modules to import first, which register methods.

    Returns:
        The files, a PNG and an SVG of each picture.

    Raises:
        ValueError: no run folder, or a package that is not installed.

    Example:
        >>> import tapetum
        >>> files = tapetum.plot("runs/first")  # doctest: +SKIP
    """
    trained = open_trained_run(run, plugins)
    seen = review(trained)
    folder = trained.folder / "plots" if output is None else Path(output)
    written = write_figures(seen, folder, umap)
    print(f"Drawn into {folder}: {', '.join(dict.fromkeys(path.stem for path in written))}; PNG and SVG each.")
    if seen.judged is None:
        print(seen.no_accuracy)
    print(f"Next: tapetum report {run}")
    return written
