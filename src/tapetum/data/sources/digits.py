"""scikit-learn's 1,797 grey images of 8x8 pixels of handwritten digits, in two parts."""

import numpy as np
import numpy.typing as npt

from tapetum.data.labels.labels import labels_from_values
from tapetum.data.labels.subsets import held_out
from tapetum.data.sources.arrays import Split


def read_digits(split: Split) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return (N, 8, 8) images scaled to 0..255, and their digits: 50 of each for "test", the others for "train"."""
    from sklearn.datasets import load_digits  # slow to import, and most runs do not need it

    digits = load_digits()
    # The published values are 0..16.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    values = digits.target.astype(np.int64)
    # Published in one part, ordered by writer, so the test part is drawn rather than cut off the end.
    train, test = held_out(labels_from_values([str(i) for i in range(len(values))], values), per_class=50, seed=0)
    rows = (train if split == "train" else test).labelled
    return images[rows], values[rows]
