"""Run a selection of the suite with another Python or other versions of packages, and write down what passed.

    python benchmarks/versions.py NAME PYTHON [--tests tests/ops tests/methods]

PYTHON is the interpreter of an environment that holds the versions to try, the package itself, pytest and hypothesis.
Writes docs/results/versions/NAME.json: the versions, how many tests passed, and the names of those that did not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "results" / "versions"
SELECTION = [f"tests/{room}" for room in ("ops", "losses", "nn", "optim", "methods", "engine")]
VERSIONS = """
import json, re, sys
from importlib.metadata import requires, version
needed = [re.match(r"[\\w-]+", line)[0] for line in requires("tapetum") if "extra ==" not in line]
print(json.dumps({"python": sys.version.split()[0], **{name: version(name) for name in needed}}))
"""


def outcomes(report: Path) -> tuple[dict[str, int], list[str]]:
    """How many tests passed, failed and were skipped, and the names of those that failed."""
    counts, failed = Counter({"passed": 0, "failed": 0, "skipped": 0}), []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {part.tag for part in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        counts[outcome] += 1
        if outcome == "failed":
            failed.append(f"{case.get('classname')}::{case.get('name')}")
    return dict(counts), failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("python")
    parser.add_argument("--tests", nargs="+", default=SELECTION)
    words = parser.parse_args()
    said = subprocess.run([words.python, "-c", VERSIONS], check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-p", "no:cacheprovider", "-q", "--no-header", "--tb=line", f"--junitxml={report}"]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        start = time.perf_counter()
        subprocess.run([words.python, "-m", "pytest", *options, *words.tests], cwd=ROOT, env=environment)
        seconds = time.perf_counter() - start
        counts, failed = outcomes(report)
    result = {
        "name": words.name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": json.loads(said),
        "tests": words.tests,
        "seconds": round(seconds),
        **counts,
        "failures": failed,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{words.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"Written: {FOLDER / words.name}.json: {counts}")


if __name__ == "__main__":
    main()
