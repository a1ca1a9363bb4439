"""`tapetum label`: a page on this machine to label images by keyboard, train, and correct predictions."""

import getpass
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from tapetum.data.images.decoding import decode
from tapetum.data.images.stores import FileStore
from tapetum.data.sources.open_source import NO_LABELS, open_source
from tapetum.labelling.pictures import Pool
from tapetum.recipe.files import RECIPE
from tapetum.system.notices import notify

_LABELS = "labels.csv"


def label(
    images: str | Path,
    labels: str | Path | None = None,
    run: str | Path | None = None,
    suggested: str | Path | None = None,
    port: int | None = None,
) -> None:
    """Show a page on which a person labels images by keyboard, trains on the labels, and corrects predictions.

    The page listens on 127.0.0.1 alone, under an address with a secret token, which is printed. Every answer is on disk
    before the next image is shown. Returns after Ctrl-C; what is being trained then goes on.

    Args:
        images: a folder of images, nested in any way, or a list of image files.
        labels: the CSV of `path,label` lines to write, which `fit` reads; it may exist. None for labels.csv.
        run: a trained run, whose predictions and suggestions are shown; trainings from the page follow it.
        suggested: a table of `suggest`, whose images are asked first.
        port: where the page listens; None for any free port.

    Raises:
        ValueError: there are no image files, the label file is faulty or cannot be written, there is no such run or
            table, the port is taken, or Starlette and uvicorn are not installed.

    Example:
        >>> import tapetum
        >>> tapetum.label("photos", labels="labels.csv")  # doctest: +SKIP
    """
    try:
        from tapetum.labelling.server import serve
        from tapetum.labelling.session import Session
    except ImportError as error:
        raise ValueError(
            f"the page needs Starlette and uvicorn ({error}): install them with pip install 'tapetum[label]'."
        ) from error
    if suggested is not None and not Path(suggested).is_file():
        raise ValueError(f"there is no table {suggested}: make one with `tapetum suggest`, or leave it out.")
    if run is not None and not (Path(run) / RECIPE).is_file():
        raise ValueError(f"{run} is no run folder (it has no {RECIPE}): give the --output of an earlier run.")
    target = Path(_LABELS if labels is None else labels).expanduser()
    session = Session(
        _pool(images),
        target,
        _user(),
        run=None if run is None else Path(run).resolve(),
        suggested=None if suggested is None else Path(suggested),
    )
    with suppress(KeyboardInterrupt):
        serve(session, port or 0, lambda address: _tell(address, session.answers.path))
    print(f"Stopped. Answers are in {session.answers.path}; the same command goes on with them.")


def _pool(images: str | Path) -> Pool:
    store = open_source(images, NO_LABELS).store
    if not isinstance(store, FileStore):
        raise ValueError(
            f"{images} holds arrays: label shows image files, so give a folder of them or a list of paths."
        )
    names = [name for name in store.names if _is_text(name)]
    if len(names) < len(store):
        odd = next(name for name in store.names if not _is_text(name)).encode(errors="backslashreplace").decode()
        notify(f"{len(store) - len(names)} images are left out, such as {odd}: rename them in UTF-8 to label them")
    root = Path(os.path.abspath(store.folder))
    path = Path(os.path.abspath(Path(images).expanduser()))

    def open_image(name: str, side: int) -> Image.Image:
        return Image.fromarray(decode(root / name, side).permute(1, 2, 0).numpy())

    return Pool(str(root if path.is_dir() else path), root, tuple(names), open_image)


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _tell(address: str, labels: Path) -> None:
    print(f"Open {address}")
    print(f"Answers go to {labels}. Stop with Ctrl-C: everything is saved, and a training goes on.")
    print(f"Next: tapetum fit --images DIR --labels {labels} --output runs/first", flush=True)


def _user() -> Any:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        return "unknown"
