"""What Tapetum does with each kind of input from a stranger: its own functions, as its commands call them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch
from fuzz_seeds import NAMES
from fuzz_weights import network
from PIL import Image

from tapetum.cli.errors import _sentence, is_users
from tapetum.data.health.unreadable import readable
from tapetum.data.images.decoding import decode, header_size
from tapetum.data.sources.open_source import open_source
from tapetum.engine.checkpoint import latest_checkpoint, restore
from tapetum.interchange.weights.initial_weights import load_initial_weights
from tapetum.interchange.weights.networks import network_of
from tapetum.interchange.weights.weight_files import read_weights
from tapetum.labelling.answers import Answers
from tapetum.labelling.pictures import Pool
from tapetum.labelling.server import make_app
from tapetum.labelling.session import Session
from tapetum.recipe.recipe import dump_recipe, load_recipe, parse_recipe

TOKEN = "token"
Reader = Callable[[Path, Path], None]
"""(what to read, a folder of five images) -> nothing; ValueError if it is refused."""


def make_pool(folder: Path) -> Path:
    """The images that label files are about."""
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 5), (number, 9, 9)).save(folder / name)
    return folder


def also(call: Callable[[], Any]) -> None:
    """Call what comes after reading: it may refuse what was read, and nothing else."""
    try:
        call()
    except UnicodeError:
        raise
    except ValueError:
        pass


def read_image(path: Path, pool: Path) -> None:
    also(lambda: header_size(path))
    also(lambda: readable(open_source(path.parent, "none")))
    decode(path, 8)
    assert decode(path).ndim == 3


def read_labels(path: Path, pool: Path) -> None:
    also(lambda: open_source(path))  # as a list of images
    labels = open_source(pool, path).labels
    assert labels is None or labels.num_classes >= 2


def read_recipe(path: Path, pool: Path) -> None:
    recipe = load_recipe(path)
    assert parse_recipe(dump_recipe(recipe)) == recipe


def read_checkpoints(folder: Path, pool: Path) -> None:
    checkpoint = latest_checkpoint(folder / "checkpoints", lambda message: None)
    if checkpoint is not None:
        method = network()
        optimizer = torch.optim.AdamW(method.parameters())
        also(lambda: restore(checkpoint, method, optimizer, 0))
        assert checkpoint.step >= 0 or checkpoint.step < 0


def read_any_weights(path: Path, pool: Path) -> None:
    found = read_weights(path)
    also(lambda: network_of(found))
    also(lambda: load_initial_weights(network(), path))


def read_source(path: Path, pool: Path) -> None:
    also(lambda: open_source(path, split="test"))
    also(lambda: open_source(pool, path) if path.suffix == ".npy" else None)
    source = open_source(path)
    assert len(source.store.read(np.arange(1))) == 1
    assert source.labels is None or source.labels.fingerprint


def read_answers(path: Path, pool: Path) -> None:
    answers = Answers(path, NAMES, pool, "ann")
    answers.undo("t")
    answers.give({0: "cat"}, "key")
    assert answers.labels[0] == "cat"
    assert Answers(path, NAMES, pool, "ann").labels == answers.labels


def read_request(path: Path, pool: Path) -> None:
    session = Session(_page_pool(pool), path.parent / "answers" / "labels.csv", "ann")
    status, said = asyncio.run(_answer(make_app(session, TOKEN), _asked(path.read_bytes())))
    assert status < 500, f"{status} {said}"
    if status >= 400:
        raise ValueError(f"{path.name}: {status} {said}")


def _page_pool(root: Path) -> Pool:
    def opened(name: str, side: int) -> Image.Image:
        return Image.fromarray(decode(root / name, side).permute(1, 2, 0).numpy())

    return Pool(str(root), root, NAMES, opened)


def _asked(content: bytes) -> Mapping[str, Any]:
    """The request that a file tells, or else one that has the file as its body."""
    try:
        asked = json.loads(content)
        method, path, headers = str(asked["method"]), str(asked["path"]), dict(asked["headers"])
        body = str(asked["body"]).encode(errors="replace")
    except (ValueError, KeyError, TypeError, RecursionError):
        method, path, body = "POST", "/TOKEN/answer", content
        headers = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}
    path, _, query = path.replace("TOKEN", TOKEN).partition("?")
    raw = [
        (str(k).lower().encode("latin-1", "replace"), str(v).encode("latin-1", "replace")) for k, v in headers.items()
    ]
    return {"method": method.upper(), "path": path, "query": query, "headers": raw, "body": body}


async def _answer(app: Any, asked: Mapping[str, Any]) -> tuple[int, str]:
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""}
    scope |= {
        "method": asked["method"],
        "path": unquote(asked["path"]),
        "raw_path": asked["path"].encode(errors="replace"),
    }
    scope |= {"query_string": asked["query"].encode(errors="replace"), "headers": asked["headers"]}
    scope |= {"client": ("127.0.0.1", 9), "server": ("127.0.0.1", 8000)}
    told: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": asked["body"], "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    await app(scope, receive, send)
    return told[0]["status"], b"".join(part.get("body", b"") for part in told[1:])[:500].decode(errors="replace")


READERS: Mapping[str, Reader] = {
    "images": read_image,
    "labels": read_labels,
    "label_formats": read_labels,
    "recipes": read_recipe,
    "checkpoints": read_checkpoints,
    **dict.fromkeys(("safetensors", "torch", "paddle", "keras", "tensorflow"), read_any_weights),
    **dict.fromkeys(("matlab", "idx", "cifar", "numpy"), read_source),
    "answer_logs": read_answers,
    "requests": read_request,
}


def judged(call: Callable[[], None], names: tuple[str, ...]) -> tuple[str, str, bool]:
    """Call something; return (fate, what was said, whether memory was short), as `fuzz_child.run` wants them.

    Args:
        names: the sentence of a refusal must hold one of these.
    """
    try:
        call()
    except Exception as error:
        if not is_users(error) or isinstance(error, UnicodeError):
            return "traceback", f"{type(error).__name__}: {error}", False
        said = _sentence(error)
        fate = "refused" if not names or any(name in said for name in names) else "nameless"
        return fate, said, _is_starved(error)
    return "accepted", "", False


def _is_starved(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
