"""A web server of a folder, with faults on request."""

from __future__ import annotations

import socket
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = str
"""One of: "503"; "cut", a body that ends early; "reset", a connection that is reset; "" for none."""


class Web:
    """What the server does next.

    Attributes:
        address: of the folder, http://127.0.0.1:PORT.
        asked: (path, range) of every request for a file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, ""
        self.asked: list[tuple[str, str]] = []
        self.fault: Callable[[str], Fault] = lambda path: ""

    def fail(self, times: int, fault: Fault) -> None:
        """Answer that many requests for files with a fault, and the others well."""
        left = [fault] * times
        self.fault = lambda path: left.pop() if left else ""


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.web.folder / urllib.parse.unquote(self.path).strip("/")
        if path.is_dir():
            links = "".join(f'<a href="{urllib.parse.quote(p.name)}{"/" * p.is_dir()}">x</a>' for p in path.iterdir())
            self._send(200, links.encode(), {"Content-Type": "text/html"}, with_body)
            return
        if not path.is_file():
            self._send(404, b"", {}, with_body)
            return
        content, wanted = path.read_bytes(), self.headers.get("Range", "")
        headers = {"ETag": f'"{path.stat().st_mtime_ns}"', "Accept-Ranges": "bytes"}
        if not with_body:
            self._send(200, content, headers, with_body)
            return
        self.web.asked.append((self.path, wanted))
        fault = self.web.fault(self.path)
        status = 200
        if wanted:
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            last = min(int(stop), len(content) - 1) if stop else len(content) - 1
            headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
            content, status = content[int(start) : last + 1], 206
        if fault == "503":
            self._send(503, b"", {}, True)
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        else:
            self._send(status, content, headers, True, cut=fault == "cut")

    def _send(self, status: int, content: bytes, headers: dict[str, str], with_body: bool, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut


@contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """Serve a folder from a thread."""
    web = Web(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": web}))
    server.daemon_threads = True
    web.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
