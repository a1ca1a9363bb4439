"""Hostile inputs that are chosen by what they reach in Tapetum: atheris, libFuzzer for Python (`pip install atheris`).

Those that reach new lines are kept and changed further, by libFuzzer's changes and by those of `fuzz_mutations`, in
turn. An input is two bytes, which choose a valid input and one of its files, and that file's new content. Where one
ends the process, as a hang does, another process goes on with what was kept.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

SECONDS = 60
"""The longest that one input may take, on a machine that others use, too."""
_ENDS = {"timeout": "hang", "crash": "signal", "oom": "memory"}
"""How libFuzzer names the input that ended its process -> what we call that."""


def guide(kind: str, seconds: float, keep: Path | None = None) -> dict[str, Any]:
    """Read inputs of a kind for so many seconds.

    Args:
        keep: where failing inputs are kept, one of each sort.

    Returns:
        number of inputs, places of Tapetum's code that valid ones reach, that all reach, and failures of each sort.

    Raises:
        RuntimeError: atheris cannot run here; says what it printed.
    """
    inputs, reached = 0, []
    with tempfile.TemporaryDirectory() as folder:
        corpus, failed = Path(folder, "corpus"), Path(folder, "failed")
        corpus.mkdir()
        failed.mkdir()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) >= 1:
            command = [sys.executable, str(Path(__file__)), kind, str(int(left)), folder]
            environment = {**os.environ, "TAPETUM_CACHE": str(Path(folder, "cache"))}
            done = subprocess.run(command, capture_output=True, cwd=failed, env=environment, check=False)
            said = done.stderr.decode(errors="replace")
            reached += [int(count) for count in re.findall(r"\bcov: (\d+)", said)]
            if not reached:
                raise RuntimeError(said[-2000:])
            counted = re.findall(r"number_of_executed_units: (\d+)", said) or re.findall(r"^#(\d+)", said, re.MULTILINE)
            inputs += int(counted[-1])
        ended = [path.name.split("-")[0] for path in failed.iterdir()]
        failures = Counter(_ENDS[how] for how in ended if how in _ENDS)
        for told in failed.glob("*.json"):
            print(f"{kind}: {told.read_text()[:400]}", file=sys.stderr)
            failures[json.loads(told.read_text())["fate"]] += 1
        if keep is not None and failures:
            shutil.copytree(failed, keep / kind, dirs_exist_ok=True)
    return {"inputs": inputs, "reached_by_valid": reached[0], "reached": max(reached), "failures": dict(failures)}


class Target:
    """What libFuzzer calls for each input of a kind, in a folder; keeps one failing input of each sort in this one."""

    def __init__(self, kind: str, folder: Path) -> None:
        import fuzz
        from fuzz_child import Watch, limited

        self.fuzz, self.kind, self.folder = fuzz, kind, folder
        self.pool = fuzz.make_pool(folder / "pool")
        self.seeds = fuzz.seeds_of(kind)
        self.names = [[name for name in seed.files if name not in seed.kept] for seed in self.seeds]
        self.sorts: set[str] = set()
        for first, seed in enumerate(self.seeds):
            for second, name in enumerate(self.names[first]):
                data = bytes((first, second)) + seed.files[name]
                (folder / "corpus" / f"valid-{first}-{second}").write_bytes(data)
                self.read(data)  # loads what is loaded late, before the watch
        self.watch = Watch(folder)
        self.watch.watch_helper()
        limited()

    def read(self, data: bytes) -> tuple[str, str]:
        """Write the files of an input, and read them; returns (fate, what was said)."""
        first, second = (*data[:2], 0, 0)[:2]
        seed, names = self.seeds[first % len(self.seeds)], self.names[first % len(self.seeds)]
        with tempfile.TemporaryDirectory(dir=self.folder) as own:
            self.fuzz.write(seed._replace(files={**seed.files, names[second % len(names)]: data[2:]}), Path(own))
            call = partial(self.fuzz.READERS[self.kind], Path(own) / seed.entry, self.pool)
            return self.fuzz.judged(call, (Path(own).name, *(Path(name).name for name in seed.files)))[:2]

    def __call__(self, data: bytes) -> None:
        self.watch.told()
        fate, said = self.read(data)
        if seen := self.watch.told():
            fate, said = "execution", "; ".join(seen)
        sort = fate + said.split(":")[0][:60]
        if fate in self.fuzz.FAILURES and sort not in self.sorts:
            self.sorts.add(sort)
            name = Path(f"input-{time.monotonic_ns()}")
            name.write_bytes(data)
            name.with_suffix(".json").write_text(json.dumps({"fate": fate, "said": said}))

    def change(self, data: bytes, largest: int, seed: int) -> bytes:
        """Change an input: by libFuzzer, or as `fuzz.py` does, which knows archives and check sums."""
        import atheris
        from fuzz_mutations import mutated
        from fuzz_weights import resealed

        rng = random.Random(seed)
        others = [content for one in self.seeds for content in one.files.values()]
        by = partial(mutated, rng=rng, others=others, tokens=self.fuzz.SEEDS[self.kind][1])
        if seed % 2 == 0 and len(data) > 2:
            try:
                content = resealed(data[2:], by) if self.kind == "checkpoints" and seed % 4 else by(data[2:])
                return (data[:2] + content)[:largest]
            except Exception:  # it is no archive or checkpoint any more, whose parts could be changed
                pass
        return atheris.Mutate(data, largest)


def _run(kind: str, seconds: int, folder: Path) -> None:
    """Read inputs in this process, until time is over or one ends it."""
    import atheris

    with atheris.instrument_imports(include=["tapetum"], enable_loader_override=False):
        import fuzz
    warnings.simplefilter("ignore")
    fuzz.torch.set_num_threads(1)
    target = Target(kind, folder)
    largest = max(4096, *(2 * len(content) for seed in target.seeds for content in seed.files.values()))
    options = [f"-max_total_time={seconds}", f"-timeout={SECONDS}", "-rss_limit_mb=0", f"-max_len={largest}"]
    arguments = [sys.argv[0], str(folder / "corpus"), *options, "-print_final_stats=1"]
    atheris.Setup(arguments, target, custom_mutator=target.change)
    atheris.Fuzz()


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
