"""The exploration section of a recipe: what is refused, and that no key gets into it."""

from __future__ import annotations

from typing import Any

import pytest

from reasonloop.config.exploration import Exploration
from reasonloop.config.section import validated
from reasonloop.errors import InputError

HTTP = {"base_url": "http://localhost:8000/v1", "model": "m"}
SECRET = "sk-do-not-show-1234567890"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.8, "form": "length"},
        {"alpha": 0.2, "form": "length", "clipped": False},
        {"alpha": 0.8, "alpha_end": 1.0, "form": "novelty"},
        {"alpha": 0.8, "form": "judge", "judge": HTTP},
        {"form": "length"},
        {"judge": {"base_url": "http://[::1]:8000/v1", "model": "m"}},
        {"judge": {"base_url": "https://host.example/a/@b/v1/", "model": "m"}},
        {"alpha": 1.0, "alpha_end": 0.8, "form": "difficulty_length"},
        {"alpha": 1.0, "alpha_end": [0.6, 0.8], "form": "length"},
    ],
)
def test_accepted(options: dict[str, Any]) -> None:
    validated(Exploration, options, "recipe.toml")


def test_the_papers_weight_unless_another_is_given() -> None:
    assert Exploration(form="length").alpha == 0.8
    assert Exploration(form="length", alpha=0.6).alpha == 0.6
    assert Exploration().alpha == 1.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"alpha": 0.5, "form": "length"}, "above 0.5"),
        ({"alpha": 0.8, "alpha_end": 0.4, "form": "length"}, "above 0.5"),
        ({"alpha": 0.8, "alpha_end": [0.4, 0.8], "form": "length"}, "above 0.5"),
        ({"alpha": 0.8, "alpha_end": [1.4, 0.8], "form": "length"}, "alpha_end"),
        ({"alpha": 0.8}, "form"),
        ({"form": "length", "alpha": 1}, "expected alpha below 1"),
        ({"alpha": 1.2, "form": "length"}, "alpha"),
        ({"alpha": float("nan"), "form": "length"}, "alpha"),
        ({"alpha": 0.8, "form": "novelty", "clipped": False}, "clipped"),
        ({"alpha": 0.8, "form": "judge"}, "judge.model"),
        ({"alpha": 0.8, "form": "judge", "judge": {"base_url": "http://x/v1"}}, "judge.model"),
        ({"length_scale": 0}, "length_scale"),
        ({"judge": {"api_key": "x"}}, "judge.api_key"),
        ({"judge": {"base_url": "localhost:8000"}}, "http(s)"),
        *(
            ({"judge": {"base_url": f"http://{rest}"}}, "http(s)")
            for rest in ("host:99999/v1", "host:0", ":80/v1", "[::1")
        ),
        *(({"judge": {"base_url": url}}, "http(s)") for url in ("ftp://host/v1", "http://a b/v1", "http://host/v 1")),
        ({"judge": {"prompt": "how good?"}}, "{response}"),
        ({"judge": {"request": {"stream": True}}}, "stream"),
    ],
)
def test_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as error:
        validated(Exploration, options, "recipe.toml")
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "judge",
    [
        {"api_key_env": SECRET},
        {"api_key_env": "hf_abcdefghijk"},
        {"base_url": f"https://user:{SECRET}@host/v1"},
        {"base_url": f"https://{SECRET}@host/v1"},
        {"base_url": f"https://host/v1?key={SECRET}"},
        {"base_url": SECRET},
        {"base_url": [f"https://{SECRET}@host/v1"]},
        {"base_url": f"https://host/{SECRET}/v1"},
        {"api_key_env": [SECRET]},
        {"model": SECRET},
        {"model": [SECRET]},
        {"prompt": SECRET},
        {"timeout_seconds": SECRET},
        {"request": SECRET},
        {SECRET: 1},
        *({"request": {name: 1}} for name in ("api_key", "apiKey", "X-Api-Key", "Authorization", "token", "password")),
        *({"request": {"extra": [{name: SECRET}]}} for name in ("headers", "user", "access_token", SECRET)),
        {"request": {"user": f"Bearer {SECRET}"}},
    ],
)
def test_a_key_in_the_recipe_is_refused_and_not_repeated(judge: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=r"judge\.(api_key_env|base_url|model|prompt|timeout|request)|unknown key"
    ) as error:
        validated(Exploration, {"form": "judge", "alpha": 0.8, "judge": HTTP | judge}, "recipe.toml")
    assert SECRET not in str(error.value)
    assert "hf_abc" not in str(error.value)


def test_fields_of_a_request_that_are_no_keys_are_let_through() -> None:
    fields = (
        "max_tokens",
        "stop_token_ids",
        "prompt_cache_key",
        "logit_bias",
        "user",
        "chat_template_kwargs",
        "tokenizer",
    )
    request = dict.fromkeys(fields, "d41d8cd98f00b204e9800998ecf8427e")
    assert validated(Exploration, {"judge": {**HTTP, "request": request}}, "recipe.toml").judge.request == request
