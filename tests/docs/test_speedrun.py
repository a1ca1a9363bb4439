"""The page about accuracy for little work."""

from __future__ import annotations


def rung(against, *top1, changes=None, about="", **told):
    """A rung with a run for each pair of figures, as benchmarks/ingredients.py writes it."""
    runs = [
        {
            "seed": seed,
            "steps": 400 + seed,
            "seconds": 190.0,
            "cpu_seconds": 90.4,
            "top1": {
                "plain": {"classifier": classifier, "soft_neighbours": neighbours},
                "mirrored": {"classifier": classifier + 1, "soft_neighbours": neighbours + 1},
            },
            **told,
        }
        for seed, (classifier, neighbours) in enumerate(top1)
    ]
    return {"against": against, "changes": changes or {}, "about": about, "settings": {}, "runs": runs}


def lines(make_results, rungs, labels=250):
    result = {"labels": labels, "num_classes": 10, "judged_per_class": 500, "budget": 60000.0, "rungs": rungs}
    page = make_results.render_speedrun(ingredients={str(labels): result})
    return [line for line in page.splitlines() if line]


def test_a_rung_is_told_with_its_change_and_gain(make_results):
    rungs = {
        "labels alone": rung(None, (50.0, 40.0), about="cross-entropy"),
        "PAWS": rung(
            "labels alone",
            (51.0, 53.5),
            changes={"start": 0.5, "first_size": [0.5, 14]},
            about="see https://arxiv.org/abs/2104.13963",
        ),
    }
    found = lines(make_results, rungs)
    source = "see [2104.13963](https://arxiv.org/abs/2104.13963)"
    assert found[-2:] == [
        "| labels alone | – | – | cross-entropy | 1 | 400 | 90 | 50.00 | 40.00 | 51.00 | 41.00 | – | – |",
        f"| PAWS | labels alone | start 0.5, first_size 0.5 14 | {source} | 1 | 400 | 90"
        " | 51.00 | 53.50 | 52.00 | 54.50 | – | **+3.50** |",
    ]
    assert "### 250 labels, 60,000 units of work" in found
    assert "[250.json](results/ingredients/250.json), judged by 500 images of each class." in "\n".join(found)
    assert "Differences of less than 2.0 points may be chance." in "\n".join(found)


def test_runs_are_averaged_before_the_better_judge_is_chosen(make_results):
    rungs = {"a": rung(None, (50.0, 40.0), (40.0, 48.0)), "b": rung("a", (50.0, 50.0))}
    found = lines(make_results, rungs)
    assert "| 2 | 400 | 90 | 45.00 | 44.00 |" in found[-2]
    assert found[-1].endswith("| **+5.00** |")


def test_pseudo_labels_are_told_with_their_weight_and_truth(make_results):
    found = lines(make_results, {"a": rung(None, (50.0, 40.0), pseudo_labels={"weight": 0.254, "right": 0.913})})
    assert "| 0.25, 91% |" in found[-1]


def test_what_was_not_measured_is_a_dash(make_results):
    """A floor that has one judge and no mirror; a rung whose base has not been trained yet; one without runs."""
    floor = {"seed": 0, "steps": 0, "cpu_seconds": 0.0, "top1": {"plain": {"nearest_neighbours": 22.0}}}
    rungs = {
        "floor": {**rung(None), "runs": [floor]},
        "PAWS": rung("labels alone", (60.0, 61.0)),
        "waiting": rung("PAWS"),
    }
    found = lines(make_results, rungs)
    assert found[-2] == "| floor | – | – | – | 1 | 0 | 0 | – | 22.00 | – | – | – | – |"
    assert found[-1].startswith("| PAWS |")
    assert found[-1].endswith("| – |")


def test_most_labels_and_least_work_come_first(make_results):
    result = {"num_classes": 10, "judged_per_class": 500, "budget": 1.0, "rungs": {"a": rung(None, (50.0, 40.0))}}
    found = {str(labels): {**result, "labels": labels} for labels in (250, 40, 4000)}
    found["40_brief"] = {**found["40"], "budget": 0.4}
    page = make_results.render_speedrun(ingredients=found)
    assert [line for line in page.splitlines() if line.startswith("###")] == [
        "### 4,000 labels, 1 units of work",
        "### 250 labels, 1 units of work",
        "### 40 labels, 0 units of work",
        "### 40 labels, 1 units of work",
    ]
    assert "## What each" not in make_results.render_speedrun()


def test_ways_of_looking_at_finished_runs_are_told_most_labels_first(make_results):
    few = {
        "labels": 40,
        "judged": 9000,
        "judges": "its pool",
        "ways": {"plain": {"soft_neighbours": 50.0, "spread": 51.5}},
    }
    ways = {"plain": {"classifier": 80.0}, "mirrored": {"classifier": 80.456}}
    many = {"labels": 4000, "judged": 100, "judges": "others", "ways": ways}
    page = make_results.render_speedrun(after_training={"few": few, "many": many})
    assert [line for line in page.splitlines() if line.startswith("| [")] == [
        "| [many](results/after_training/many.json) | 4,000 | 100 of others | plain | 80.00 | – | – | – | – |",
        "| [many](results/after_training/many.json) | 4,000 | 100 of others | mirrored | 80.46 | – | – | – | – |",
        "| [few](results/after_training/few.json) | 40 | 9,000 of its pool | plain | – | 50.00 | – | 51.50 | – |",
    ]


def run(name, method, seconds, top1, **more):
    """A recorded run with 250 labels on a machine of 0.4 TFLOP/s."""
    data = {"images": "cifar10", "labels_per_class": 25, "pool": True}
    views = {"evaluation": {}, "small": {"brightness": 0.8}}
    recipe = {"method": {"kind": method}, "backbone": {}, "data": data, "views": views, "runtime": {}}
    peaks = {"float32_per_cpu_second": 400.0}
    return {
        "name": f"speedrun/{name}",
        "recipe": recipe | {key: more.pop(key) for key in ("init",) if key in more},
        "summary": {"steps": 1000, "num_labels": 250, "test_top1": top1, "train_seconds": 0.9 * seconds},
        "cpu_seconds": seconds,
        "matrix_gflops": {"before": peaks, "after": peaks},
        **more,
    }


def test_minutes_of_the_run_that_one_started_from_count(make_results):
    first = run("first", "simclr", 300.0, 50.0)
    after = run("after", "fixmatch", 600.0, 70.0, init="runs/speedrun/first", started_from=first)
    elsewhere = run("elsewhere", "fixmatch", 600.0, 99.0, init="resnet.pt")
    page = make_results.render_speedrun(speedrun={"first": first, "after": after, "elsewhere": elsewhere})
    rows = [line for line in page.splitlines() if line.startswith("| 250 | [")]
    told = "[FixMatch after SimCLR, seed 0](results/speedrun/after.json)"
    assert rows == [f"| 250 | {told} | float32 | 15.0 | 1,000 + 1,000 | **70.00** | 80 | – | – |"]


def rows_of(page: str, start: str) -> list[list[str]]:
    """Cells of the rows of a table that begin so."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith(start)]


def test_a_run_stands_beside_the_best_supervised_one_of_its_time_and_optimizer(make_results):
    """No more than a quarter longer, as many labels trained with, the same optimizer; else beside a longer one."""
    runs = {
        "quick": run("quick", "supervised", 300.0, 50.0),
        "later": run("later", "supervised", 700.0, 48.0),
        "long": run("long", "supervised", 800.0, 60.0),
        "muon": run("muon", "supervised", 300.0, 70.0),
        "own": run("own", "fixmatch", 600.0, 68.0),
        "held_out": run("held_out", "fixmatch", 600.0, 65.0),
        "first": run("first", "fixmatch", 200.0, 61.0),
    }
    runs["muon"]["recipe"]["optimizer"] = {"kind": "muon"}
    runs["held_out"]["summary"]["num_labels"] = 200
    page = make_results.render_speedrun(speedrun=runs)
    beside = {row[1].partition("speedrun/")[2]: row[-2:] for row in rows_of(page, "| 250 | [FixMatch")}
    assert beside == {
        "own.json)": ["[50.00](results/speedrun/quick.json)", "+18.00"],
        "held_out.json)": ["–", "–"],
        "first.json)": ["[50.00](results/speedrun/quick.json) in 5 minutes", "+11.00"],
    }


def test_minutes_of_a_restless_machine_are_uncertain(make_results):
    restless = run("restless", "paws", 600.0, 50.0)
    restless["matrix_gflops"] = {
        "before": {"float32_per_cpu_second": 300.0},
        "after": {"float32_per_cpu_second": 500.0},
    }
    page = make_results.render_speedrun(speedrun={"restless": restless, "calm": run("calm", "paws", 600.0, 51.0)})
    assert [row[3] for row in rows_of(page, "| 250 | [PAWS")] == ["10.0", "≈ 10.0"]


def test_goals_are_met_by_recipes_with_three_seeds_first(make_results):
    """In ten minutes; one lucky run of another recipe does not come before them. Chosen labels stand apart."""
    names = {f"three_seed{seed}": 60.0 + seed for seed in range(3)} | {"lucky_seed0": 70.0, "chosen_a_seed0": 80.0}
    runs = {name: run(name, "paws", 600.0, top1) for name, top1 in names.items()}
    goals = make_results.render_speedrun(goals=runs)
    drawn, hour, _ = rows_of(goals, "| 250 |")
    assert drawn[:7] == ["250", "10", "70", "**61.00**", "60.00", "62.00", "-9.00"]
    assert hour[:7] == ["250", "45", "80", "**70.00**", "–", "–", "-10.00"]
    (chosen,) = rows_of(goals, "| 250, chosen by `suggest` |")
    assert chosen[1:4] == ["10", "70", "**80.00**"]
    assert "ceiling" not in goals


def test_goals_without_a_run_are_left_out(make_results):
    assert "| 250 |" not in make_results.render_speedrun(goals={})


def test_the_ceiling_is_told(make_results):
    runs = {
        name: run(name, "supervised", seconds, top1)
        for name, seconds, top1 in (("a", 600.0, 88.0), ("b", 2400.0, 91.0))
    }
    for one in runs.values():
        one["recipe"]["data"]["labels_per_class"] = 5000
    page = make_results.render_speedrun(goals=runs)
    assert "reaches 88.00 in 10 minutes and 91.00 in 40 minutes." in page


def test_halfway_views_stand_beside_strong_ones(make_results):
    """By the name of their files; a run without a partner is left out."""
    names = {"fixmatch_a": 60.0, "fixmatch_a_halfway": 61.5, "fixmatch_halfway_b": 70.0}
    page = make_results.render_speedrun(views={name: run(name, "fixmatch", 90.0, top1) for name, top1 in names.items()})
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert len(rows) == 1
    assert "results/speedrun/fixmatch_a_halfway.json" in rows[0]
    assert rows[0].endswith("| **60.00** | **61.50** | +1.50 |")
