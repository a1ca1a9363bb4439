"""The page's server: translates requests into calls of a `Session`, and listens on 127.0.0.1 alone."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from tapetum.labelling.access import Guard
from tapetum.labelling.pictures import SIDES
from tapetum.labelling.session import Session, shown
from tapetum.reporting.pages import render_page

ADDRESS = "127.0.0.1"
_EVERY_SECONDS = 1.0
_STATIC = {"label.js": "text/javascript", "label.css": "text/css"}
_LONGEST = 1e9  # seconds that an answer takes
_HOW = ("key", "grid", "review", "skip", "not")


def make_app(session: Session, token: str) -> Starlette:
    """Make the application; every path begins with the token.

    Args:
        session: what it shows.
        token: a secret, safe in a URL.
    """
    page = render_page("label.html", f"Label {shown(session.pool.root.name)}", room="tapetum.labelling")
    routes = [
        Route("/", lambda request: HTMLResponse(page)),
        *(Route(f"/{name}", _static(name, kind)) for name, kind in _STATIC.items()),
        Route("/image/{image}", _image(session)),
        *(Route(f"/{name}", _told(call)) for name, call in _questions(session).items()),
        *(Route(f"/{name}", _posted(call), methods=["POST"]) for name, call in _requests(session).items()),
    ]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        middleware=[Middleware(Guard, token=token)],
        lifespan=_ticking(session),
    )


def serve(session: Session, port: int = 0, tell: Callable[[str], object] = print) -> None:
    """Show the page until Ctrl-C.

    Args:
        session: what it shows.
        port: the port; 0 takes a free one.
        tell: called with the page's address once it can be opened.

    Raises:
        ValueError: the port is taken.
    """
    token = secrets.token_urlsafe(24)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, port))
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"port {port} cannot be used ({error}): choose another, or none for a free one."
            ) from error
        listening.listen()
        tell(f"http://{ADDRESS}:{listening.getsockname()[1]}/{token}/")
        config = uvicorn.Config(make_app(session, token), log_level="warning", access_log=False, ws="none")
        uvicorn.Server(config).run(sockets=[listening])


def _questions(session: Session) -> dict[str, Callable[[Request], Any]]:
    def part(request: Request) -> tuple[int, int]:
        start, count = (request.query_params.get(key, usual) for key, usual in (("start", "0"), ("count", "50")))
        return max(0, _whole(start)), max(0, _whole(count))

    return {
        "state": lambda request: session.state(),
        "listing": lambda request: session.listing(request.query_params.get("show", "all"), *part(request)),
        "groups": lambda request: session.groups(),
        "group": lambda request: session.group(request.query_params.get("name", ""), part(request)[1]),
        "review": lambda request: session.review(request.query_params.get("what", "doubt"), *part(request)),
    }


def _requests(session: Session) -> dict[str, Callable[[dict[str, Any]], Any]]:
    def answer(data: dict[str, Any]) -> Any:
        how, seconds = str(data.get("how")), data.get("seconds")
        if how not in _HOW or not (seconds is None or (isinstance(seconds, int | float) and abs(seconds) < _LONGEST)):
            raise ValueError(f"an answer given by {how!r} is unknown: load the page again.")
        given = {_image_number(session, image): _answer(label) for image, label in data["answers"]}
        group = data.get("group")
        session.answer(given, how, str(data.get("tab")), seconds, None if group is None else str(group))
        return session.state()

    def undo(data: dict[str, Any]) -> Any:
        operation = session.answers.undo(str(data.get("tab")))
        images = [] if operation is None else [session.item(change.image) for change in operation.changes]
        return {"undone": operation is not None, "images": images, "state": session.state()}

    def train(data: dict[str, Any]) -> Any:
        session.training.start(str(data.get("unit")), float(data["length"]))
        return session.state()

    def choose(data: dict[str, Any]) -> Any:
        session.training.choose(float(data["minutes"]))
        return session.state()

    def stop(data: dict[str, Any]) -> Any:
        session.training.stop()
        return session.state()

    def resume(data: dict[str, Any]) -> Any:
        session.training.resume()
        return session.state()

    def following(data: dict[str, Any]) -> Any:
        return session.next(str(data.get("tab")), max(1, int(data.get("count", 1))))

    answering = {"next": following, "answer": answer, "undo": undo}
    return answering | {"choose": choose, "train": train, "stop": stop, "resume": resume}


def _image_number(session: Session, image: Any) -> int:
    if type(image) is not int or not 0 <= image < len(session.pool.names):
        raise ValueError(f"there is no image {image}: load the page again.")
    return image


def _answer(label: Any) -> str | None:
    if not isinstance(label, str | None):
        raise ValueError(f"{label!r} is no class: load the page again.")
    return label


def _whole(text: str) -> int:
    try:
        return int(text[:20])
    except ValueError:
        raise ValueError(f"{text[:20]!r} is no whole number: load the page again.") from None


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")  # in ASCII


def _fault(error: Exception) -> Response:
    text = str(error) if isinstance(error, ValueError) else f"the request is incomplete ({error}): load the page again."
    return _json({"error": " ".join(text.split())}, 409)


def _told(call: Callable[[Request], Any]) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:  # a plain function, so it runs in a thread
        try:
            return _json(call(request))
        except ValueError as error:
            return _fault(error)

    return endpoint


def _posted(call: Callable[[dict[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            data = json.loads(await request.body())
            if not isinstance(data, dict):
                raise TypeError("no object")
            return _json(await run_in_threadpool(call, data))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            return _fault(error)

    return endpoint


def _image(session: Session) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        try:
            image = _image_number(session, _whole(request.path_params["image"]))
            side = _whole(request.query_params.get("side", str(SIDES[0])))
            if side not in SIDES:
                raise ValueError(f"side is {side}: choose one of {', '.join(map(str, SIDES))}.")
            content, kind = session.pictures.get(image, side)
        except ValueError as error:
            return _fault(error)
        # The token is new at each start, so a kept picture is never taken for another.
        return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    return endpoint


def _static(name: str, kind: str) -> Callable[[Request], Response]:
    content = (Path(str(files("tapetum.labelling"))) / "static" / name).read_text(encoding="utf-8")
    return lambda request: Response(content, media_type=kind)


def _ticking(session: Session) -> Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]]:
    """Look after runs as long as the server runs, whether a page is open or not."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_EVERY_SECONDS):
                session.tick()

        thread = threading.Thread(target=watch, name="runs", daemon=True)
        thread.start()
        yield
        ended.set()

    return lifespan
