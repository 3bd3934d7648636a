"""`reasonloop report --follow`: the report on a loopback address, kept fresh while the run goes on.

It only ever reads the run folder: no lock, no file of its own in it.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError
from reasonloop.report.page import render
from reasonloop.report.run import read_run
from reasonloop.report.shell import encoded

ADDRESS = "127.0.0.1"
# A report is made at most so often, and never takes more than this share of the time: the run needs the processor.
MIN_SECONDS = 5.0
SHARE = 0.1


class Followed:
    """The newest report of a run and its version; made anew when it is asked for and the run has changed."""

    def __init__(self, folder: Path, min_seconds: float = MIN_SECONDS, share: float = SHARE) -> None:
        self.folder, self.min_seconds, self.share = folder, min_seconds, share
        self._lock = threading.Lock()
        self._page = b""
        self._version = ""
        self._not_before = 0.0
        self.refresh()

    @property
    def done(self) -> bool:
        try:
            return bool(json.loads((self.folder / "state.json").read_text(encoding="utf-8"))["stage"] == "done")
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def refresh(self) -> None:
        """Makes the report anew if the run has changed since; InputError if the folder holds no run (any more)."""
        if not self._lock.acquire(blocking=False):
            return  # another reader is having it made
        try:
            now, stamp = time.monotonic(), _stamp(self.folder)
            version = hashlib.sha256(stamp.encode()).hexdigest()[:16]
            if version == self._version or now < self._not_before:
                return
            self._page = encoded(render(read_run(self.folder), version=version))
            self._version = version
            took = time.monotonic() - now
            self._not_before = now + took + max(self.min_seconds, took / self.share)
        finally:
            self._lock.release()

    def page(self) -> bytes:
        return self._page

    def state(self) -> dict[str, Any]:
        """What the version endpoint answers."""
        return {"version": self._version, "done": self.done}


def _stamp(folder: Path) -> str:
    """Changes whenever something that the report shows may have."""
    paths = [folder / "config.toml", folder / "state.json", folder / "metrics.jsonl", folder / "evals"]
    paths += sorted((folder / "evals").glob("*.json"))
    seen = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        seen.append(f"{path.name} {status.st_mtime_ns} {status.st_size}")
    return "\n".join(seen)


class _Handler(BaseHTTPRequestHandler):
    """GET / and GET /version, and nothing else."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        if not self._from_here():
            # A page of another site whose name was made to point at this machine (DNS rebinding) comes with that name.
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this host name is not served here\n")
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self.server.try_refresh()
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.followed.page())
        elif path == "/version":
            self.server.try_refresh()
            body = json.dumps(self.server.followed.state()).encode()
            self._answer(HTTPStatus.OK, "application/json", body)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"only the report is here: /\n")

    def _from_here(self) -> bool:
        port = self.server.server_address[1]
        return self.headers.get_all("Host", []) in ([f"{ADDRESS}:{port}"], [f"localhost:{port}"])

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A line a request would bury what the user needs to read."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, followed: Followed, port: int) -> None:
        self.followed = followed
        super().__init__((ADDRESS, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which can take seconds where no name server answers.
        super(ThreadingHTTPServer, self).server_bind()
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def try_refresh(self) -> None:
        """While the folder can't be read, the last report stays."""
        try:
            self.followed.refresh()
        except (InputError, OSError) as error:
            print(f"the report stays as it was: {error}", flush=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away in the middle of an answer is no news."""


def serve(followed: Followed, port: int = 0) -> _Server:
    """A bound server, not yet serving: `serve_forever`, `shutdown`, `server_close`. InputError for a port in use."""
    try:
        return _Server(followed, port)
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; expected a free port, or 0 to have one chosen") from None


def follow(folder: Path, port: int = 0) -> None:
    """Serves the report of the run in `folder` on 127.0.0.1 until Ctrl-C. InputError if it is no run, or for the port."""
    server = None
    # also where a shell has started us with SIGINT ignored
    before = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        followed = Followed(folder)
        server = serve(followed, port)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
        print(f"http://{ADDRESS}:{server.server_address[1]}/   (Ctrl-C ends)", flush=True)
        while not followed.done:
            time.sleep(1.0)
        print("the run is done; its report stays here until Ctrl-C", flush=True)
        while True:
            time.sleep(3600.0)
    except KeyboardInterrupt:
        print()
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()
        for number, handler in before.items():
            signal.signal(number, handler)
