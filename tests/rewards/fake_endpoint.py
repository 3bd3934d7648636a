"""A local chat-completions server that behaves as a test wants it to."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Endpoint:
    """What the server saw, and how to reach it."""

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.requests: list[dict[str, Any]] = []
        """{"path", "headers", "body"}, in order of arrival"""
        self.closing = threading.Event()
        """Set when the server goes down: a behaviour that stalls waits for it"""


Behaviour = Callable[["Handler", int], None]
"""(handler, number of the request from 0) -> answers it"""


class Handler(BaseHTTPRequestHandler):
    endpoint: Endpoint
    behaviour: Behaviour
    lock: threading.Lock

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            number = len(self.endpoint.requests)
            self.endpoint.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
        with suppress(OSError):  # the client has hung up
            type(self).behaviour(self, number)
        self.close_connection = True

    def reply(self, body: bytes | str, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def say(self, content: object) -> None:
        """A chat completion whose message is `content`."""
        self.reply(completion(content))

    @property
    def asked(self) -> str:
        """The user message of the request."""
        return self.endpoint.requests[-1]["body"]["messages"][-1]["content"]

    def log_message(self, format: str, *args: object) -> None:
        pass


def completion(content: object) -> str:
    return json.dumps(
        {"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": content}}]}
    )


@contextmanager
def serving(behaviour: Behaviour, tls: tuple[str, str] | None = None) -> Iterator[Endpoint]:
    """`tls`: the paths of a certificate and its key."""
    handler = type("Own", (Handler,), {"behaviour": staticmethod(behaviour), "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    endpoint = handler.endpoint = Endpoint(server.server_address[1])  # type: ignore[attr-defined]
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        endpoint.base_url = endpoint.base_url.replace("http:", "https:")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
