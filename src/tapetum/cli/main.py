"""The entry point: runs one command; if its input is wrong, prints one line on stderr and exits with code 2."""

import io
import os
import sys
from typing import Annotated

import typer

from tapetum.cli import commands_to_train, commands_to_use  # noqa: F401 (importing them declares the commands)
from tapetum.cli.app import app
from tapetum.cli.errors import complain, is_lost_process, is_users
from tapetum.system.interruption import STOPPED, Interrupted
from tapetum.system.launcher import launched, process_rank
from tapetum.system.notices import notify
from tapetum.system.started import begin_with_process

_TRACEBACK = "TAPETUM_TRACEBACK"


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tapetum {version('tapetum')}")
        raise typer.Exit


def _show_traceback(wanted: bool) -> None:
    if wanted:
        os.environ[_TRACEBACK] = "1"


@app.callback()
def tapetum(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", is_eager=True, callback=_show_traceback, hidden=True)
    ] = False,
) -> None:
    """Train image classifiers and representations from many images and few labels.

    \b
    Start here:  tapetum demo
    Your data:   tapetum fit --images photos --labels labels.csv --minutes 60 --output runs/first
    Published:   tapetum recipes
    """


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 on success, 1 if an installation is broken, 2 if input is wrong, 130 after Ctrl-C."""
    try:
        # Hides advice on DistributedDataParallel from each process.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        if arguments is None:
            begin_with_process()
        command = typer.main.get_command(app)
        arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # for file names that the terminal's encoding lacks
        code = command.main(args=arguments, prog_name="tapetum", standalone_mode=False)
        if sys.stdout is not None:  # closed by whoever started this
            sys.stdout.flush()
    except Interrupted as stop:
        # The trainer has printed what it saved and how to continue. Fabric kills the first process when one that it has
        # started ends with another code than 0: the first may still be at work after a stop that all agreed on, but
        # would wait forever for one that has stopped by itself.
        sys.exit(0 if stop.is_agreed and launched() is None and process_rank() > 0 else STOPPED)
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    except BrokenPipeError:
        # The reader of the output has gone (`tapetum recipes | head`). Without this, Python complains again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get(_TRACEBACK) == "1" or not (is_users(error) or is_lost_process(error)):
            raise
        complain(error)
        sys.exit(2 if is_users(error) else 1)
    if code == STOPPED:  # Typer also turns a KeyboardInterrupt into this code
        notify("stopped at once, nothing more saved.")
    sys.exit(code if isinstance(code, int) else 0)
