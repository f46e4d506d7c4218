"""Whether a model fits into a browser: by the limits it reports, else by the guaranteed ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from model_family_classifier.data import data_dir
from model_family_classifier.documents import load_trusted_yaml

WEB_BACKENDS = ("webnn", "webgpu")


def web_limits() -> dict[str, Any]:
    """Return model_db/web_limits.yaml: limits with their sources, and the browsers."""
    return _web_limits()


def too_large(
    size_limit: str | None, requirements: Mapping[str, Any], reported: Mapping[str, Any]
) -> str | None:
    """Return why a model is too large for a browser, or None where it fits or nothing is known.

    Args:
        size_limit: the limit for all weights together, by its name in web_limits.yaml.
        requirements: weights_bytes and largest_tensor_bytes, as far as they are known.
        reported: the limits that the browser reports, by its own names (maxBufferSize, …).
    """
    limits = _web_limits()
    wanted = (
        ("the weights take", requirements.get("weights_bytes"), size_limit),
        (
            "the largest tensor takes",
            requirements.get("largest_tensor_bytes"),
            limits["largest_tensor"],
        ),
    )
    for what, size, name in wanted:
        if name is None or not isinstance(size, int | float):
            continue
        allowed, origin = _allowed(limits["limits"][name], reported)
        if size > allowed:
            return f"{what} {_mib(size)}, and {name} is {_mib(allowed)} ({origin})"
    return None


def _allowed(limit: Mapping[str, Any], reported: Mapping[str, Any]) -> tuple[float, str]:
    value = reported.get(limit["reported_as"])
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return value, "as the browser reports"
    return limit["bytes"], "the guaranteed least"


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


@functools.cache
def _web_limits() -> dict[str, Any]:
    content: dict[str, Any] = load_trusted_yaml(data_dir("model_db") / "web_limits.yaml")
    return content
