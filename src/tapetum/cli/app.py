"""The command line's frame: a command calls the public function of the same name.

Verbs are imported when their command is called, so that `tapetum --help` loads no torch. Defaults and behaviour belong
to the verbs, not here.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import typer

from tapetum.system.launcher import launched

_REPEATABLE = ("overrides", "plugins", "recipes")  # lists on the command line, tuples in Python
_SHARED = ("fit", "train", "resume", "finetune", "predict", "embed", "evaluate")  # several processes can run these

# Plain text: Typer's rich help costs a third of the time that `--help` may take.
app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def command(declared: Callable[..., None]) -> Callable[..., int]:
    """Make a command from a verb's parameters and help. It calls the public function of the same name."""

    @functools.wraps(declared)
    def run(**given: Any) -> int:
        name, place = declared.__name__, launched()
        if place is not None and place.world_size > 1 and name not in _SHARED:
            raise ValueError(
                f"{place.by} started {place.world_size} processes, but {name.replace('_', '-')} needs one: "
                f"call it without {place.by}."
            )
        verb = getattr(importlib.import_module(f"tapetum.verbs.{name}"), name)
        found = verb(**{key: tuple(value or ()) if key in _REPEATABLE else value for key, value in given.items()})
        return 1 if isinstance(found, dict) and found.get("broken") else 0  # of doctor --install

    return app.command()(run)
