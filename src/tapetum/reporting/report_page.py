"""All about a run in one HTML page that asks nothing of the network: style, drawings and pictures are inside."""

from __future__ import annotations

from html import escape

import numpy as np

from tapetum.evaluation.intervals import wilson
from tapetum.evaluation.review import JUDGES, Floats, Judged, Review, principal_components, smooth
from tapetum.reporting import svg
from tapetum.reporting.cards import Cards, confusions, examples, hardest, least_certain
from tapetum.reporting.html_page import html_page

_MATRIX_UP_TO = 20  # classes
_PLACES = (900, 720)  # pixels of a map
_CELLS = 18  # pictures side by side


def render(review: Review) -> str:
    """The page, as text. What a recipe or a file name holds is escaped, and scripts there are none."""
    cards = Cards(review)
    sections = {
        "Training": _training(review),
        "Accuracy": _accuracy(review, cards),
        "Confidence": _confidence(review),
        "Map": _map(review, cards),
        "Hardest": _hardest(review, cards),
        "Least certain": _least_certain(review, cards),
        "Settings": _settings(review),
    }
    shown = {name: content for name, content in sections.items() if content}
    links = "".join(f'<li><a href="#{_anchor(name)}">{name}</a></li>' for name in shown)
    body = "".join(
        f'<section id="{_anchor(name)}"><h2>{name}</h2>{content}</section>' for name, content in shown.items()
    )
    title = escape(review.name)
    return html_page(
        title,
        "report.css",
        f'<a class="skip" href="#{_anchor(next(iter(shown)))}">Skip to the content</a>'
        f"<header><h1>{title}</h1>{_tiles(review)}</header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{body}</main>'
        "<footer><p>Made by <code>tapetum report</code>.</p></footer>",
    )


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _tiles(review: Review) -> str:
    judged = review.judged
    if judged is None:
        accuracy = "–<small>every label trained the model</small>"
    else:
        low, high = judged.interval
        accuracy = f"{judged.top1:.1f}%<small>of {judged.what}; 95% interval {low:.1f} to {high:.1f}%</small>"
    tiles = {"Accuracy": accuracy}
    for name in ("Images", "Labels", "Classes", "Training time"):
        if name in review.settings:
            number, _, rest = review.settings[name].partition(" ")
            tiles[name] = f"{number}<small>{rest}</small>"
    return f'<dl class="tiles">{"".join(f"<div><dt>{n}</dt><dd>{v}</dd></div>" for n, v in tiles.items())}</dl>'


def _training(review: Review) -> str:
    drawn = []
    if "train/loss" in review.curves:
        steps, values = review.curves["train/loss"]
        loss = smooth(steps, values)
        drawing = svg.curves({"loss": loss}, "loss", f"The loss, from {loss[1][0]:.2f} to {loss[1][-1]:.2f}")
        drawn.append(f"<figure>{drawing}<figcaption>The loss: lower is better.</figcaption></figure>")
    named = {JUDGES.get(n, n[5:]): smooth(*c) for n, c in review.curves.items() if n.startswith("eval/")}
    if named:
        drawing = svg.curves(named, "right, %", "Accuracy on held-out labels while training", (0.0, 100.0))
        keys = "".join(f'<li><i class="b{i}"></i>{escape(name)}</li>' for i, name in enumerate(named))
        caption = "Accuracy on held-out labels, which train nothing, while training."
        drawn.append(f'<figure>{drawing}<figcaption>{caption}<ul class="keys">{keys}</ul></figcaption></figure>')
    return f'<div class="two">{"".join(drawn)}</div>' if drawn else "<p>No step is recorded yet.</p>"


def _accuracy(review: Review, cards: Cards) -> str:
    judged = review.judged
    if judged is None:
        return f"<p>{escape(review.no_accuracy)}</p>"
    counts, predicted = judged.confusion(len(review.classes)), judged.predicted
    confused = confusions(counts)
    shown = ""
    for true, taken in confused:
        of, to = escape(review.classes[true]), escape(review.classes[taken])
        shown += (
            f'<h3 id="c{true}-{taken}">{of} taken for {to}: {counts[true, taken]:,} of {counts[true].sum():,}</h3>'
            f"{cards.strip(predicted, examples(predicted, true, taken))}"
        )
    low, high = judged.interval
    return (
        f"<p>{judged.top1:.1f}% of {judged.what} are predicted rightly. If many new images like these were judged, the "
        f"share would with 95% confidence lie between {low:.1f}% and {high:.1f}%.</p>"
        f'<div class="two">{_per_class(judged, review)}{_matrix(judged, review, confused)}</div>'
        + (f"<h3>What is confused most</h3><p class=note>{_causes(review)}</p>{shown}" if shown else "")
    )


def _per_class(judged: Judged, review: Review) -> str:
    rows = ""
    for c, name in enumerate(review.classes):
        of_class = judged.right[judged.predicted.truth == c]
        if len(of_class):
            share, (low, high) = 100 * of_class.mean(), wilson(int(of_class.sum()), len(of_class))
            rows += (
                f'<tr><th scope="row">{escape(name)}</th><td><div class="bar" style="width:{share:.1f}%"></div></td>'
                f"<td>{share:.0f}%</td><td class=note>{low:.0f}–{high:.0f}%</td>"
                f"<td class=note>{len(of_class):,}</td></tr>"
            )
    return _table("bars", "Right predictions of each class, 95% interval, number of images.", f"<tbody>{rows}</tbody>")


def _table(kind: str, caption: str, content: str) -> str:
    """A table that scrolls, also by keyboard, where it is wider than the page; its caption stays."""
    return (
        f'<div><p class="note">{caption}</p><div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="{kind}">{content}</table></div></div>'
    )


def _matrix(judged: Judged, review: Review, confused: list[tuple[int, int]]) -> str:
    counts = judged.confusion(len(review.classes))
    if len(review.classes) > _MATRIX_UP_TO:
        rows = "".join(
            f'<tr><th scope="row"><a href="#c{t}-{p}">{escape(review.classes[t])} taken for '
            f"{escape(review.classes[p])}</a></th><td>{counts[t, p]:,} of {counts[t].sum():,}</td></tr>"
            for t, p in confused
        )
        return _table("most", "The most frequent confusions.", f"<tbody>{rows}</tbody>")
    upright = " class=upright" if max(map(len, review.classes)) > 3 else ""
    head = "".join(f'<th scope="col"><span{upright}>{escape(name)}</span></th>' for name in review.classes)
    rows = ""
    for true, name in enumerate(review.classes):
        cells = ""
        for taken, count in enumerate(counts[true].tolist()):
            share = count / max(1, int(counts[true].sum()))
            colour = "var(--good)" if true == taken else "var(--bad)"
            shade = (
                f"background:color-mix(in srgb, {colour} {min(100, 8 + 80 * share):.0f}%, transparent)" if count else ""
            )
            text = f"{count:,}" if count else ""
            if (true, taken) in confused:
                text = f'<a href="#c{true}-{taken}">{text}</a>'
            cells += f'<td style="{shade}"{" class=strong" if share > 0.5 else ""}>{text}</td>'
        rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    caption = "Rows: the true class. Columns: what was predicted. Linked numbers lead to examples."
    return _table("confusion", caption, f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody>")


def _causes(review: Review) -> str:
    if review.predicts_by == "classifier":
        return (
            "Below each image: the labelled images most like it to the network. The classifier decided; they did not."
        )
    return (
        "Below each image: the labelled images that weigh most in its prediction, with their shares. The shares of all "
        "labelled images sum to 100%."
    )


def _confidence(review: Review) -> str:
    text = f"<p>{escape(review.calibration.describe())}</p>"
    judged = review.judged
    if judged is None:
        return text
    found = judged.reliability
    ends = [wilson(round(a * n), int(n)) for a, n in zip(found.accuracy.tolist(), found.counts.tolist())]
    points = [
        (100 * c, 100 * a, *end, int(n)) for c, a, end, n in zip(found.confidence, found.accuracy, ends, found.counts)
    ]
    caption = (
        f"{judged.what.capitalize()}, by confidence, with 95% intervals. On the dashed line confidence means what it "
        f"says; the mean distance from it is {100 * found.error:.1f} points."
    )
    if review.calibration.is_calibrated and "held-out" in judged.what:
        caption += " The temperature was chosen on these very labels."
    drawing = svg.reliability(points, "Confidence beside the share of right predictions")
    return f'{text}<div class="two"><figure>{drawing}<figcaption>{caption}</figcaption></figure></div>'


def _map(review: Review, cards: Cards) -> str:
    sample, (width, height) = review.sample, _PLACES
    places = _fitted(principal_components(sample.embeddings))
    colours = (sample.shown_classes % 10).tolist()
    dots = svg.scatter([(float(x), float(y)) for x, y in places], colours, (sample.truth >= 0).tolist())
    keys = "".join(f'<li><i class="b{c % 10}"></i>{escape(name)}</li>' for c, name in enumerate(review.classes[:40]))
    label = f"{len(sample):,} images placed by likeness"
    repeated = " There are more classes than colours, so colours repeat." if len(review.classes) > 10 else ""
    return (
        f"<p>{len(sample):,} images of the pool, placed by what the network makes of them: the two directions in which "
        "they differ most. Like ones should lie together. Ringed: labelled; the others have the colour of their "
        f'predicted class.{repeated}</p><ul class="keys">{keys}</ul><div class="two">'
        f'<figure class="map">{svg.drawing(dots, label, width, height)}</figure>'
        f'<figure class="map">{svg.drawing(_pictures(review, cards, places), label + ", as pictures", width, height)}'
        "<figcaption>The same places, an image for each.</figcaption></figure></div>"
    )


def _fitted(flat: Floats) -> Floats:
    """Coordinates stretched to the drawing, both by the same factor, with a margin."""
    low, high = flat.min(axis=0), flat.max(axis=0)
    size = np.array(_PLACES)
    factor = ((size - 24) / np.maximum(high - low, 1e-9)).min()
    return (flat - (low + high) / 2) * factor + size / 2


def _pictures(review: Review, cards: Cards, places: Floats) -> str:
    """The image nearest to the middle of each cell that has one."""
    sample, side = review.sample, _PLACES[0] / _CELLS
    cells = np.floor(places / side).astype(np.int64)
    distance = ((places - (cells + 0.5) * side) ** 2).sum(axis=1)
    nearest: dict[tuple[int, int], int] = {}
    for i in np.argsort(distance, kind="stable").tolist():
        nearest.setdefault((int(cells[i, 0]), int(cells[i, 1])), i)
    parts = []
    for (column, row), i in sorted(nearest.items()):
        uri, is_tiny = cards.pool.uri(int(sample.rows[i]))
        name = escape(review.classes[sample.shown_classes[i]])
        style = ' style="image-rendering:pixelated"' if is_tiny else ""
        box = f'x="{column * side + 1:.0f}" y="{row * side + 1:.0f}" width="{side - 2:.0f}" height="{side - 2:.0f}"'
        parts.append(f'<image {box} href="{uri}"{style}><title>{name}</title></image>')
    return "".join(parts)


def _hardest(review: Review, cards: Cards) -> str:
    judged = review.judged
    if judged is None:
        return ""
    chosen = hardest(judged.predicted)
    if not len(chosen):
        return f"<p>None of {judged.what} is predicted wrongly.</p>"
    text = f"Of {judged.what}, the wrong predictions that were surest. {_causes(review)}"
    return f"<p class=note>{text}</p>{cards.strip(judged.predicted, chosen)}"


def _least_certain(review: Review, cards: Cards) -> str:
    chosen = least_certain(review.sample)
    if not len(chosen):
        return ""
    text = (
        f"Of the unlabelled ones among {len(review.sample):,} images of the pool. Labels for such images are likely to "
        f"help most. {_causes(review)}"
    )
    return f"<p class=note>{text}</p>{cards.strip(review.sample, chosen)}"


def _settings(review: Review) -> str:
    pairs = "".join(f"<dt>{escape(n)}</dt><dd>{escape(v)}</dd>" for n, v in review.settings.items())
    return (
        f'<dl class="settings">{pairs}</dl><h3>The exact command</h3>'
        f'<pre class="command">{escape(review.command)}</pre>'
        f'<details><summary>The whole recipe</summary><pre tabindex="0">{escape(review.recipe)}</pre></details>'
    )
