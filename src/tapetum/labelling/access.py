"""Who may talk to the page: only a browser on this machine that was given the address with its token.

A page that listens on 127.0.0.1 can still be reached by every web page that the same browser shows, and under any name
that somebody points at 127.0.0.1. So each request must name this machine as its host and hold the token, and one that
comes from a page must come from this one.
"""

import hmac
import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_MOST_BYTES = 2**20
HEADERS = {
    # Nothing but what this server sends can be shown or run, and nothing can be sent elsewhere.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets a request through, or answers it with 403 and the reason.

    Args:
        app: the application.
        token: first part of every path.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        fault = fault_of(scope, self._token)
        app = self._app if fault is None else PlainTextResponse(f"Refused: {fault}.\n", 403)
        await app(scope, receive, send_guarded)


def fault_of(scope: Scope, token: str) -> str | None:
    """Say why a request is refused; None if it is not."""
    headers, parts = Headers(scope=scope), scope["path"].split("/")
    if parts[0] or len(parts) < 2:  # such as OPTIONS *
        return "the request names no path"
    host = headers.get("host", "")
    if len(headers.getlist("host")) != 1 or _without_port(host) not in _HOSTS:
        return "this page is only for this machine, under the address that was printed"
    if not hmac.compare_digest(parts[1].encode(errors="replace"), token.encode()):
        return "the address lacks the token that was printed when this page was started"
    raw: Any = scope.get("raw_path") or b""
    if any(part in (".", "..") for part in parts) or b"%2e" in raw.lower() or "\\" in scope["path"]:
        return "a path must not lead upwards"
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return "the request comes from another page"
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return "the request comes from another page"
    if scope["method"] not in ("GET", "HEAD") and origin is None:
        return "the request does not tell which page it comes from"
    length = headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,9}", length) or int(length) > _MOST_BYTES or "transfer-encoding" in headers:
        return "the request is too long"
    return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
