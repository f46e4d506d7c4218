"""Asks the model hub what it knows of a model, only when the caller wants it."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

TIMEOUT_SECONDS = 5.0
# A hub that did not answer so often is not asked again: a list of names would take hours.
_MOST_TIMEOUTS = 2
_MOST_BYTES = 8 * 1024 * 1024
_FACTS = ("config", "library_name", "pipeline_tag", "tags")
_TRUE = {"1", "ON", "YES", "TRUE"}  # huggingface_hub's

_timeouts = 0


def hub_metadata(name: str) -> dict[str, Any]:
    """Return the hub's config, library_name, pipeline_tag and tags of a model.

    To be passed to ``classify_model(…, hub=hub_metadata)``. One request to huggingface_hub's
    endpoint, with the name and without the user's token, so that private models are not found;
    after five seconds it is given up. Never raises: what went wrong is in "error", and nothing
    is sent under HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE, or after two timeouts.
    """
    global _timeouts
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in _TRUE:
            return {"error": f"the hub is not asked: {variable} is set"}
    if _timeouts >= _MOST_TIMEOUTS:
        return {"error": f"the hub is not asked: it did not answer {_MOST_TIMEOUTS} times"}
    try:
        found = _asked(name)
    except Exception as error:
        # Anything that a network, a proxy or a server can do: the other evidence stands.
        _timeouts += "timed out" in str(error)  # the connection's own, a moment earlier
        reason = str(error).strip().partition("\n")[0]
        return {"error": f"the hub gave no answer: {type(error).__name__}: {reason[:200]}"}
    if found is None:
        _timeouts += 1
        return {"error": f"the hub gave no answer in {TIMEOUT_SECONDS:.0f} s"}
    return found


def _asked(name: str) -> dict[str, Any] | None:
    """Return the hub's answer; None at the deadline.

    A connection's own timeout is between two bytes, so that a slow server could hold it for
    ever: the thread that waits is left behind, and does not keep the process alive.
    """
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(_fetched(name))
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True, name="rp-hub")
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    if not answers:
        return None
    if isinstance(answers[0], Exception):
        raise answers[0]
    return {fact: answers[0].get(fact) for fact in _FACTS}


def _fetched(name: str) -> dict[str, Any]:
    """Fetch what the hub knows; huggingface_hub's own client would send more than the name."""
    from urllib.parse import quote, urlencode
    from urllib.request import urlopen

    from huggingface_hub.constants import ENDPOINT

    # The expanded fields come without the list of files, which can be megabytes.
    query = urlencode({"expand": _FACTS}, doseq=True)
    url = f"{ENDPOINT}/api/models/{quote(name)}?{query}"
    with urlopen(url, timeout=TIMEOUT_SECONDS) as reply:  # noqa: S310 - the user's own endpoint
        answer: dict[str, Any] = json.loads(reply.read(_MOST_BYTES))
    return answer
