"""A Hugging Face hub on this machine, small and made up: model information and files, for the real client."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

from reasonloop.policy import hub as client


@dataclass
class Repository:
    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    """By commit: files by name"""
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def put(self, folder: Path, branch: str = "main", **more: bytes) -> str:
        """The folder's files as the branch's newest commit, which is returned."""
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())} | more
        digest = hashlib.sha1(b"".join(name.encode() + content for name, content in sorted(files.items())))
        self.commits[digest.hexdigest()] = files
        self.branches[branch] = digest.hexdigest()
        return digest.hexdigest()


@dataclass
class Hub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(method, path) of each request"""
    breaks: list[int] = field(default_factory=list)
    """For each of the next downloads of weights: bytes after which the connection breaks"""
    address: str = ""

    def files(self) -> list[str]:
        """Those that were downloaded, in their order."""
        return [path.rpartition("/")[2] for method, path in self.asked if method == "GET" and "/resolve/" in path]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            hub.asked.append((self.command, "/".join(parts)))
            if parts[:2] == ["api", "models"]:
                name, revision = "/".join(parts[2:4]), "/".join(parts[5:]) or "main"
            elif parts[2:3] == ["resolve"]:
                name, revision = "/".join(parts[:2]), parts[3]
            else:
                return self._send(404, b"")
            repository = hub.repositories.get(name)
            if repository is None:
                return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
            commit = repository.branches.get(revision, revision)
            if commit not in repository.commits:
                return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            files = repository.commits[commit]
            if parts[0] == "api":
                siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
                return self._send(200, json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())
            if repository.gated and "Authorization" not in self.headers:
                return self._send(401, b"", {"X-Error-Code": "GatedRepo", "X-Repo-Commit": commit})
            file = "/".join(parts[4:])
            if file not in files:
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            content = files[file]
            about = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-").split("-")[0])
            if start:
                about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            broken = self.command == "GET" and file.endswith(".safetensors") and hub.breaks
            return self._send(206 if start else 200, content[start:], about, cut=hub.breaks.pop(0) if broken else None)

        def _send(self, code: int, body: bytes, headers: Mapping[str, str] = {}, cut: int | None = None) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:cut])
            if cut is not None:
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True

    return Handler


@contextmanager
def served() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The client asks this hub, with an empty cache in `here`, which becomes the working directory."""
    constants = huggingface_hub.constants
    with served() as hub:
        address = hub.address
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.chdir(here)
        again()
        try:
            yield hub
        finally:
            again()


def again() -> None:
    """As in a process of its own: nothing is known of what was asked."""
    client._HELD.clear()
    client._fetched.cache_clear()
    client._located.cache_clear()
