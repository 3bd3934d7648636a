"""What looks like a key: it is to be in the environment, and in no recipe, file or message."""

from __future__ import annotations

import re
from typing import Any

# names of fields that hold keys in some service's requests, and no others of an OpenAI-compatible one ("max_tokens", say)
_NAME = re.compile(
    r".*(api|access|auth|private|secret|subscription|master|virtual|x)key|key|token(id|secret)?|"
    r".*(access|auth|authentication|bearer|api|id|session|refresh|hf)token|"
    r".*(secret|passwords?|passwd|credentials?|authorization|authentication|bearer|cookies?|headers|jwt)|auth"
)
_VALUE = re.compile(
    r"(bearer|basic)\s+\S+|(sk|pk|rk|hf|gsk|xai|ghp|gho|github_pat|pplx|nvapi|r8|fw|tgp)[-_][\w.-]{8,}|AIza[\w-]{30,}|"
    r"ey[\w-]{10,}\.[\w-]{10,}\.[\w-]*",
    re.IGNORECASE,
)


def is_secret(text: str) -> bool:
    """Whether a text looks like the key of some service."""
    return _VALUE.fullmatch(text.strip()) is not None


def has_secret(text: str) -> bool:
    """Whether there is something in it that does."""
    return any(map(is_secret, re.split(r"""[\s'"/@?&=:,;\[\](){}]+""", text))) or is_secret(text)


def secret_in(value: Any, where: str = "") -> str:
    """The field of a request that looks like a key, by its name or by what it holds; empty where there is none."""
    if isinstance(value, dict):
        named = {key: f"{where}.{key}" if where else str(key) for key in value}
        for key, path in named.items():
            if is_secret(str(key)):
                return f"a field of {where or 'it'}"
            if _NAME.fullmatch(re.sub(r"[^a-z0-9]", "", str(key).lower())):
                return repr(path)
        return next((found for key, path in named.items() if (found := secret_in(value[key], path))), "")
    if isinstance(value, list | tuple):
        return next((found for one in value if (found := secret_in(one, where))), "")
    return f"what {where!r} holds" if isinstance(value, str) and is_secret(value) else ""
