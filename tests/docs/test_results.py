import json

import pytest


def result(name, kind="paws", top1=80.0, **changes):
    """A recorded run, as benchmarks/record_run.py writes it, in so far as the page reads it."""
    judge = "classifier" if kind == "supervised" else "soft_neighbours"
    made = {
        "name": name,
        "recipe": {
            "method": {"kind": kind},
            "backbone": {"kind": "small_net"},
            "views": {"large": {"size": 24}},
            "data": {"images": "cifar10", "pool": True, "label_seed": 0},
            "seed": 0,
        },
        "summary": {
            "num_labels": 4000,
            "steps": 1500,
            "images_seen": 96000,
            "train_seconds": 540.0,
            "test": {judge: {"top1": top1}, "predicts_by": judge},
            "test_top1": top1,
        },
        "matrix_gflops": {"before": {"bfloat16": 1650.4}, "after": {"bfloat16": 1600.0}},
        "curve": [{"step": float(i), "train/loss": 2.0 - i / 10} for i in range(20)],
    }
    for dotted, value in changes.items():
        section = made
        *path, last = dotted.split("__")
        for key in path:
            section = section[key]
        section[last] = value
    return made


def lines_with(text, word):
    return [line for line in text.splitlines() if line.startswith("|") and word in line]


def test_the_page_is_up_to_date(make_results):
    page = make_results.render(make_results.read_results(), **make_results.read_sections())
    assert make_results.PAGE.read_text(encoding="utf-8") == page
    performance = make_results.render_performance(**make_results.read_sections())
    assert make_results.PERFORMANCE_PAGE.read_text(encoding="utf-8") == performance
    speedrun = make_results.render_speedrun(**make_results.read_sections())
    assert make_results.SPEEDRUN_PAGE.read_text(encoding="utf-8") == speedrun


def test_every_recorded_run_is_on_the_page(make_results):
    page = make_results.PAGE.read_text(encoding="utf-8")
    for path in make_results.RESULTS.glob("*.json"):
        assert f"results/{path.name}" in page


def test_speed_is_told_with_ratios_and_share_of_the_floor(make_results):
    sample = {"images_per_cpu_second": 20.0, "step_cpu_seconds": 4.0, "peak_memory_mb": 1500.0}
    ratios = {"images_per_second": 2.5, "images_per_cpu_second": 2.0}
    found = {
        "machine": {"processor_units": ["avx512_bf16"]},
        "rounds": {"ours": [sample, sample]},
        "ratio_to_usual": {"ours": ratios},
        "floor": {"step_cpu_seconds": 3.0},
    }
    (line,) = lines_with(make_results.render_performance(speed={"step": found}), "ours")
    assert "| ours | 20.0 | 2.50 | 2.00 | 75% | 1,500 | avx512_bf16 |" in line
    assert "## Speed" not in make_results.render_performance()


def test_the_share_of_the_peak_is_told_with_what_takes_the_rest(make_results):
    step = {
        "gflop_per_step": 20.0,
        "precision": "32-true",
        "step_seconds": 0.25,
        "share_of_peak": 0.8,
        "parts": {"backbone": 0.1, "backward": 0.1, "crop": 0.01, "draw": 0.015, "optimiser": 0.005, "other": 0.02},
    }
    found = {"matrix_gflops": {"before": {"float32": 100.0}, "after": {"float32": 90.0}}, "recipes": {"paws": step}}
    (line,) = lines_with(make_results.render_performance(speed_of_light={"two_threads": found}), "| `paws`")
    assert "| float32 | 20.0 | 250 | 80 | 100 | **80%** | 80.0% | 10.0% | 2.0% | 8.0% |" in line


def test_convolutions_are_told_with_their_best_way(make_results):
    row = {"layer": "3x3, 8 to 8", "shape": [64, 8, 16, 16, 8, 3, 1, 1, True], "calls": 2, "gflop": 1.0}
    row |= {"seconds": {"float32, channels last": 0.02}, "best": "float32, channels last", "gflops": 50.0}
    small = row | {"layer": "2x2, 3 to 8", "gflop": 0.01}
    step = {"layers": [row | {"share_of_peak": 0.5}, small], "gflop": 2.02, "seconds": 0.06, "share_of_peak": 0.34}
    page = make_results.render_performance(layers={"two_threads": {"recipes": {"paws": step}}})
    first, second = lines_with(page, "| `paws`")
    assert "| 3x3, 8 to 8 | 64 x 16x16 | 2 | 99% | float32, channels last | 50 | 50% |" in first
    assert "| all of them | – | 4 | 100% | – | 34 | **34%** |" in second


def test_the_doctors_cost_is_told_by_method(make_results):
    cost = {
        "step_seconds": 0.2,
        "share": 0.0042,
        "parts": {"spread": 0.001, "get_total_norm": 0.002, "on_steps": 0.0012},
    }
    (line,) = lines_with(make_results.render_performance(doctor={"two_threads": {"methods": {"swav": cost}}}), "SwAV")
    assert "| SwAV | 200 | 0.10% | 0.20% | 0.12% | **0.42%** |" in line


def test_detectors_are_told_with_their_backbone_loss_and_precision(make_results):
    found = {
        "recipe": {"detector": {"kind": "detr"}, "backbone": {"weights": None}, "seed": 3},
        "summary": {"step": 30.0, "train_seconds": 61.2, "AP": 12.34, "AP50": 30.0, "AP75": 8.0},
        "losses": [{"step": step, "loss": 31.0 - step} for step in range(1, 31)],
        "evaluations": [{"step": 15.0, "AP": 4.04}, {"step": 30.0, "AP": 12.34}],
    }
    (line,) = lines_with(make_results.render([], detection={"small": found}), "[small]")
    told = "| DETR | random | 3 | 30 | 61 | 29.00 to 2.00 | **12.3** | 30.0 | 8.0 | 15: 4.0, 30: 12.3 |"
    assert line == f"| [small](results/detection/small.json) {told}"
    assert "Detection" not in make_results.render([])


def test_evaluations_stand_side_by_side(make_results, run_tables):
    one = {"mean": 71.234, "deviation": None, "seconds": 12.4}
    paws = {"run": {"method": "paws", "steps": 3000}, "labels_per_class": None, "evaluations": {"k-NN": one}}
    spread = {"mean": 60.0, "deviation": 1.25, "seconds": 3.0, "arguments": {"overrides": ["trainer.steps=5"]}}
    swav = {"run": {"method": "swav", "steps": 1500}, "labels_per_class": 400, "evaluations": {"probe": spread}}
    page = make_results.render([], evaluations={"a": paws, "b": swav})
    assert lines_with(page, "| k-NN") == [f"| k-NN | 71.23 (12 s) | {run_tables.ABSENT} |"]
    assert lines_with(page, "| probe") == [f"| probe | {run_tables.ABSENT} | 60.00 ± 1.25 (3 s, trainer.steps=5) |"]
    (heads,) = lines_with(page, "| evaluation")
    assert "[PAWS, 3,000 steps](results/evaluations/a.json), the run's own labels" in heads
    assert "[SwAV, 1,500 steps](results/evaluations/b.json), 400 labels a class" in heads


def test_a_warm_start_stands_beside_training_from_scratch(make_results):
    ways = {
        name: {
            "swav_steps": swav,
            "paws_steps": paws,
            "test": {"soft_neighbours": {"top1": top}, "classifier": {"top1": 1.0}, "nearest_neighbours": {"20": top1}},
        }
        for name, swav, paws, top, top1 in (
            ("warm", 1500, 1000, 51.5, {"top1": 2.0}),
            ("cold", 0, 4000, 50.25, {"top1": 3.0}),
        )
    }
    found = {"num_labels": 40, "swav_step_in_paws_steps": 2.0, "ways": ways}
    page = make_results.render([], warm_start={"small": found})
    link = "| [small](results/warm_start/small.json)"
    assert lines_with(page, "| warm |") == [f"{link} | warm | 40 | 1,500 | 1,000 | 4,000 | 51.50 | 1.00 | 2.00 |"]
    assert lines_with(page, "| cold |") == [f"{link} | cold | 40 | 0 | 4,000 | 4,000 | 50.25 | 1.00 | 3.00 |"]


def test_exports_and_probes_are_told(make_results):
    equal = {"onnx": 1000, "timm": 999}
    page = make_results.render([], exports={"photos": {"images": 1000, "labels": 7, "equal": equal}})
    assert lines_with(page, "| timm") == ["| [photos](results/exports/photos.json) | timm | 999 of 1,000 | 7 |"]
    middle = {"usual_over_fixed": 2.04}
    for number, way in enumerate(("usual", "fixed", "choice"), start=1):
        middle |= {f"{way}_seconds": number, f"{way}_accuracy": 80 + number, f"{way}_objective": number / 10}
    found = {"threads": 2, "regularisation": 0.1, "machine": {}, "plain": {"features": [50_000, 8], "median": middle}}
    (line,) = lines_with(make_results.render_performance(linear_probe={"a": found}), "| plain")
    assert line.endswith(
        "| plain | 50,000 x 8 | 1.00 | 2.00 | 3.00 | **2.0** | 81.00 | 82.00 | 83.00 | 0.10000 | 0.20000 |"
    )


def test_no_runs_make_a_page_too(make_results):
    assert "No run has been recorded yet" in make_results.render([])


def test_runs_are_grouped_by_data_set_and_the_order_of_files_does_not_matter(make_results):
    runs = [result("b"), result("a", recipe__data__images="digits"), result("c", recipe__data__images="leaves")]
    page = make_results.render(runs)
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## CIFAR-10 (JPEG)", "## leaves", "## scikit-learn's digits"]
    assert page == make_results.render(runs[::-1])


def test_paws_stands_beside_supervised(make_results):
    runs = [
        result("one", top1=81.0),
        result("two", top1=80.0, recipe__seed=1, recipe__data__label_seed=1),
        result("plain", "supervised", top1=75.5),
        result("few", top1=60.0, summary__num_labels=250),
    ]
    page = make_results.render(runs)
    (one,) = lines_with(page, "[one]")
    (two,) = lines_with(page, "[two]")
    (few,) = lines_with(page, "[few]")
    assert "| +5.50 |" in one
    assert "| +4.50 |" in two  # no supervised run with its labels: any with as many
    assert "| – |" in few
    assert "| **80.50** | 80.00 | 81.00 | +5.00 |" in lines_with(page, "| 4,000 | PAWS |")[0]
    assert (
        "[one](results/one.json) | PAWS | 4,000 | 0 | 1,500 | 96,000 | 540 | 178 | – | **81.00** | – | – | +5.50 |"
        in one
    )
    assert "| 1,650, 1,600 | train/loss █" in one


def test_what_learned_without_labels_stands_beside_what_trains_nothing(make_results):
    def votes(top1):
        return {"nearest_neighbours": {"20": {"top1": top1}}, "predicts_by": "soft_neighbours"}

    pixels = {"summary__test": votes(45.0) | {"nearest_neighbour": 35.0}, "summary__train_seconds": 0.0}
    runs = [
        result("swav", "swav", 50.0, summary__test=votes(55.0), summary__peak_memory_mb=900),
        result("untrained", "frozen", 20.0, summary__test=votes(30.0), summary__train_seconds=0.0),
        result("rows", "pixels", 45.0, **pixels),
        result("few", "pixels", 25.0, **pixels, recipe__data__labels_per_class=25, summary__num_labels=250),
        result("paws", "paws", 60.0),
    ]
    page = make_results.render(runs)
    first, second = page.split("### Learned with labels")
    (line,) = lines_with(first, "SwAV")
    assert line == "| [SwAV](results/swav.json) | 9.0 | 1,500 | 178 | 900 | **55.00** | +25.00 | +10.00 |"
    (line,) = lines_with(first, "[raw pixels")
    assert line.endswith("| **45.00** | – | – |")
    overview, _ = second.split("### Runs")
    assert "SwAV" not in overview
    assert "| 250 | raw pixels (the nearest alone: 35.00) | 0 | 1 | **25.00** |" in overview
    assert "untrained" not in overview


def test_what_fit_chose_is_named(run_tables):
    chosen = result("chosen", command="tapetum fit --output runs/chosen --images cifar10")
    assert run_tables.method(chosen) == "PAWS, chosen by fit"
    assert run_tables.difference(chosen, [result("s", "supervised", 75.0)]) == pytest.approx(5.0)


def test_intervals_that_held_are_counted(make_results):
    runs = [
        {
            "heldout_top1": 80.0,
            "heldout_interval": [70.0, 90.0],
            "heldout_labels": 50,
            "test_top1": top1,
            "contains": held,
        }
        for top1, held in ((85.0, True), (75.0, True), (95.0, False))
    ]
    page = make_results.render([], coverage={"leaves": {"command": "tapetum fit", "runs": runs}})
    (line,) = lines_with(page, "[leaves]")
    assert "| 50 | **2 of 3** | 20.0 | 85.00 | -5.00 | `tapetum fit` |" in line


def test_the_same_draw_of_labels_is_preferred(run_tables):
    paws = result("p", top1=81.0, recipe__data__label_seed=2)
    plain = [
        result("s", "supervised", top1=70.0),
        result("t", "supervised", top1=80.0, recipe__data__label_seed=2),
    ]
    assert run_tables.difference(paws, plain) == pytest.approx(1.0)


def test_runs_of_other_lengths_are_not_averaged(make_results):
    runs = [result("a", top1=80.0), result("b", top1=82.0, summary__train_seconds=600.0)]
    runs += [result("c", top1=70.0, summary__train_seconds=120.0)]
    lines = lines_with(make_results.render(runs), "| 4,000 | PAWS |")
    assert [line.split("|")[3:6] for line in lines] == [
        [" 120 ", " 1 ", " **70.00** "],
        [" 570 ", " 2 ", " **81.00** "],
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"recipe__backbone": {"kind": "wide_resnet"}},
        {"recipe__views": {"large": {"size": 32}}},
        {"recipe__data__images": "digits"},
        {"summary__num_labels": 250},
        {"summary__train_seconds": 5400.0},
        {"summary__test_top1": None},
    ],
)
def test_what_differs_in_more_than_the_method_is_no_pair(run_tables, other):
    assert run_tables.difference(result("p"), [result("s", "supervised", 75.0)]) == pytest.approx(5.0)
    assert run_tables.difference(result("p"), [result("s", "supervised", 75.0, **other)]) is None


def test_what_is_not_plain_is_named_and_an_ablation_is_not_compared(run_tables):
    terms = result("terms", top1=80.0, recipe__method__suncet_weight=0.3)
    assert run_tables.method(terms) == "PAWS with supervised terms"
    assert run_tables.difference(terms, [result("s", "supervised", 75.0)]) == pytest.approx(5.0)
    ablation = result("cut", recipe__data__pool=False)
    assert run_tables.method(ablation) == "PAWS, labelled images only"
    assert run_tables.difference(ablation, [result("s", "supervised")]) is None


def test_what_was_not_measured_is_a_dash(make_results):
    bare = {"summary__test": None, "summary__test_top1": None, "curve": [], "matrix_gflops": {}}
    (line,) = lines_with(make_results.render([result("bare", **bare)]), "[bare]")
    assert line.endswith("| 540 | 178 | – | – | – | – | – | –, – | – |")


def test_files_that_are_no_results_are_named(make_results, tmp_path):
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(ValueError, match=r"half\.json is no JSON"):
        make_results.read_results(tmp_path)
    (tmp_path / "half.json").write_text(json.dumps({"name": "half"}))
    with pytest.raises(ValueError, match=r"half\.json lacks recipe, summary"):
        make_results.read_results(tmp_path)
