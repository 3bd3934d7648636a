"""The recipe's options for the exploration reward (RLSP, arXiv 2502.06773)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from reasonloop.config.secret import has_secret, is_secret, secret_in
from reasonloop.config.section import Section
from reasonloop.errors import InputError
from reasonloop.records import LONGEST_DEADLINE

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")  # capitals only, so that a key that is pasted here is refused
_ADDRESS = re.compile(r'https?://[\w\[][\w.:%\]-]*(/[!"$->@-~]*)?', re.ASCII | re.IGNORECASE)  # $ to ~ but for the ?


class Judge(Section):
    """The effort judge, which scores a response's reasoning, not its correctness: any OpenAI-compatible endpoint, a policy
    on this machine, or a rule. What can't be scored is counted, and goes without."""

    base_url: str = ""
    """Where the endpoint is, without `/chat/completions`: `http://localhost:8000/v1`. Empty: `model` judges here."""
    model: str = ""
    """The model's name at the endpoint. Without one, a policy as in `model.path`, whose score is the digit that it expects
    to give; or a rule as `module:function`, called with two texts, (problem, response), for a number from 0 to 1."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key; the key itself stands nowhere. Empty: no key is sent.
    Unset: OPENAI_API_KEY for api.openai.com, none for this machine; any other host needs a word."""
    timeout_seconds: float = Field(60.0, gt=0, le=LONGEST_DEADLINE)
    """Deadline of one attempt as a whole: to connect, send, wait, and read the last byte; or of a rule's call."""
    request: dict[str, Any] = Field(default_factory=lambda: {"temperature": 0})
    """Further fields of each request, sent as they are; `{}` for models that refuse a temperature. No keys: they would stand
    in the run's config.toml."""
    prompt: str = ""
    """What is asked in place of our own criteria, with {response} and, if wanted, {problem} in it. Empty: our own."""

    @property
    def kind(self) -> Literal["endpoint", "rule", "policy"]:
        """Who judges"""
        return "endpoint" if self.base_url else "rule" if _FUNCTION.fullmatch(self.model) else "policy"

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _a_name(cls, value: Any) -> Any:
        if value is not None and value != "" and not (isinstance(value, str) and _VARIABLE.fullmatch(value)):
            # not a ValueError: those are shown with the value, and this one may be a key
            raise InputError(
                "exploration.judge.api_key_env: what was got is no name of an environment variable in capitals (it is "
                'not shown here, it may be a key); expected a name such as OPENAI_API_KEY, or "" for no key'
            )
        return value

    @field_validator("base_url", mode="before")
    @classmethod
    def _an_address(cls, value: Any) -> str:
        try:
            fits = value == "" or bool(_ADDRESS.fullmatch(value) and urlsplit(value).port != 0)
        except (ValueError, TypeError):  # of its port, or its brackets; no text
            fits = False
        if not fits or has_secret(urlsplit(value).path):
            raise InputError(
                "exploration.judge.base_url: what was got is no address, or has a user, password, query, fragment or key in "
                "it (it is not shown here); expected http(s)://host[:port]/path, and the key in the variable that "
                "api_key_env names"
            )
        return str(value).rstrip("/")

    @field_validator("model")
    @classmethod
    def _no_key(cls, value: str) -> str:
        if is_secret(value):
            raise InputError(
                "exploration.judge.model: what was got looks like a key (it is not shown); expected a name"
            )
        return value

    @field_validator("request", mode="before")
    @classmethod
    def _no_own_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        taken = sorted({"messages", "model", "stream", "n"} & value.keys())
        if taken:
            raise ValueError(f"{taken[0]!r} is set by the judge itself; expected other fields of a request")
        if secret := secret_in(value):
            raise InputError(
                f"exploration.judge.request: {secret} looks like a key (it is not shown here); expected fields of a "
                "request, and the key in the environment variable that exploration.judge.api_key_env names"
            )
        return value

    @field_validator("prompt")
    @classmethod
    def _has_place(cls, value: str) -> str:
        if value and "{response}" not in value:
            raise ValueError("expected {response} in it, where the response is to stand")
        return value


Weight = Annotated[float, Field(ge=0, le=1)]


class Exploration(Section):
    """The exploration reward: R = alpha x outcome + (1 - alpha) x R_ex, with R_ex apart from correctness.

    Clipped forms lie in [-1, 0] (length) or [0, 1] (novelty, judge): with alpha > 0.5 every right response outscores
    every wrong one, before penalties such as `rl.overlong_buffer`. Effort tokens are those up to the first final
    answer that neither repeat the response itself nor copy the prompt, told by runs of 4 tokens.
    """

    alpha: float = Field(1.0, ge=0, le=1)
    """Weight of the outcome. Left out: 0.8 with a form (RLSP's), 1 without, which is outcome-only. Above 0.5 unless
    `clipped` is false."""
    alpha_end: Weight | tuple[Weight, ...] | None = None
    """The weight at the last RL step, to which it goes linearly over the exploration's rollouts. A list: the weights that it
    goes through, at equal distances (RLSP's "tune and decay"). Unset: alpha."""
    form: Literal["none", "length", "difficulty_length", "novelty", "judge"] = "none"
    """length: -length_scale / effort tokens (RLSP). difficulty_length: the same times (1 - success rate), so that length
    pays on hard problems only. novelty: 1 - mean n-gram similarity to the group's other responses. judge: a score from
    `[exploration.judge]`."""
    clipped: bool = True
    """Clip the length forms to [-1, 0]. False is the paper's unbounded form over all tokens of the response: a short right
    response can then score far below a long wrong one, and loops, copies and words behind the answer pay."""
    length_scale: float = Field(1000.0, gt=0)
    """C of the length forms, in tokens. Clipped, responses with fewer effort tokens than this all score -1: set it below
    your task's usual length."""
    judge: Judge = Judge()

    @model_validator(mode="before")
    @classmethod
    def _alpha_of_the_paper(cls, data: Any) -> Any:
        if isinstance(data, dict) and "alpha" not in data and data.get("form", "none") != "none":
            return {**data, "alpha": 0.8}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lowest = min(self.alphas)
        if self.form == "none":
            if lowest < 1:
                raise ValueError(f"form = 'none' with alpha or alpha_end = {lowest}: expected a form, or 1")
            return self
        if lowest == 1:
            raise ValueError(f"form = {self.form!r} with alpha = 1 has no weight: expected alpha below 1 (RLSP: 0.8)")
        if not self.clipped and self.form != "length":
            raise ValueError(f"clipped = false is for form = 'length', got form = {self.form!r}")
        if self.clipped and lowest <= 0.5:
            raise ValueError(
                f"alpha or alpha_end = {lowest}: expected above 0.5, so that right responses outscore wrong ones"
            )
        if self.form == "judge" and not self.judge.model:
            raise ValueError(
                "form = 'judge' needs judge.model: a model at judge.base_url, a policy here, or a rule as module:function"
            )
        return self

    @property
    def alphas(self) -> tuple[float, ...]:
        """The outcome's weights that the rollouts go through, at equal distances."""
        end = self.alpha_end
        return (self.alpha, *(end if isinstance(end, tuple) else () if end is None else (end,)))
