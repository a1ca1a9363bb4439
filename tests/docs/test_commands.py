"""The commands of README and docs/verbs run as they stand, but for their length: on small data and for few steps."""

import functools
import pickle
import re
import shlex
import tempfile

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from tapetum.cli.main import app, main
from tapetum.evaluation import baselines
from tapetum.labelling import server
from tapetum.ops.randomness import make_keys, uniform
from tapetum.verbs import demo
from tapetum.verbs import submit as submitting

VERBS = (
    *("demo", "check", "fit", "label", "train", "resume", "submit", "doctor", "evaluate", "finetune"),
    *("predict", "add-class", "embed", "export", "labels", "cluster", "suggest"),
    *("plot", "report", "review", "recipes", "views"),
)
PAGES = ["README.md", *(f"docs/verbs/{verb}.md" for verb in VERBS)]
submit = submitting.submit
CLASSES = ("ash", "birch", "cedar")
SMALL = ["trainer.steps=2", "data.batch_size=8", "data.labels_per_class=4", "support.images_per_class=2"]


def commands(text):
    """The lines `tapetum ...` of fenced bash blocks, as lists of words without the program's name."""
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "tapetum":
                yield words[1:]


def shortened(words):
    """The same command for two steps on small data."""
    verb = words[0]
    if verb in ("train", "submit"):
        network = ["backbone.depth=10", "views.small.count=1"] if "paws_cifar10_4000" in words else []
        return [*words, *SMALL, *network]
    if verb == "suggest":
        return shlex.split(re.sub(r"--minutes \S+", "--minutes 0.02", shlex.join(words)))
    if verb == "fit":
        return shlex.split(re.sub(r"--(minutes|epochs|steps) \S+", "--steps 2", shlex.join(words)))
    if verb == "finetune" and not words[-1].startswith("trainer.steps="):
        return [*words, "trainer.steps=2"]
    if verb in ("evaluate", "finetune"):
        return [re.sub(r"trainer\.steps=\d+", "trainer.steps=2", word) for word in words]
    return words


def submit_and_wait(*words, **options):
    jobs = submit(*words, **options)
    for job in jobs:
        job.result()
    return jobs


def seen_and_left(session, port, tell):
    """The page, for somebody who opens it and leaves at once."""
    tell(f"http://127.0.0.1:{port or 1}/token/")
    session.training.stop()


def pixels(*name, count=1):
    """(count, 32, 32, 3) uint8, a function of the name."""
    return (uniform(make_keys(*name), count * 32 * 32 * 3) * 256).astype(np.uint8).reshape(count, 32, 32, 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with what the commands name: photos, labels.csv, photos-test, new and cifar-10-batches-py."""
    folder = tmp_path_factory.mktemp("world")
    lines = ["path,label"]
    (folder / "photos").mkdir()
    for number in range(30):
        Image.fromarray(pixels("photos", number)[0]).save(folder / "photos" / f"{number:03}.png")
        lines += [f"{number:03}.png,{CLASSES[number % 3]}"] if number < 24 else []
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    for name in (*(f"photos-test/{name}" for name in CLASSES), "new/dogwood", "new/more-ash"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(pixels(name, number)[0]).save(folder / name / f"{number}.png")
    cifar = folder / "cifar-10-batches-py"
    cifar.mkdir()
    (cifar / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        rows = pixels(name, count=20).transpose(0, 3, 1, 2).reshape(20, -1)
        (cifar / name).write_bytes(pickle.dumps({"data": rows, "labels": [i % 10 for i in range(20)]}))
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_their_order(root, world, page, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TAPETUM_CACHE", str(world / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on a busy machine, more threads would mostly wait for each other
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "demo", functools.partial(demo.demo, steps=2))
    monkeypatch.setattr(submitting, "submit", submit_and_wait)
    monkeypatch.setattr(server, "serve", seen_and_left)
    monkeypatch.setattr(baselines, "SPREADING_SETTINGS", (baselines.SPREADING,))
    monkeypatch.chdir(tmp_path)
    for thing in world.iterdir():
        (tmp_path / thing.name).symlink_to(thing)
    threads = torch.get_num_threads()
    found = list(commands((root / page).read_text()))
    assert found
    try:
        for words in found:
            with pytest.raises(SystemExit) as stop:
                main(shortened(words))
            said = capsys.readouterr()
            assert stop.value.code == 0, f"tapetum {shlex.join(words)}: {said.err}"
            assert said.out
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_a_page_that_shows_it_and_names_its_arguments(root, verb):
    text = (root / "docs" / "verbs" / f"{verb}.md").read_text()
    assert verb in [words[0] for words in commands(text)]
    assert f"({verb}.md)" in (root / "docs" / "verbs" / "README.md").read_text()
    for parameter in typer.main.get_command(app).commands[verb].params:
        if parameter.name != "help":
            is_option = parameter.opts[0].startswith("-")
            name = parameter.opts[0] if is_option else parameter.metavar.replace("|", r"\|")  # as in a table
            assert f"`{name}" in text, f"{verb}.md does not mention {name}"


def documents(root):
    return [*root.glob("*.md"), *(root / "docs").rglob("*.md")]


def test_links_lead_somewhere(root):
    for page in documents(root):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" not in target and not target.startswith("#"):
                assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def test_every_dependency_is_accounted_for(root):
    accounts = (root / "docs" / "dependencies.md").read_text()
    project = (root / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[$.*?^\[project\.scripts\]", project, re.MULTILINE | re.DOTALL)
    for name in re.findall(r'"([A-Za-z][\w-]*)[>=<"]', listed.group()):
        assert re.search(rf"^\|.*\b{re.escape(name)}\b.*\|", accounts, re.MULTILINE), name
