"""`tapetum report`: write everything about a run to one page that opens anywhere."""

from collections.abc import Sequence
from pathlib import Path

from tapetum.reporting.pages import is_page
from tapetum.reporting.report_page import render
from tapetum.runs.places import moved_to
from tapetum.runs.review import review
from tapetum.runs.trained_run import open_trained_run
from tapetum.system.files import refuse_foreign, whole_file


def report(
    run: str | Path,
    output: str | Path | None = None,
    plugins: Sequence[str] = (),
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
) -> Path:
    """Write one HTML file about a run: settings and command, curves, confusions, a map, and predictions with reasons.

    The page needs no network and contains no script. Accuracy is measured on test images or, if the run has none, on
    held-out labels; without either, none is shown.

    Args:
        run: the run's folder.
        output: the page; None for `report.html` in the run's folder.
        plugins: modules to import first; they register methods.
        images, labels: where the run's own images and labels are now, if they have been moved.

    Returns:
        The path written.

    Raises:
        ValueError: there is no run folder or no checkpoint, or the page cannot be written.

    Example:
        >>> import tapetum
        >>> page = tapetum.report("runs/first")  # doctest: +SKIP
    """
    if output is not None:
        refuse_foreign(Path(output), is_page)
    trained = open_trained_run(run, plugins, moved=moved_to(images, labels))
    path = trained.folder / "report.html" if output is None else Path(output)
    text = render(review(trained))
    with whole_file(path) as partial:
        # File names need not be valid text: bytes that cannot be shown are replaced.
        partial.write_text(text, encoding="utf-8", errors="replace")
    print(f"Written to {path}, {path.stat().st_size / 1e6:.1f} MB; open it in a browser.")
    print(f"Next: tapetum predict {run} DIR --output predictions.csv")
    return path
