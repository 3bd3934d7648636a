"""The effort judge: an OpenAI-compatible endpoint that scores reasoning from 0 to 1 and ignores whether it is right.

Where a score didn't come stands the kind of the failure; none is made up. The key is read from the
environment for each call, sent in the one header, and kept out of every text that leaves this file. Proxy variables are
not read, redirects not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import random
import re
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from reasonloop.config.exploration import Judge
from reasonloop.errors import InputError
from reasonloop.rewards.judge_prompt import ROLE, judge_prompt

OPENAI, OPENAI_KEY = "api.openai.com", "OPENAI_API_KEY"
"""The one endpoint whose key needs no word, and the variable that holds it"""
MAX_WAIT_SECONDS = 60.0
"""Between attempts, whatever the server asks for"""
MAX_REPLY_BYTES = 1 << 18
_CONNECT_SECONDS = 10.0

_REPLY = 'Reply with one JSON object and nothing else: {"score": s}, s a number from 0 to 1.'
_NUMBER = r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?"  # of JSON
_SCORE = re.compile(rf'(```(?:json)?\s*)?\{{\s*"score"\s*:\s*({_NUMBER})\s*\}}(?(1)\s*```)', re.ASCII)

for _library in ("httpx", "httpcore"):  # below a warning they log what the server said, which may quote the key
    logging.getLogger(_library).setLevel(logging.WARNING)


@dataclass
class EndpointJudge:
    """Scores responses at the endpoint of `options`. Raises InputError if the key's variable is unset or unusable."""

    options: Judge
    seed: int = 0
    """Of the jitter"""
    concurrency: int = 16
    """Requests in flight at once"""
    retries: int = 3
    """Further attempts after a timeout, a lost connection, or status 408, 429 or 5xx"""
    backoff_seconds: float = 1.0
    """Wait before the first retry; it doubles with each one, with jitter. A longer Retry-After is kept."""

    def __post_init__(self) -> None:
        read_key(self.options)
        self._failed_on_end = 0

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float | str]:
        """A score in [0, 1], or the kind of the failure, for each (problem, response), in their order.

        Kinds: "timeout", "connection", "certificate", "http_STATUS", "nonsense" (a reply that isn't one score), "given_up":
        while the last max(8, 2 x concurrency) requests have failed on end, the rest of the call isn't tried, so that an
        endpoint that is down costs minutes and not the run.
        """
        return asyncio.run(self._scores(pairs))

    async def _scores(self, pairs: Sequence[tuple[str, str]]) -> list[float | str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if key := read_key(self.options):
            headers["Authorization"] = f"Bearer {key}"
        self._failed_on_end = 0
        turns = asyncio.Semaphore(self.concurrency)
        async with httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),  # the attempt as a whole has a deadline
            verify=ssl.create_default_context(),  # this machine's certificates
            trust_env=False,
            follow_redirects=False,
        ) as client:
            return await asyncio.gather(*(self._score(client, turns, i, pair) for i, pair in enumerate(pairs)))

    async def _score(
        self, client: httpx.AsyncClient, turns: asyncio.Semaphore, index: int, pair: tuple[str, str]
    ) -> float | str:
        rng = random.Random(f"judge {self.seed} {index}")  # of its own, so that nobody's luck depends on another's
        async with turns:
            body = request_body(self.options, *pair)
            for attempt in range(self.retries + 1):
                if self._failed_on_end >= max(8, 2 * self.concurrency):
                    return "given_up"
                result, wait = await self._attempt(client, body)
                if wait is None or attempt == self.retries:
                    break
                wait = max(wait, self.backoff_seconds * 2.0**attempt * rng.uniform(0.5, 1.0))
                await asyncio.sleep(min(wait, MAX_WAIT_SECONDS))
        self._failed_on_end = 0 if isinstance(result, float) or result == "nonsense" else self._failed_on_end + 1
        return result

    async def _attempt(self, client: httpx.AsyncClient, body: bytes) -> tuple[float | str, float | None]:
        """The score or the kind of the failure, and the least wait in seconds before another attempt, None for no more."""
        url, reply = f"{self.options.base_url}/chat/completions", bytearray()
        try:
            async with (
                asyncio.timeout(self.options.timeout_seconds),
                client.stream("POST", url, content=body) as answer,
            ):
                status = answer.status_code
                if status != 200:
                    again = status in (408, 429) or status >= 500
                    return f"http_{status}", retry_after_seconds(answer.headers.get("Retry-After")) if again else None
                async for chunk in answer.aiter_raw():  # as it comes: what is packed could unpack to anything
                    reply += chunk
                    if len(reply) > MAX_REPLY_BYTES:
                        return "nonsense", None
        except (TimeoutError, httpx.TimeoutException):
            return "timeout", 0.0
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return ("certificate", None) if "CERTIFICATE_VERIFY_FAILED" in str(error) else ("connection", 0.0)
        score = parse_score(reply)
        return "nonsense" if score is None else score, None


def read_key(options: Judge) -> str:
    """The key in the environment, empty where none is wanted. Raises InputError naming the variable, never the value: also
    where nobody has said that it is this endpoint's, and where it would go to another machine in the clear."""
    address = urlsplit(options.base_url)
    host, name = address.hostname or "", options.api_key_env
    if name is None:
        name = OPENAI_KEY if host == OPENAI else ""
        if host != OPENAI and not is_this_machine(host):
            raise InputError(
                f"exploration.judge.api_key_env is unset, and only {OPENAI} gets {OPENAI_KEY} unasked; expected the name of "
                f'the variable with the key of {host}, or "" for no key'
            )
    if name and address.scheme != "https" and not is_this_machine(host):
        raise InputError(
            f"exploration.judge.base_url: http to {host} would show the key to everybody on the way; expected https, or "
            'api_key_env = "" for an endpoint without a key'
        )
    value = os.environ.get(name, "").strip() if name else ""
    if name and not re.fullmatch(r"[\x21-\x7e]+", value):
        wrong = "has spaces, line breaks or non-ASCII characters in it (not shown)" if value else "is not set"
        raise InputError(
            f"exploration.judge.api_key_env = {name!r}: this environment variable {wrong}; expected the endpoint's key in "
            'it, or api_key_env = "" for an endpoint without one'
        )
    return value


def is_this_machine(host: str) -> bool:
    """Whether a host's name is the loopback's. An address in a form of which there are several readings is none."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def request_body(options: Judge, problem: str, response: str) -> bytes:
    """The request for one response, as JSON."""
    asked = judge_prompt(options, problem, response, "from 0 to 1")
    messages = [{"role": "system", "content": f"{ROLE} {_REPLY}"}, {"role": "user", "content": asked}]
    return json.dumps({**options.request, "model": options.model, "messages": messages}).encode()


def parse_score(reply: bytes | bytearray) -> float | None:
    """The score in a chat completion, or None unless its message is one {"score": number in [0, 1]} and nothing else.

    A Markdown fence around the object is let through; text around it is not, since it may quote the response's own.
    """
    try:
        found = _SCORE.fullmatch(json.loads(reply)["choices"][0]["message"]["content"].strip())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return score if found and 0 <= (score := float(found[2])) <= 1 else None


def retry_after_seconds(header: str | None) -> float:
    """Seconds that a Retry-After header asks for (a number or a date), 0 if it says nothing that can be read."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return 0.0
