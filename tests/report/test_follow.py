"""`report --follow`: fresh, for this machine only, and without a trace in the run folder."""

from __future__ import annotations

import fcntl
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.report.follow import ADDRESS, Followed, serve

STEP = {"stage": "explore", "branch": "main", "iteration": 0, "rollouts": 256, "reward": 0.25}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text('method = "rl"\n')
    (tmp_path / "state.json").write_text('{"stage": "main-explore-0"}')
    add_step(tmp_path, 0)
    return tmp_path


@pytest.fixture
def port(run: Path) -> Iterator[int]:
    server = serve(Followed(run, min_seconds=0, share=1e9))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def add_step(run: Path, step: int) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**STEP, "step": step}) + "\n")


def ask(port: int, path: str = "/", method: str = "GET", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host is not None else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def version(port: int) -> str:
    return str(json.loads(ask(port, "/version")[1])["version"])


def test_the_page_knows_its_version_and_both_change_with_the_run(run: Path, port: int) -> None:
    status, page = ask(port)
    first = version(port)
    assert status == 200
    assert f'data-version="{first}"' in page
    assert "connect-src 'self'" in page
    assert version(port) == first
    add_step(run, 1)
    second = version(port)
    assert second != first
    assert f'data-version="{second}"' in ask(port)[1]
    assert json.loads(ask(port, "/version")[1])["done"] is False
    (run / "state.json").write_text('{"stage": "done"}')
    assert json.loads(ask(port, "/version")[1])["done"] is True


def test_only_get_and_only_two_paths(port: int) -> None:
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert ask(port, "/", method)[0] == 501
    for path in ("/config.toml", "/../config.toml", "/metrics.jsonl", "/favicon.ico"):
        assert ask(port, path)[0] == 404


def test_another_host_s_name_gets_nothing(port: int) -> None:
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        "",
        f"127.0.0.1:{port}.x",
    ):
        status, text = ask(port, "/version", host=host)
        assert status == 403
        assert "version" not in text
    assert ask(port, "/version", host=f"localhost:{port}")[0] == 200
    with socket.create_connection((ADDRESS, port), timeout=20) as raw:
        raw.sendall(f"GET /version HTTP/1.1\r\nHost: {ADDRESS}:{port}\r\nHost: evil\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 403")


def test_it_listens_on_the_loopback_address_only(port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))  # taken, if the server listened on all addresses


def test_a_report_is_made_again_only_after_a_while(run: Path) -> None:
    followed = Followed(run, min_seconds=1000)
    page = followed.page()
    add_step(run, 1)
    followed.refresh()
    assert followed.page() is page


def test_it_leaves_the_run_and_its_lock_alone(run: Path, port: int) -> None:
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        assert ask(port)[0] == 200
        add_step(run, 1)
        version(port)
        after = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed == {"metrics.jsonl"}


def test_a_run_that_vanishes_leaves_the_last_report(run: Path, port: int) -> None:
    page = ask(port)[1]
    for path in run.iterdir():
        path.unlink()
    assert ask(port) == (200, page)


def test_the_command_prints_its_address_says_when_the_run_is_done_and_ends_with_0(run: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "reasonloop", "report", "--follow", str(run)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    port = int(line.split(":")[2].split("/")[0])
    assert ask(port)[0] == 200
    (run / "state.json").write_text('{"stage": "done"}')
    assert "the run is done" in process.stdout.readline()
    assert ask(port)[0] == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stdout.close()


def test_bad_ports_and_folders_are_bad_input(
    run: Path, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=f"--port {port}"):
        serve(Followed(run), port)
    for argv in (
        [str(run), "--follow", "--port", "70000"],
        [str(run / "nowhere"), "--follow"],
        [str(run), "--follow", "--out", str(tmp_path / "x.html")],
    ):
        assert main(["report", *argv]) == 2
        assert capsys.readouterr().err.count("\n") == 1
