"""What sharding saves is told as it was measured and reckoned."""


def test_what_was_measured_stands_before_what_was_reckoned(make_results):
    run = {"processes": 2, "strategy": "fsdp", "recompute": "blocks", "weights_mb": 43.4, "gradients_mb": 43.4}
    run |= {"optimizer_mb": 86.7, "peak_mb": 512.2}
    row = {"gpus": 8, "strategy": "fsdp", "recompute": "none", "weights": 180, "gradients": 181, "optimizer": 360}
    row |= {"gathered": 150, "copies": 600, "activations": 30_000, "together": 31_471}
    paper = {"network": "vit_large", "parameters": 313_600_000, "views": {"224": 233, "96": 384}, "rows": [row]}
    page = make_results.render_performance(sharding={"two_cores": {"runs": [run], "paper": paper}})
    lines = [line for line in page.splitlines() if line.startswith("|") and "fsdp" in line]
    assert lines == [
        "| [two_cores](results/sharding/two_cores.json) | 2 | fsdp | blocks | 43 | 43 | 87 | 512 |",
        "| 8 | fsdp | none | 180 | 181 | 360 | 150 | 600 | 30,000 | 31,471 |",
    ]
    assert "`vit_large` with 314 million weights" in page
    assert "233 images of 224 pixels and 384 images of 96 pixels" in page
    assert "never measured on a GPU" in page
