"""How transformers is asked for a model: for what lies here, with no code of anybody's, and no words."""

from __future__ import annotations

from typing import Any


def alone(trust_remote_code: bool = False) -> dict[str, Any]:
    """It looks nowhere else, and nobody is asked whether a model's own code may run."""
    return {"local_files_only": True, "trust_remote_code": trust_remote_code}


def quiet() -> None:
    """transformers' loading bars and advice are noise between our own progress lines. Nor does it ask anybody anything."""
    from transformers import dynamic_module_utils
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
