"""As much of a W&B server as a run needs: what its client sends is kept as a real one keeps it."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer(ThreadingHTTPServer):
    """Keeps the history of each run by its lines' numbers, as the client gives them; with `down` it refuses all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.exits: dict[str, list[int]] = {}
        self.config: dict[str, Any] = {}
        self.down = False
        self.asked: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def rows(self, run: str) -> list[dict[str, Any]]:
        """The history in its order."""
        return [row for _, row in sorted(self.history.get(run, {}).items())]

    def run(self, name: str) -> dict[str, Any]:
        """As the resumed client asks for it."""
        rows = self.rows(name)
        last = {key: value for row in rows for key, value in row.items()}
        return {
            **_bucket(name, self.config.get(name, "{}")),
            "logLineCount": 0,
            "historyLineCount": len(rows),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
            "eventsTail": "[]",
            "summaryMetrics": json.dumps(last),
            "wandbConfig": '{"t": 1}',
            "tags": [],
        }


def _bucket(name: str, config: str) -> dict[str, Any]:
    project = {"name": "reasonloop", "entity": {"name": "me"}}
    told = {"id": name, "name": name, "displayName": name, "description": "", "config": config, "sweepName": None}
    return told | {"project": project, "historyLineCount": 0, "notes": ""}


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.server.down:
            self.send_error(503)
            return
        with self.server.lock:
            if self.path == "/graphql":
                self._answer(self._graphql(json.loads(body)))
            elif self.path.endswith("/file_stream"):
                self._answer(self._stream(json.loads(body)))
            else:  # its own telemetry
                self._answer({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer({})

    def _answer(self, found: Any) -> None:
        data = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, sent: dict[str, Any]) -> dict[str, Any]:
        name = self.path.split("/")[-2]
        lines = self.server.history.setdefault(name, {})
        told = sent.get("files", {}).get("wandb-history.jsonl", {})
        for number, text in enumerate(told.get("content", ()), told.get("offset", 0)):
            lines[number] = json.loads(text)
        if sent.get("complete"):
            self.server.exits.setdefault(name, []).append(sent["exitcode"])
        return {}

    def _graphql(self, sent: dict[str, Any]) -> dict[str, Any]:
        query, given = sent["query"], sent.get("variables") or {}
        self.server.asked.append(query.split("(")[0].strip()[:80])
        name = given.get("name") or given.get("run") or given.get("runName") or ""
        if "upsertBucket(" in query and "deleteBucket" not in query:
            self.server.config[name] = given.get("config") or self.server.config.get(name, "{}")
            new = name not in self.server.history
            self.server.history.setdefault(name, {})
            return {"data": {"upsertBucket": {"bucket": _bucket(name, self.server.config[name]), "inserted": new}}}
        if "RunResumeStatus" in query:
            known = name in self.server.history
            found = {"id": "p", "name": "reasonloop", "entity": {"id": "e", "name": "me"}}
            return {"data": {"model": found | {"bucket": self.server.run(name) if known else None}}}
        if "createRunFiles" in query:
            files = [{"name": one, "uploadUrl": f"{self.server.url}/upload"} for one in given.get("files", ())]
            return {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}}
        viewer = {"id": "v", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"data": {"viewer": viewer, "serverInfo": None}}
