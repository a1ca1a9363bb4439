"""What a run learns from, as a recipe's `data:` section says it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images and labels that a run learns from. All sizes are global: they are divided among the processes."""

    images: str | None = None
    """The pool: a folder of images (one folder per class, or flat), a .txt or .csv file of image paths,
    a zip, tar or Parquet file, a folder of these, an address such as `s3://bucket/folder`, `cifar-10-batches-py`, a
    folder of IDX files or of SVHN's .mat files, an .npy or .npz file, or `digits`."""
    labels: str | None = None
    """A CSV of `path,label`, a JSON file, a .txt list (names or indices) of the images that keep their own labels, an
    .npy file of labels or of such indices, or a folder of class folders whose images join the pool; null takes the
    labels that come with `images`, and `:NAME` a column of theirs. A file may be at an address."""
    test: str | None = None
    """Labelled images to evaluate on, only at the end of the run, in any form that `images` takes; null for none."""
    labels_per_class: int | None = None
    """Keep this many labels per class and treat the other images as unlabelled; null keeps all."""
    labels_percent: float | None = None
    """Keep this percentage of the labels of each class, but at least one; null keeps all."""
    held_out_per_class: int | None = None
    """Keep this many labelled images per class out of training, even as unlabelled images, and measure accuracy on
    them during training; null for none. They are drawn from all labels, before `labels_per_class`."""
    held_out_share: float | None = None
    """Like `held_out_per_class`, but hold out this share of the labels that `labels_per_class` leaves in each class:
    at least one if a class has three or more labels, none if it has fewer. Null for none."""
    folds: int | None = None
    """Before training, measure accuracy on all labels by this many short runs, each with a different part of each
    class's labels held out (cross-validation); the training itself holds none out. Null for none."""
    fold: int | None = None
    """Number, from 0, of the part held out if this run is one of the short runs of `folds`; null if not."""
    pool: bool = True
    """Whether unlabelled images are used; false cuts the pool to the labelled images (an ablation)."""
    label_seed: int = 0
    """Seed of the random choice of labels by `labels_per_class`, `labels_percent`, `held_out_per_class`,
    `held_out_share` and `folds`."""
    shrink_to: int | None = None
    """Shrink image files as they are read, so that the shorter side has at most this many pixels: this is faster and
    lets a pool of photographs be decoded once. Null reads them at full size. Arrays are not shrunk."""
    strict: bool = False
    """Whether an image that cannot be read stops the run; false skips it and lists it in unreadable.csv."""
    batch_size: int = 256
    """Pool images per batch; each batch gives one loss."""
    workers: int = 0
    """Processes that read and crop images in advance; 0 uses the training process, best for images in memory."""

    def __post_init__(self) -> None:
        for name in ("labels_per_class", "held_out_per_class", "shrink_to", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: use 1 or more.")
        if self.labels_percent is not None and self.labels_per_class is not None:
            raise ValueError(
                f"labels_percent is {self.labels_percent:g} and labels_per_class is {self.labels_per_class}: set one "
                "of them to null."
            )
        if self.labels_percent is not None and not 0 < self.labels_percent <= 100:
            raise ValueError(f"labels_percent is {self.labels_percent:g}: use more than 0 and at most 100.")
        if self.held_out_share is not None:
            if not 0 < self.held_out_share < 1:
                raise ValueError(f"held_out_share is {self.held_out_share}: use a share between 0 and 1, such as 0.2.")
            if self.held_out_per_class is not None:
                raise ValueError(
                    f"held_out_share is {self.held_out_share} and held_out_per_class is {self.held_out_per_class}: set "
                    "one of them to null."
                )
        if self.folds is not None and (self.folds < 2 or self.held_out_share or self.held_out_per_class):
            raise ValueError(
                f"folds is {self.folds}: use 2 or more, and set held_out_share and held_out_per_class to null."
            )
        if self.fold is not None and not 0 <= self.fold < (self.folds or 0):
            raise ValueError(f"fold is {self.fold}: use null, or a number from 0 to folds - 1.")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}: use 0 or more.")
