"""Asks the model hub what it knows of a model: only when the caller wants it, and only the name
is sent."""

from __future__ import annotations

import os
from typing import Any

TIMEOUT_SECONDS = 5.0
_FACTS = ["config", "library_name", "pipeline_tag", "tags"]
_TRUE = {"1", "ON", "YES", "TRUE"}


def hub_metadata(name: str) -> dict[str, Any]:
    """Return the hub's config, library_name, pipeline_tag and tags of a model.

    To be passed to ``classify_model(…, hub=hub_metadata)``. One request of at most five seconds
    through huggingface_hub, with its endpoint and token. Never raises: what went wrong is in
    "error", and nothing is sent under HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE.
    """
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in _TRUE:
            return {"error": f"the hub is not asked: {variable} is set"}
    try:
        from huggingface_hub import HfApi

        # The expanded fields come without the list of files, which can be megabytes.
        info = HfApi().model_info(name, expand=_FACTS, timeout=TIMEOUT_SECONDS)
    except Exception as error:
        # Anything that a network, a proxy or a server can do: the other evidence stands.
        reason = str(error).strip().partition("\n")[0]
        return {"error": f"the hub gave no answer: {type(error).__name__}: {reason[:200]}"}
    return {fact: getattr(info, fact, None) for fact in _FACTS}
