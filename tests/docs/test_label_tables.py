"""Tables about wrong labels and images of no class."""


def lines_with(text, word):
    return [line for line in text.splitlines() if line.startswith("|") and word in line]


def test_rankings_of_wrong_labels_stand_side_by_side(make_results, run_tables):
    draws = [{"soft neighbours": {"margin_x": {"precision": share, "listed": 80}}} for share in (0.5, 0.7)]
    run = {"method": "swav", "steps": 1500, "labels": 0, "trained_on_flipped": False, "draws": draws}
    own = {"soft neighbours": {"cleanlab": {"precision": 0.9, "listed": 60}}}
    folded = {"method": "paws", "steps": 2000, "labels": 1000, "trained_on_flipped": True, "draws": [own]}
    page = make_results.render([], label_errors={"cifar10": {"first": 50, "runs": {"a": run, "b": folded}}})
    (heads,) = lines_with(page, "first 50: margin x")
    (first,) = lines_with(page, "[SwAV, 0 labels, 1,500 steps](results/label_errors/cifar10.json)")
    assert first.endswith(f"| 2 draws of others | soft neighbours | 60.0 | {run_tables.ABSENT} |")
    (second,) = lines_with(page, "[PAWS, 1,000 labels")
    assert second.endswith(f"| the flipped ones | soft neighbours | {run_tables.ABSENT} | 90.0 |")
    assert "first 50: cleanlab" in heads


def test_scores_of_images_of_no_class_stand_side_by_side(make_results):
    apart = {"auroc": {"x": 0.875}, "rejected": {"test": 0.061, "x": 0.5}}
    run = {"method": "paws", "steps": 2000, "labels": 4000, "scores": {"nearest": apart}, "helped": {"5 of x": apart}}
    page = make_results.render([], out_of_class={"cifar10": {"reject": 0.05, "runs": {"a": run}}})
    for what in ("nearest", "5 of x"):
        (line,) = lines_with(page, f"| {what} |")
        assert line.endswith(f"| {what} | 87.5 | 6.1 | 50.0 |")
    assert "rejected at 0.05, test" in page


def test_a_walk_tells_its_rounds(make_results, run_tables):
    told = {"labels": 20, "strokes": 40, "expected": None, "interval": None, "unseen": 61.4, "minutes": 1.234}
    later = {**told, "labels": 40, "strokes": 70, "expected": 88.9, "interval": [56.5, 98.0], "unseen": 90.2}
    page = make_results.render([], label_walk={"digits": {"images": 1297, "steps": 100, "rounds": [told, later]}})
    first, second = lines_with(page, "1,297 images, 100 steps a round")
    assert first.endswith(f"| 20 | 40 | {run_tables.ABSENT} | **61.4** | 1.2 |")
    assert second.endswith("| 40 | 70 | 89 (56 to 98) | **90.2** | 1.2 |")
