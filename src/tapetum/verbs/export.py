"""`tapetum export`: write a trained model for other tools."""

from collections.abc import Sequence
from pathlib import Path

from tapetum.interchange.exports.formats import HOLD_SUPPORTS, exporter, usage
from tapetum.runs.places import moved_to
from tapetum.runs.trained_model import trained_model
from tapetum.runs.trained_run import open_trained_run
from tapetum.system.files import refuse_taken, sole_writing
from tapetum.system.notices import notify


def export(
    run: str | Path,
    output: str | Path,
    format: str,
    plugins: Sequence[str] = (),
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
) -> Path:
    """Write a run's model so that another tool's own loader reads it, with classes and preprocessing.

    The weights are in float32. A format that would lose something that predictions depend on refuses the model.

    Args:
        run: the run's folder; its last checkpoint is used, or its best one with `trainer.keep_best`.
        output: a new file (safetensors, torchvision, onnx) or a new folder (timm, torch.hub, huggingface).
        format: one of `tapetum.interchange.exports.formats.FORMATS`.
        plugins: modules to import first; they register methods.
        images, labels: where the run's own images and labels are now, if they have been moved.

    Returns:
        The path written.

    Raises:
        ValueError: there is no run folder, format or room; the output exists already; or the format cannot hold the
            model.

    Example:
        >>> import tapetum
        >>> path = tapetum.export("runs/first", "first-timm", "timm")  # doctest: +SKIP
    """
    write = exporter(format)
    path = Path(output)
    refuse_taken(path)
    with sole_writing(path):
        trained = open_trained_run(run, plugins, needs_labels=False, moved=moved_to(images, labels))
        trained.check_names(all_parts=format == "safetensors")
        model = trained_model(trained, with_supports=format in HOLD_SUPPORTS)
        refuse_taken(path)
        write(model, path)
    shrink_to = trained.parts.recipe.data.shrink_to
    if shrink_to is not None:
        notify(
            f"this run shrinks photographs to {shrink_to} pixels when it reads them (data.shrink_to); other tools "
            "resize them only once, so pixels, and rarely a prediction, can differ slightly"
        )
    print(f"Exported {model.name} as {format}: {path}")
    if not trained.is_finished:
        print(f"The run has not finished: these are its weights after step {trained.checkpoint.step}.")
    if (lines := usage(format, model, path)) is not None:
        print(f"To use it:\n\n{lines}\n")
    use = "predict" if trained.classes else "embed"
    print(f"Next: tapetum {use} {trained.folder} DIR --output {'predictions.csv' if trained.classes else 'images.npz'}")
    return path
