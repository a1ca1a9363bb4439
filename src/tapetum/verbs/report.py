"""`tapetum report`: all about a run in one page that opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tapetum.reporting.report_page import render
from tapetum.runs.review import review
from tapetum.runs.trained_run import open_trained_run
from tapetum.system.files import whole_file


def report(run: str | Path, output: str | Path | None = None, plugins: Sequence[str] = ()) -> Path:
    """Write one HTML file about a run: settings and command, curves, confusions, a map, and predictions with reasons.

    It needs no network and holds no script. What is judged: test images, where the run has some, else held-out labels,
    else nothing, and then no accuracy is shown.

    Args:
        run: its folder.
        output: the page; None: `report.html` in the run's folder.
        plugins: modules to import first, which register methods.

    Returns:
        The path written.

    Raises:
        ValueError: no run folder, no checkpoint, or a page that cannot be written.

    Example:
        >>> import tapetum
        >>> page = tapetum.report("runs/first")  # doctest: +SKIP
    """
    trained = open_trained_run(run, plugins)
    path = trained.folder / "report.html" if output is None else Path(output)
    text = render(review(trained))
    with whole_file(path) as partial:
        # File names that are no text: what cannot be shown is replaced.
        partial.write_text(text, encoding="utf-8", errors="replace")
    print(f"Written to {path}, {path.stat().st_size / 1e6:.1f} MB; open it in a browser.")
    print(f"Next: tapetum predict {run} DIR --output predictions.csv")
    return path
