"""`tapetum demo`: train on images that come with scikit-learn, and compare with simple methods on the same labels."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.data.images.stores import Store
from tapetum.evaluation.baselines import (
    SPREADING,
    Spreading,
    in_words,
    label_spreading,
    nearest_neighbour,
    pixel_rows,
)
from tapetum.recipe.recipe import load_recipe
from tapetum.runs.pool import PoolData, open_pool
from tapetum.runs.run_folder import write_summary
from tapetum.runs.test_set import open_test
from tapetum.verbs.train import train

_RECIPE = "paws_digits"


def demo(output: str | Path | None = None, *, label_seed: int = 0, steps: int | None = None) -> dict[str, Any]:
    """Train PAWS on scikit-learn's digits with 10 labels per class, and evaluate it on 500 digits that it has not seen.

    For comparison, prints what label spreading and the nearest neighbour reach with the same labels, pool and digits.
    PAWS uses the shipped recipe `paws_digits`, label spreading `baselines.SPREADING`: both were chosen on other label
    draws, with digits of the pool. Label spreading is also shown with its best setting for these test digits.

    Args:
        output: keep the run in this new folder; None for a temporary folder, whose name is printed.
        label_seed: selects the 10 labels of each class; also the seed of everything else.
        steps: length of the training; None for the recipe's.

    Returns:
        The run's summary, as in summary.json: `test_top1` is that of PAWS; `baselines` has `nearest_neighbour`,
        `label_spreading`, `label_spreading_best` (by the test digits), its `label_spreading_best_setting` and
        `label_spreading_average` (over all settings). All are percentages.

    Raises:
        ValueError: the folder is not empty.

    Example:
        >>> import tapetum
        >>> summary = tapetum.demo(steps=2)  # doctest: +SKIP
    """
    overrides = [f"data.label_seed={label_seed}", f"seed={label_seed}"]
    recipe = load_recipe(_RECIPE, overrides if steps is None else [*overrides, f"trainer.steps={steps}"])
    if output is None:
        folder = Path(tempfile.mkdtemp(prefix="tapetum-demo-"))
        print(f"The run goes to the temporary folder {folder}; to keep it, use: tapetum demo --output RUN", flush=True)
    else:
        folder = Path(output)
    summary = train(recipe, folder)
    assert recipe.data.test is not None
    data = open_pool(recipe.data)
    neighbour, spreading = _baselines(data, recipe.data.test)
    summary["baselines"] = {
        "nearest_neighbour": neighbour,
        "label_spreading": spreading.tuned,
        "label_spreading_best": spreading.best,
        "label_spreading_best_setting": spreading.best_setting,
        "label_spreading_average": spreading.average,
    }
    write_summary(folder, summary)
    _tell(summary)
    return summary


def _baselines(data: PoolData, test: str) -> tuple[float, Spreading]:
    store, labels = open_test(test, data.labels.classes)
    pool, shown = _pixels(data.store, data.pool), data.labels.values[data.pool]
    unseen, truth = _pixels(store, labels.labelled), labels.values[labels.labelled]
    return nearest_neighbour(pool, shown, unseen, truth), label_spreading(pool, shown, unseen, truth)


def _pixels(store: Store, indices: np.ndarray) -> np.ndarray:
    images = store.read(indices)
    assert not isinstance(images, list)
    return pixel_rows(images.numpy())


def _tell(summary: dict[str, Any]) -> None:
    others = summary["baselines"]
    best = f"{others['label_spreading_best_setting']}, chosen on these test digits"
    rows = (
        ("PAWS, soft nearest neighbours", summary["test_top1"], f"{summary['steps']} steps"),
        ("Label spreading on pixels", others["label_spreading"], f"{in_words(SPREADING)}, tuned as for PAWS"),
        ("  with its best setting", others["label_spreading_best"], best),
        ("1-nearest neighbour on pixels", others["nearest_neighbour"], ""),
    )
    count = summary["test"]["soft_neighbours"]["count"]
    print(f"\nAccuracy on {count} digits that no method has seen, from the same {summary['num_labels']} labels:")
    for name, value, remark in rows:
        print(f"  {name:<30} {value:6.2f}%   {remark}".rstrip())
    print("Next, your own images: tapetum fit --images DIR --labels labels.csv --minutes 10 --output runs/first")
