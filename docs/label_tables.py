"""What benchmarks measured about labels after a training, as tables of Markdown: wrong labels, images of no class."""

from __future__ import annotations

from collections.abc import Mapping

from run_tables import ABSENT, METHODS, Result, mean, table

ERRORS_INTRODUCTION = """## Which labels are wrong?

Labels were drawn, some of them were given another class, and `tapetum review`'s rankings
([how](verbs/review.md)) were asked which: the share of the first ones that was flipped, in percent. Rankings "of all
labels" do not ask confident learning how many are wrong; "50 at least" go on beyond these, as `review` does if the
network was trained with the labels. Those of cleanlab got the same probabilities. Runs lent their embeddings to draws
of labels that they had not seen, unless they were trained with the flipped labels themselves.
`benchmarks/label_errors.py` wrote the [files](results/label_errors).
"""
OUT_OF_CLASS_INTRODUCTION = """## Images of no class

How well scores tell test images from images of other data sets, by the embeddings of finished runs: AUROC, in percent,
and the share of test images and of others that is rejected for resembling the labelled images less than almost all of
these resemble each other (`predict --reject`). *in_domain* is what `tapetum predict` [writes](verbs/predict.md); "by
held-out labels" is the same if the labelled images that make its scale were held out of the training.
`benchmarks/out_of_class.py` wrote the [files](results/out_of_class).
"""
WALK_INTRODUCTION = """## From no label to a classifier, on the page

Somebody who knew the truth labelled a folder on the [page of `tapetum label`](verbs/label.md), in a real browser, and
trained there: a line for each round of answers and training. *Strokes* are key strokes and clicks so far. *Expected* is
the accuracy that the page told, from labels held out of the training, with its 95% interval; *unseen* that on images
that the page never saw, of which a class without a label counts as wrong. *Minutes* are the machine's, waiting for each
picture, training, predicting and suggesting included, on a machine that did other work besides; nobody's thinking is.
`benchmarks/label_walk.py` wrote the [files](results/label_walk).
"""
HELPED = "*in_domain* when some images were labelled as none of the classes:"


def label_errors(found: Mapping[str, Result]) -> str:
    """A line for each run and way to predict labels, a column for each ranking."""
    rankings = list(dict.fromkeys(r for one in found.values() for w in _ways(one) for draw in w[2] for r in draw))
    rows = []
    for name, result in found.items():
        for about, way, draws in _ways(result):
            link = f"[{_run(about)}](results/label_errors/{name}.json)"
            shares = [[draw[r]["precision"] for draw in draws if r in draw] for r in rankings]
            cells = [f"{100 * mean(share):.1f}" if share else ABSENT for share in shares]
            seen = "the flipped ones" if about["trained_on_flipped"] else f"{len(draws)} draws of others"
            rows.append([link, seen, way, *cells])
    first = next(iter(found.values()))["first"]
    heads = ["embedding of", "labels", "predicted by", *(f"first {first}: " + r.replace("_", " ") for r in rankings)]
    return table(heads, rows, left=(0, 1, 2))


def out_of_class(found: Mapping[str, Result]) -> str:
    """A line for each run and score; then what labels of none of the classes change."""
    kinds = list(dict.fromkeys(k for _, _, one in _runs(found) for s in one["scores"].values() for k in s["auroc"]))
    rows, helped = [], []
    for name, _, one in _runs(found):
        link = f"[{_run(one)}](results/out_of_class/{name}.json)"
        rows += [[link, score, *_apart(values, kinds)] for score, values in one["scores"].items()]
        helped += [[link, what, *_apart(values, kinds)] for what, values in one["helped"].items()]
    reject = next(iter(found.values()))["reject"]
    heads = [f"AUROC, {kind}" for kind in kinds] + [f"rejected at {reject:g}, {kind}" for kind in ["test", *kinds]]
    first = table(["embedding of", "score", *heads], rows, left=(0, 1))
    second = table(["embedding of", "labelled as none of the classes", *heads], helped, left=(0, 1))
    return f"{first}\n{HELPED}\n\n{second}"


def label_walk(found: Mapping[str, Result]) -> str:
    """A line for each round."""
    rows = []
    for name, result in found.items():
        link = f"[{name}](results/label_walk/{name}.json): {result['images']:,} images, {result['steps']} steps a round"
        for one in result["rounds"]:
            expected = ABSENT
            if one["expected"] is not None:
                low, high = one["interval"]
                expected = f"{one['expected']:.0f} ({low:.0f} to {high:.0f})"
            numbers = str(one["labels"]), str(one["strokes"]), expected, f"**{one['unseen']:.1f}**"
            rows.append([link, *numbers, f"{one['minutes']:.1f}"])
    heads = ["folder", "labels", "strokes", "expected, %", "unseen, %", "minutes"]
    return table(heads, rows, left=(0,))


def _apart(values: Result, kinds: list[str]) -> list[str]:
    shares = [values["auroc"].get(kind) for kind in kinds]
    shares += [values["rejected"].get(kind) for kind in ["test", *kinds]]
    return [ABSENT if share is None else f"{100 * share:.1f}" for share in shares]


def _runs(found: Mapping[str, Result]) -> list[tuple[str, str, Result]]:
    return [(name, run, one) for name, result in found.items() for run, one in result["runs"].items()]


def _ways(result: Result) -> list[tuple[Result, str, list[Result]]]:
    return [
        (about, way, [draw[way] for draw in about["draws"]])
        for about in result["runs"].values()
        for way in about["draws"][0]
    ]


def _run(about: Result) -> str:
    kind = METHODS.get(about["method"], about["method"])
    return f"{kind}, {about['labels']:,} labels, {about['steps']:,} steps"
