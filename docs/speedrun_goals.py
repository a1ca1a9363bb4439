"""What was aimed for, and what came nearest: the goals of docs/speedrun.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from run_tables import ABSENT, LONGEST_OVER_SHORTEST, Result, table
from speedrun_runs import BY_CLASSIFIER, GOALS, eligible, is_chosen, minutes, num_labels, title

_AGAIN = ", evaluated again"
SHORT, ENOUGH_SEEDS = 10, 3
"""In so many minutes, so many seeds were asked for; a recipe with fewer counts there only if none has as many."""
GOALS_INTRODUCTION = """## What was aimed for

The best recipe for each goal, of those that took no longer; a quarter more minutes counts as the same. Runs that differ
in their seed count by their mean, and in ten minutes recipes with three seeds come before others, which may have been
lucky in theirs. No run and no setting was chosen by test images, but this table takes the best of all that was tried by
test top-1, which flatters it. Where `suggest` chose the labels, the training without labels that it chose by is not
counted.

- *Tried*: different recipes, the supervised one left out.
- *By its classifier*: so FixMatch predicts without SuNCEt; so did its first runs with SuNCEt, too, whose figure by
  neighbours is in the file.
- *Mirrored*: predicted by the mean over each image and its mirror image; *scales*: over as many sizes of it. That this
  helps was seen on images of the training set ([below](#what-predictions-gain-without-training)). *Evaluated again*:
  the weights of another run of this table.
"""
NEXT = """Tried for the goals, besides these runs: each ingredient [below](#what-each-ingredient-gains) for itself;
features before pseudo-labels, by SimCLR or PAWS, which gained nothing over labels first with 250 labels in ten minutes
and in the ladder (*after SimCLR*, and the rungs *SimCLR first* and *PAWS first*), and with 40 labels in 45 minutes a
little, by its classifier alone; nor by SwAV in a [warm start](results.md#does-a-warm-start-pay); and labels spread over
the neighbour graph, which add little to what the network has learned
([below](#what-predictions-gain-without-training)).

With 250 labels, pseudo-labels that are right more often gained nothing by themselves: whole or mirrored images to
assign them by, FreeMatch's thresholds and mixed labels all made more of them right, and none was more accurate by more
than chance may explain. Nor were other views of the labelled images: turned and sheared ones, cutout, smaller crops.
With 40 labels, which ones are drawn decides more than the recipe does (three seeds of PAWS and Muon), and more work
gained little: six times as much hardly anything for PAWS, and an hour of FixMatch about a point over 40 minutes. With
4,000, two and a half times the work gained FixMatch a point. What promises most, by these tables:

1. *strong views as published* in trainings of an hour and more: FixMatch's RandAugment also turns, shears and shifts
   unlabelled images; in the ladder, whose trainings are short, turned images were no gain;
2. *more unlabelled images a step* in trainings of an hour and more, as published (seven for each labelled one); in
   short ones labels teach more;
3. *which 40 labels*: draws differ by more than recipes do, and those that `suggest` chose, by features of a training
   without labels, trained one run here; features of a longer one, and more seeds, would tell what choosing is worth.

Neighbours that learn pseudo-labels were ahead in the ladder with 4,000 labels as well, and not in ten minutes; with 250
labels, each of three seeds gained by them in ten minutes, two of them hardly.
"""


def goals(found: Mapping[str, Result]) -> str:
    """A line for each goal: the best recipe within its minutes, and how many were tried; then what they mean."""
    results = eligible(list(found.values()))
    rows = []
    for labels, aims in GOALS.items():
        for chosen in (False, True):
            those = [
                r
                for r in results
                if num_labels(r) == labels and is_chosen(r) == chosen and r["recipe"]["method"]["kind"] != "supervised"
            ]
            name = f"{labels:,}, chosen by `suggest`" if chosen else f"{labels:,}"
            for limit, goal in aims.items():
                quick_enough = [r for r in those if minutes(r) <= limit * LONGEST_OVER_SHORTEST]
                if quick_enough and not (chosen and limit > SHORT):
                    rows.append([name, str(limit), *_goal(quick_enough, limit, goal)])
    heads = ["labels", "minutes", "goal", "best top-1", "lowest", "highest", "minus goal", "by", "which took", "tried"]
    return "\n".join([table(heads, rows, left=(7,)), *_ceiling(results), NEXT])


def _goal(results: Sequence[Result], limit: int, goal: int) -> list[str]:
    """Cells of one goal."""
    recipes = _by_seeds(results)
    if limit == SHORT:
        recipes = [runs for runs in recipes if len(runs) >= ENOUGH_SEEDS] or recipes
    best = max(recipes, key=_mean_top1)
    figures = [float(r["summary"]["test_top1"]) for r in best]
    top1 = _mean_top1(best)
    name = title(best[0]).partition(", seed")[0].replace(_AGAIN, "")
    links = ", ".join(f"[{one['recipe'].get('seed', 0)}](results/{one['name']}.json)" for one in best)
    tried = {_recipe_title(r) for r in results if "evaluated_again" not in r}
    spread = [f"{min(figures):.2f}", f"{max(figures):.2f}"] if len(best) > 1 else [ABSENT, ABSENT]
    took = f"{sum(map(minutes, best)) / len(best):.1f}"
    name += f", seed{'s' if len(best) > 1 else ''} {links}"
    return [str(goal), f"**{top1:.2f}**", *spread, f"{top1 - goal:+.2f}", name, took, str(len(tried))]


def _recipe_title(result: Result) -> str:
    """A run's title without what does not change its training."""
    return title(result).partition(", seed")[0].replace(BY_CLASSIFIER, "")


def _ceiling(results: Sequence[Result]) -> list[str]:
    """What the networks reach with all labels."""
    runs = sorted((r for r in results if num_labels(r) == max(GOALS)), key=minutes)
    reached = [f"{r['summary']['test_top1']:.2f} in {minutes(r):.0f} minutes" for r in runs]
    if not reached:
        return []
    told = " and ".join(filter(None, [", ".join(reached[:-1]), reached[-1]]))
    return [f"The ceiling: with all {max(GOALS):,} labels, supervised training of these networks reaches {told}.", ""]


def _by_seeds(results: Sequence[Result]) -> list[list[Result]]:
    """Runs that differ in nothing but their seed, which ends their name, together."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result["name"].partition("_seed")[0], []).append(result)
    return list(found.values())


def _mean_top1(results: Sequence[Result]) -> float:
    return sum(float(r["summary"]["test_top1"]) for r in results) / len(results)
