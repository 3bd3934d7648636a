"""The effort judge: an OpenAI-compatible endpoint that scores reasoning from 0 to 1 and ignores whether it is right.

A score that didn't come is None, and counted by the kind of its failure; none is made up. The key is read from the
environment, sent in the one header, and kept out of every text that leaves this file. Standard library only; proxy
variables are not read, redirects not followed.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from reasonloop.config.exploration import Judge
from reasonloop.errors import InputError
from reasonloop.rewards.judge_prompt import ROLE, judge_prompt

MAX_WAIT_SECONDS = 60.0  # between attempts, whatever the server asks for
MAX_REPLY_BYTES = 1 << 18
_CONNECT_SECONDS = 10.0

_REPLY = 'Reply with one JSON object and nothing else: {"score": s}, s a number from 0 to 1.'
_FENCED = re.compile(r"```(?:json)?\s*+(\{[^`]*\})\s*```")


class EndpointJudge:
    """Scores responses at the endpoint of `options`. Raises InputError if the key's variable is unset or unusable."""

    def __init__(self, options: Judge, seed: int = 0) -> None:
        self._options, self._seed = options, seed
        self._key = read_key(options)
        self._url = urlsplit(options.base_url)
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None

    def scores(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[float | None], Counter[str]]:
        """A score in [0, 1] or None for each (problem, response), in their order, and how many failed, by kind.

        Kinds: "timeout", "connection", "certificate", "http_STATUS", "nonsense" (a reply that isn't one score), "given_up":
        after max(8, 2 x concurrency) requests that failed on end, the rest of the call isn't tried, so that an endpoint
        that is down costs minutes and not the run.
        """
        call = _Call(max(8, 2 * self._options.concurrency))
        with ThreadPoolExecutor(self._options.concurrency, "judge") as pool:
            try:
                results = list(pool.map(lambda index: self._score(index, pairs[index], call), range(len(pairs))))
            except BaseException:
                call.over.set()  # nobody waits for the others any more
                raise
        failures = Counter(result for result in results if isinstance(result, str))
        return [None if isinstance(result, str) else result for result in results], failures

    def _score(self, index: int, pair: tuple[str, str], call: _Call) -> float | str:
        """The score, or the kind of the failure."""
        body = request_body(self._options, *pair)
        rng = random.Random(f"judge {self._seed} {index}")  # of its own, so that no thread's luck depends on another's
        for attempt in range(self._options.retries + 1):
            if call.over.is_set():
                return "given_up"
            try:
                score = self._attempt(body)
            except _Failure as failure:
                if not failure.retry or attempt == self._options.retries:
                    call.note(answered=failure.kind == "nonsense")
                    return failure.kind
                doubled = self._options.backoff_seconds * 2.0 ** min(attempt, 30)
                wait = max(doubled * rng.uniform(0.5, 1.0), failure.wait)
                call.over.wait(min(wait, MAX_WAIT_SECONDS))
            else:
                call.note(answered=True)
                return score
        raise AssertionError("unreachable: the last attempt returns")

    def _attempt(self, body: bytes) -> float:
        try:
            status, retry_after, reply = self._post(body, time.monotonic() + self._options.timeout_seconds)
        except TimeoutError:
            raise _Failure("timeout", retry=True) from None
        except ssl.SSLCertVerificationError:
            raise _Failure("certificate") from None
        except (OSError, http.client.HTTPException, ValueError):  # ValueError: headers that can't be parsed
            raise _Failure("connection", retry=True) from None
        if status != 200:
            again = status in (408, 429) or status >= 500
            raise _Failure(f"http_{status}", retry=again, wait=retry_after_seconds(retry_after))
        score = parse_score(reply)
        if score is None:
            raise _Failure("nonsense")
        return score

    def _post(self, body: bytes, until: float) -> tuple[int, str | None, bytes]:
        """Status, Retry-After and at most MAX_REPLY_BYTES + 1 bytes of the body; `until` is a monotonic time."""
        host = self._url.hostname or ""
        kind = http.client.HTTPConnection if self._tls is None else http.client.HTTPSConnection
        connection = kind(host, self._url.port)
        with _connect(host, connection.port, self._tls, until) as sock:
            bounded: Any = _BoundedSocket(sock, until)
            connection.sock = bounded
            connection.putrequest("POST", self._url.path + "/chat/completions")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Accept", "application/json")
            connection.putheader("Connection", "close")
            if self._key.value:
                connection.putheader("Authorization", f"Bearer {self._key.value}")
            connection.endheaders(body)
            with connection.getresponse() as response:
                reply = response.read(MAX_REPLY_BYTES + 1)
                if response.length and len(reply) <= MAX_REPLY_BYTES:
                    raise http.client.IncompleteRead(b"")  # read(n) itself says nothing of a body that was cut off
                return response.status, response.headers.get("Retry-After"), reply


class Key:
    """A secret that doesn't show itself."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Key(not shown)"

    def __reduce__(self) -> Any:
        raise TypeError("a key is not written anywhere")


def read_key(options: Judge) -> Key:
    """The key in the environment, empty where none is wanted. Raises InputError naming the variable, never the value."""
    name = options.api_key_env
    if not name:
        return Key("")
    value = os.environ.get(name, "").strip()
    if not value:
        raise InputError(
            f"exploration.judge.api_key_env = {name!r}: this environment variable is not set; expected the endpoint's "
            'key in it, or api_key_env = "" for an endpoint without one'
        )
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise InputError(
            f"exploration.judge.api_key_env = {name!r}: the value of this environment variable (not shown) has spaces, "
            "line breaks or non-ASCII characters in it; expected a key"
        )
    return Key(value)


def request_body(options: Judge, problem: str, response: str) -> bytes:
    """The request for one response, as JSON."""
    asked = judge_prompt(options, problem, response, "from 0 to 1")
    messages = [{"role": "system", "content": f"{ROLE} {_REPLY}"}, {"role": "user", "content": asked}]
    return json.dumps({**options.request, "model": options.model, "messages": messages}).encode()


def parse_score(reply: bytes) -> float | None:
    """The score in a chat completion, or None unless its message is one {"score": number in [0, 1]} and nothing else.

    A Markdown fence around the object is let through; text around it is not, since it may quote the response's own.
    """
    if len(reply) > MAX_REPLY_BYTES:
        return None
    try:
        content = json.loads(reply.decode("utf-8"))["choices"][0]["message"]["content"].strip()
        fenced = _FENCED.fullmatch(content)
        found = json.loads(fenced.group(1) if fenced else content, object_pairs_hook=_without_duplicates)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != {"score"}:
        return None
    score = found["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:  # NaN is not in [0, 1]
        return None
    return float(score)


def retry_after_seconds(header: str | None) -> float:
    """Seconds that a Retry-After header asks for (a number or a date), 0 if it says nothing that can be read."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


class _Failure(Exception):
    """Why an attempt has no score. Holds no text of the server's, which may quote the key."""

    def __init__(self, kind: str, retry: bool = False, wait: float = 0.0) -> None:
        super().__init__(kind)
        self.kind, self.retry, self.wait = kind, retry, wait


class _Call:
    """What the threads of one call share: when to give up."""

    def __init__(self, limit: int) -> None:
        self.over = threading.Event()
        self._limit, self._failed, self._lock = limit, 0, threading.Lock()

    def note(self, answered: bool) -> None:
        with self._lock:
            self._failed = 0 if answered else self._failed + 1
            if self._failed >= self._limit:
                self.over.set()


class _BoundedSocket:
    """The part of a socket that http.client uses, with one deadline for everything: a server that drips a byte a second
    would never run into a limit on single reads."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._until))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self._sock, self._until))

    def close(self) -> None:
        """Nothing: http.client closes its socket before it reads the body, and whoever connected closes this one."""


class _BoundedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._until))
        return self._sock.recv_into(buffer)


def _connect(host: str, port: int, tls: ssl.SSLContext | None, until: float) -> socket.socket:
    """A connection to the first of the host's addresses that takes one."""
    last: OSError = OSError("the host has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(min(_CONNECT_SECONDS, _left(until)))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(_left(until))
            return sock if tls is None else tls.wrap_socket(sock, server_hostname=host)
        except OSError as error:
            sock.close()
            last = error
    raise last


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice in one object")
    return found
