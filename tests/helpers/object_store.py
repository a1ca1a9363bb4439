"""An object store that runs here: moto's server, and before it a proxy with faults."""

from __future__ import annotations

import http.client
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MISSING = [name for name in ("moto", "flask", "s3fs") if importlib.util.find_spec(name) is None]
"""Packages without which there is no object store here."""


class Store:
    """The store.

    Attributes:
        environment: variables by which s3fs finds it.
        fault: number of a request for an object, from 1 -> "503", "cut", "slow" or "".
    """

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.fault: Callable[[int], str] = lambda number: ""
        self.requests = 0
        self.behind = 0


class _Proxy(BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        is_object = self.command == "GET" and "?" not in self.path and self.path.count("/") > 1
        fault = ""
        if is_object:
            self.store.requests += 1
            fault = self.store.fault(self.store.requests)
        if fault == "503":
            self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>", b"")
            return
        if fault == "slow":
            time.sleep(0.5)
        back = http.client.HTTPConnection("127.0.0.1", self.store.behind, timeout=60)
        back.request(self.command, self.path, body, dict(self.headers))
        answer = back.getresponse()
        content = answer.read()
        headers = {n: v for n, v in answer.getheaders() if n.lower() not in ("content-length", "transfer-encoding")}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length", "0")
            self._answer(answer.status, headers, b"", b"", with_length=False)
        elif fault == "cut":
            self._answer(answer.status, headers, content, content[: len(content) // 2])
            self.close_connection = True
        else:
            self._answer(answer.status, headers, content, content)
        back.close()

    def _answer(
        self, status: int, headers: dict[str, str], whole: bytes, sent: bytes, with_length: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if with_length:
            self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(sent if status != 503 else whole)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on


@contextmanager
def running() -> Iterator[Store]:
    """Start the store and its proxy; nothing needs a network."""
    store = Store()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store.behind = free.getsockname()[1]
    moto = [sys.executable, "-m", "moto.server", "-p", str(store.behind)]
    server = subprocess.Popen(moto, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Proxy", (_Proxy,), {"store": store}))
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    store.environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "key-of-a-test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", store.behind)) == 0:
                    break
            assert time.monotonic() < deadline, "moto's server does not start"
            time.sleep(0.1)
        yield store
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.terminate()
        server.wait()


def put(store: Store, folder: str, target: str) -> None:
    """Copy a folder into the store, with a bucket if there is none."""
    import fsspec

    before = {name: os.environ.get(name) for name in store.environment}
    os.environ.update(store.environment)
    try:
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir(target.split("/")[0])
        files.put(folder, target, recursive=True)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
