"""What to look at again in a run, as one HTML page: turns it into the values that templates/review.html shows."""

from collections.abc import Mapping

import numpy as np

from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.evaluation.second_look import SecondLook
from tapetum.reporting.cards import Cards
from tapetum.reporting.pages import render_page

_SUSPECTS, _GROUPS, _DOUBTFUL, _UNLIKE = 50, 24, 48, 24
"""Greatest numbers of cards or groups on the page."""
_OF_A_GROUP = 8


def render(look: SecondLook, tables: Mapping[str, str], predicts_by: str) -> str:
    """Render the page as text.

    Args:
        look: what to show.
        tables: names of the tables beside the page: "errors", "conflicts" and "predictions".
        predicts_by: what the method predicts with.
    """
    cards, suspects, unlabelled = Cards(look), look.suspects, look.unlabelled
    unlike = np.argsort(look.in_domain, kind="stable")[:_UNLIKE]
    shown = cards.of(suspects.predicted, range(min(_SUSPECTS, len(suspects.predicted))))
    reasons = "The labelled images below each have the largest shares in its prediction."
    if predicts_by == "classifier":
        reasons = "The classifier decided; the labelled images below each only look most similar to the network."
    return render_page(
        "review.html",
        f"A second look at {look.name}",
        look=look,
        tables=tables,
        reasons=reasons,
        none_of_these=NONE_OF_THESE,
        num_suspects=len(suspects.predicted),
        suspects=list(zip(shown, suspects.doubt.tolist())),
        groups=[[_member(look, cards, i) for i in group[:_OF_A_GROUP]] for group in look.copies[:_GROUPS]],
        doubtful=cards.of(unlabelled, range(min(_DOUBTFUL, len(unlabelled)))),
        unlike=cards.of(unlabelled, unlike),
    )


def _member(look: SecondLook, cards: Cards, index: int) -> dict[str, object]:
    label = look.classes[look.pool_labels[index]]
    return {"picture": cards.pool.of(index), "name": look.pool.names[index], "label": label}
