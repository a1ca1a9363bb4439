import importlib
import importlib.util
import inspect
import os
import re
import resource
import subprocess
import sys
import types
from pathlib import Path

import pytest

import tapetum
from tapetum.cli.app import _SHARED
from tapetum.cli.main import main
from tapetum.system.interruption import Interrupted

VERBS = (
    *("demo", "check", "fit", "label", "train", "resume", "submit", "doctor", "evaluate", "finetune"),
    *("predict", "add-class", "embed", "export", "labels", "cluster", "suggest"),
    *("plot", "report", "review", "recipes", "views"),
)


def run(*arguments, **keywords):
    return subprocess.run(
        [sys.executable, "-m", "tapetum", *arguments], capture_output=True, text=True, timeout=120, **keywords
    )


def call(capsys, *arguments):
    """Exit code and stderr of a command in this process."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code, capsys.readouterr().err


@pytest.fixture
def calls(monkeypatch):
    """Every verb replaced by one that notes its arguments; `calls.raises` makes them raise."""
    noted = types.SimpleNamespace(got=[], raises=None)
    for verb in VERBS:
        name = verb.replace("-", "_")
        module = types.ModuleType(f"tapetum.verbs.{name}")

        def stand_in(verb=verb, **arguments):
            noted.got.append((verb, arguments))
            if noted.raises is not None:
                raise noted.raises

        setattr(module, name, stand_in)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return noted


USUAL = {
    **dict.fromkeys(("test", "protocol", "images", "labels", "labels_per_class", "labels_percent", "draws")),
    **dict.fromkeys(("features", "temperature", "top_k", "output")),
    "overrides": (),
    "plugins": (),
}
"""Arguments of `evaluate` that are not given."""
MOVED = {"images": None, "labels": None}
OWN_MOVED = {"run_images": None, "run_labels": None}
COMMANDS = [
    ("demo", {"output": None}),
    ("demo --output r", {"output": Path("r")}),
    ("check d", {"images": "d", "labels": None, "test": None, "output": None}),
    (
        "check d --labels l.csv --test t --output o",
        {"images": "d", "labels": "l.csv", "test": "t", "output": Path("o")},
    ),
    (
        "fit --images d --labels l.csv --output r",
        {
            "images": "d",
            "labels": "l.csv",
            "output": Path("r"),
            "test": None,
            "labels_per_class": None,
            "labels_percent": None,
            "minutes": None,
            "epochs": None,
            "steps": None,
            "folds": None,
            "init": None,
            "frozen": None,
            "strict": False,
            "overrides": (),
            "plugins": (),
        },
    ),
    (
        "fit seed=1 --images d --labels l --output r --test t --labels-per-class 4 "
        "--labels-percent 2.5 --minutes 1.5 --epochs 2 --steps 3 --init w --strict a.b=c --plugin m",
        {
            "images": "d",
            "labels": "l",
            "output": Path("r"),
            "test": "t",
            "labels_per_class": 4,
            "labels_percent": 2.5,
            "minutes": 1.5,
            "epochs": 2.0,
            "steps": 3,
            "folds": None,
            "init": "w",
            "frozen": None,
            "strict": True,
            "overrides": ("seed=1", "a.b=c"),
            "plugins": ("m",),
        },
    ),
    ("train paws --output r", {"recipe": "paws", "output": Path("r"), "overrides": (), "plugins": ()}),
    (
        "train x.yaml --output r seed=1 --plugin m --plugin n support=null",
        {"recipe": "x.yaml", "output": Path("r"), "overrides": ("seed=1", "support=null"), "plugins": ("m", "n")},
    ),
    ("resume r", {"run": Path("r"), "inexact": False, "plugins": (), **MOVED, "test": None}),
    ("resume r --inexact", {"run": Path("r"), "inexact": True, "plugins": (), **MOVED, "test": None}),
    (
        "resume r --images d --labels l --test t",
        {"run": Path("r"), "inexact": False, "plugins": (), "images": "d", "labels": "l", "test": "t"},
    ),
    (
        "submit a b seed=1 --output r",
        {
            **dict.fromkeys(("partition", "processes", "gpus", "cpus", "hours", "minutes")),
            "recipes": ("a", "b", "seed=1"),
            "output": Path("r"),
            "cluster": "slurm",
            "nodes": 1,
            "plugins": (),
        },
    ),
    (
        "submit a --output r --cluster local --partition p --nodes 2 --processes 3 --gpus 3 --cpus 4 --hours 1.5"
        " --minutes 5 --plugin m",
        {
            "recipes": ("a",),
            "output": Path("r"),
            "cluster": "local",
            "partition": "p",
            "nodes": 2,
            "processes": 3,
            "gpus": 3,
            "cpus": 4,
            "hours": 1.5,
            "minutes": 5,
            "plugins": ("m",),
        },
    ),
    ("doctor r", {"run": Path("r"), "install": False, "json": False, "plugins": ()}),
    ("doctor r --json --plugin m", {"run": Path("r"), "install": False, "json": True, "plugins": ("m",)}),
    ("doctor --install", {"run": None, "install": True, "json": False, "plugins": ()}),
    ("evaluate r --test t --plugin m", {**USUAL, "run": "r", "test": "t", "plugins": ("m",)}),
    (
        "evaluate f.pth --protocol suncet --images d --labels l --labels-per-class 3 --labels-percent 1.5 --draws 2 "
        "--features own --temperature 0.2 --top-k 5 --output o seed=1",
        {
            **USUAL,
            "run": "f.pth",
            "protocol": "suncet",
            "images": "d",
            "labels": "l",
            "labels_per_class": 3,
            "labels_percent": 1.5,
            "draws": 2,
            "features": "own",
            "temperature": 0.2,
            "top_k": 5,
            "output": Path("o"),
            "overrides": ("seed=1",),
        },
    ),
    (
        "finetune timm:n --output o --images d --labels l --test t --labels-per-class 3 seed=1 --plugin m",
        {
            "weights": "timm:n",
            "output": Path("o"),
            "images": "d",
            "labels": "l",
            "test": "t",
            "labels_per_class": 3,
            "labels_percent": None,
            "overrides": ("seed=1",),
            "plugins": ("m",),
        },
    ),
    (
        "predict r d --output p.csv",
        {
            **dict.fromkeys(("neighbours", "reject")),
            "run": Path("r"),
            "images": "d",
            "output": Path("p.csv"),
            "json": False,
            "plugins": (),
            **OWN_MOVED,
        },
    ),
    (
        "predict r d --output p.csv --neighbours 5 --json --reject 0.1 --images o --labels l --plugin m",
        {
            "run": Path("r"),
            "images": "d",
            "output": Path("p.csv"),
            "neighbours": 5,
            "json": True,
            "reject": 0.1,
            "plugins": ("m",),
            "run_images": "o",
            "run_labels": "l",
        },
    ),
    (
        "embed r d --output e.npz --plugin m",
        {"run": Path("r"), "images": "d", "output": Path("e.npz"), "plugins": ("m",), **OWN_MOVED},
    ),
    (
        "cluster r d --output o",
        {"run": Path("r"), "images": "d", "output": Path("o"), "clusters": None, "plugins": (), **OWN_MOVED},
    ),
    (
        "cluster r d --output o --clusters 9 --plugin m",
        {"run": Path("r"), "images": "d", "output": Path("o"), "clusters": 9, "plugins": ("m",), **OWN_MOVED},
    ),
    (
        "suggest p --count 9 --output t.csv",
        {
            **dict.fromkeys(("labels", "frozen", "minutes", "by", "seed", "images")),
            "pool": "p",
            "count": 9,
            "output": Path("t.csv"),
            "plugins": (),
        },
    ),
    (
        "suggest p --count 9 --output t --labels l --frozen w --minutes 1.5 --by badge --seed 3 --images d --plugin m",
        {
            "pool": "p",
            "count": 9,
            "output": Path("t"),
            "labels": "l",
            "frozen": "w",
            "minutes": 1.5,
            "by": "badge",
            "seed": 3,
            "images": "d",
            "plugins": ("m",),
        },
    ),
    ("add-class r d", {"run": Path("r"), "folder": Path("d"), "name": None, "plugins": (), **MOVED}),
    (
        "add-class r d --name n --plugin m",
        {"run": Path("r"), "folder": Path("d"), "name": "n", "plugins": ("m",), **MOVED},
    ),
    (
        "export r --format onnx --output o --plugin m",
        {"run": Path("r"), "format": "onnx", "output": Path("o"), "plugins": ("m",), **MOVED},
    ),
    (
        "label d",
        {"images": "d", **dict.fromkeys(("labels", "run", "suggested", "port"))},
    ),
    (
        "label d --labels l.csv --run r --suggested s.csv --port 7",
        {"images": "d", "labels": "l.csv", "run": Path("r"), "suggested": Path("s.csv"), "port": 7},
    ),
    ("review r --output o", {"run": Path("r"), "output": Path("o"), "plugins": (), **MOVED}),
    ("plot r", {"run": Path("r"), "output": None, "umap": False, "plugins": (), **MOVED}),
    (
        "plot r --output d --umap --plugin m",
        {"run": Path("r"), "output": Path("d"), "umap": True, "plugins": ("m",), **MOVED},
    ),
    ("report r", {"run": Path("r"), "output": None, "plugins": (), **MOVED}),
    (
        "report r --output p.html --images d --labels l --plugin m",
        {"run": Path("r"), "output": Path("p.html"), "plugins": ("m",), "images": "d", "labels": "l"},
    ),
    (
        "labels r --format coco --output o --plugin m",
        {
            **dict.fromkeys(("images", "predictions")),
            "labels": "r",
            "format": "coco",
            "output": Path("o"),
            "plugins": ("m",),
        },
    ),
    ("recipes", {"name": None, "fields": None, "plugins": ()}),
    ("recipes paws", {"name": "paws", "fields": None, "plugins": ()}),
    ("recipes --fields mine --plugin m", {"name": None, "fields": "mine", "plugins": ("m",)}),
    (
        "views paws --output s.png",
        {"recipe": "paws", "output": Path("s.png"), "images": None, "overrides": (), "plugins": ()},
    ),
    (
        "views paws --output s.png --images d seed=1 --plugin m",
        {"recipe": "paws", "output": Path("s.png"), "images": "d", "overrides": ("seed=1",), "plugins": ("m",)},
    ),
]


@pytest.mark.parametrize(("line", "arguments"), COMMANDS)
def test_each_command_calls_the_verb_of_its_name(calls, capsys, line, arguments):
    assert call(capsys, *line.split()) == (0, "")
    assert calls.got == [(line.split()[0], arguments)]


@pytest.mark.parametrize(("line", "arguments"), COMMANDS)
def test_verbs_take_what_their_commands_pass(line, arguments):
    verb = line.split()[0].replace("-", "_")
    if importlib.util.find_spec(f"tapetum.verbs.{verb}") is None:
        pytest.skip(f"the verb {verb} is not written yet")
    function = getattr(importlib.import_module(f"tapetum.verbs.{verb}"), verb)
    inspect.signature(function).bind(**arguments)
    assert getattr(tapetum, verb) is function


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in _SHARED])
def test_what_one_process_does_is_refused_by_several(calls, capsys, monkeypatch, verb):
    """Each of them would write the same file."""
    line = next(line for line, _ in COMMANDS if line.split()[0] == verb)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for name, value in {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    code, error = call(capsys, *line.split())
    assert code == 2
    assert f"torchrun started 2 processes, but {verb} needs one" in error
    assert not calls.got
    monkeypatch.setenv("WORLD_SIZE", "1")
    call(capsys, *line.split())
    assert calls.got


def test_names_of_files_that_are_no_text_are_printed_all_the_same(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.png")).write_text("no image")
    done = run("check", ".", cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "such as \\udcff.png" in done.stdout


def test_help_loads_no_torch_and_is_quick():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert all(re.search(rf"^  {verb} +\S", done.stdout, re.MULTILINE) for verb in VERBS)
    # Processor time, which another load on the machine does not stretch as it does the wall clock's.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
    program = (
        "import sys, tapetum, tapetum.cli.main\n"
        "try: tapetum.cli.main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "loaded = {'torch', 'numpy', 'pydantic', 'lightning_fabric', 'torchvision'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_has_an_example_of_it(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"Example:  tapetum {verb}" in capsys.readouterr().out


def test_help_in_a_list_is_not_cut_off():
    assert "..." not in run("--help", env={**os.environ, "COLUMNS": "80"}).stdout.split("Commands:")[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "No such command 'trian'. Did you mean 'train'?"),
        ("fit --images d", "Missing option '--output'."),
        ("fit --imags d", "No such option: --imags"),
        ("fit --images d --labels l --output r --steps many", "Invalid value for '--steps'"),
        ("recipes zzz", "'zzz' is neither a shipped recipe nor a file: `tapetum recipes` lists them."),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, line, message):
    code, error = call(capsys, *line.split())
    assert code == 2
    assert error.startswith("tapetum: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("seed is 'x':\n  use a number."), "seed is 'x': use a number."),
        (FileNotFoundError(2, "No such file or directory", "photos"), "photos: no such file or directory."),
        (FileNotFoundError("photos does not exist: give a folder."), "photos does not exist: give a folder."),
        (PermissionError(13, "Permission denied", "runs"), "runs: permission denied."),
    ],
)
def test_errors_of_users_show_no_traceback(calls, capsys, monkeypatch, error, line):
    monkeypatch.delenv("TAPETUM_TRACEBACK", raising=False)
    calls.raises = error
    assert call(capsys, "demo") == (2, f"tapetum: error: {line}\n")


def test_tracebacks_are_shown_on_demand_and_for_errors_of_ours(calls, monkeypatch):
    calls.raises = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        main(["demo"])
    calls.raises = ValueError("seed")
    monkeypatch.setenv("TAPETUM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="seed"):
        main(["demo"])
    monkeypatch.setenv("TAPETUM_TRACEBACK", "0")
    with pytest.raises(ValueError, match="seed"):
        main(["--traceback", "demo"])


def test_an_interrupted_run_leaves_the_last_word_to_the_trainer(calls, capsys):
    calls.raises = Interrupted(3, "Saved. Continue with: tapetum resume r")
    assert call(capsys, "demo") == (130, "")
    calls.raises = KeyboardInterrupt()
    assert call(capsys, "demo") == (130, "tapetum: stopped at once, nothing more saved.\n")


def test_processes_that_fabric_started_leave_the_exit_code_to_the_first(calls, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    calls.raises = Interrupted(3, "Stopped at once. Continue from what is saved with: tapetum resume r")
    assert call(capsys, "resume", "r") == (130, ""), "the first process would wait for this one"
    calls.raises = Interrupted(3, "Saved. Continue with: tapetum resume r", is_agreed=True)
    assert call(capsys, "resume", "r") == (0, "")
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in {**torchrun, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert call(capsys, "resume", "r") == (130, "")


def test_no_arguments_ask_for_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 0
    assert "tapetum demo" in capsys.readouterr().out


def test_version():
    assert re.fullmatch(r"tapetum \d+\.\d+\S*\n", run("--version").stdout)


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-m", "tapetum", "recipes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_public_names_are_listed_and_unknown_ones_are_not_there():
    assert {verb.replace("-", "_") for verb in VERBS} | {"Recipe", "load_recipe", "register"} <= set(dir(tapetum))
    assert tapetum.load_recipe("paws_cifar10_4000").seed == 0
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = tapetum.fitt
