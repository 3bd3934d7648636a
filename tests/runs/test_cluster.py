"""An address where no Ray cluster is: told at once, whatever is there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from reasonloop.errors import InputError
from reasonloop.runs import cluster
from reasonloop.runs.cluster import Cluster

SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def address_of(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def answering(listener: socket.socket, said: bytes) -> threading.Thread:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(said)
            connection.recv(64)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("said", "told"), [(b"SSH-2.0-x\r\n", "something else than Ray"), (None, "no answer within"), (SETTINGS, "")]
)
def test_who_listens_there(
    listener: socket.socket, said: bytes | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ANSWER", 0.2 if said is None else 10.0)
    address, thread = address_of(listener), None if said is None else answering(listener, said)
    if told:
        with pytest.raises(InputError, match=told):
            cluster._expect_answer(address, address)
    else:
        cluster._expect_answer(address, address)
    if thread is not None:
        thread.join()


def test_an_address_of_a_cluster_that_is_no_more(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", address_of(listener))
    listener.close()
    with pytest.raises(InputError) as error:
        Cluster("auto")
    assert "RAY_ADDRESS" in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("RAY_ADDRESS", "no address")
    with pytest.raises(InputError, match="no Ray cluster can be reached"):
        Cluster("auto")
