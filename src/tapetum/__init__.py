"""Image classifiers and representations from many images and few labels: PAWS and its family, exact and resumable.

Every verb of the command line is a function here, with the same arguments:

    import tapetum
    tapetum.fit(images="photos", labels="labels.csv", output="runs/first", minutes=30)

Names are loaded on first use (PEP 562), so `import tapetum` and `tapetum --help` load no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapetum.methods.registry import register as register
    from tapetum.recipe.recipe import Recipe as Recipe
    from tapetum.recipe.recipe import RecipeError as RecipeError
    from tapetum.recipe.recipe import dump_recipe as dump_recipe
    from tapetum.recipe.recipe import load_recipe as load_recipe
    from tapetum.runs.predictor import Predictor as Predictor
    from tapetum.verbs.add_class import add_class as add_class
    from tapetum.verbs.check import check as check
    from tapetum.verbs.cluster import cluster as cluster
    from tapetum.verbs.demo import demo as demo
    from tapetum.verbs.doctor import doctor as doctor
    from tapetum.verbs.embed import embed as embed
    from tapetum.verbs.evaluate import evaluate as evaluate
    from tapetum.verbs.export import export as export
    from tapetum.verbs.finetune import finetune as finetune
    from tapetum.verbs.fit import fit as fit
    from tapetum.verbs.label import label as label
    from tapetum.verbs.labels import labels as labels
    from tapetum.verbs.plot import plot as plot
    from tapetum.verbs.predict import predict as predict
    from tapetum.verbs.recipes import recipes as recipes
    from tapetum.verbs.report import report as report
    from tapetum.verbs.resume import resume as resume
    from tapetum.verbs.review import review as review
    from tapetum.verbs.submit import submit as submit
    from tapetum.verbs.suggest import suggest as suggest
    from tapetum.verbs.train import train as train
    from tapetum.verbs.views import views as views

_VERBS = (
    *("add_class", "check", "cluster", "demo", "doctor", "embed", "evaluate", "export", "finetune", "fit"),
    *("label", "labels", "plot", "predict", "recipes", "report", "resume", "review"),
    *("submit", "suggest", "train", "views"),
)
_MODULES = {
    **{verb: f"tapetum.verbs.{verb}" for verb in _VERBS},
    **dict.fromkeys(("Recipe", "RecipeError", "dump_recipe", "load_recipe"), "tapetum.recipe.recipe"),
    "Predictor": "tapetum.runs.predictor",
    "register": "tapetum.methods.registry",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tapetum")
    if name not in _MODULES:
        raise AttributeError(f"module 'tapetum' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # so that the next use costs nothing
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, "__version__"})
