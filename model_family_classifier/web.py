"""Whether a model fits into a browser: by the limits it reports, else by the guaranteed ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_family_classifier.data import compiled_data

WEB_BACKENDS = ("webnn", "webgpu")


def web_limits() -> dict[str, Any]:
    """Return model_db/web_limits.yaml: limits with their sources, and the browsers."""
    limits: dict[str, Any] = compiled_data()["web_limits"]
    return limits


def recorded_browser(backend: str) -> dict[str, Any]:
    """Return what a browser once said of a backend, as a report would have it; {} for none.

    Beside the limits: ``browser`` and ``as_of``, and ``operators``, those of ONNX that it has.
    """
    recorded: dict[str, Any] = web_limits()["recorded"].get(backend, {})
    return recorded


def reported_web_limits(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits that the browsers in a hardware report gave, by their own names.

    Of several browsers the one that computes best counts, which a report lists first; empty for
    a report without ``rp detect --web``.
    """
    found: dict[str, Any] = {}
    for name in WEB_BACKENDS:
        devices = report.get("details", {}).get(name, {}).get("devices") or [{}]
        found.update(devices[0].get("limits") or {})
    return found


def too_large(
    backend: str,
    size_limit: str | None,
    requirements: Mapping[str, Any],
    reported: Mapping[str, Any],
) -> str | None:
    """Return why a model is too large for a browser, or None where it fits or nothing is known.

    Args:
        backend: "webgpu" or "webnn".
        size_limit: the limit for all weights together, by its name in web_limits.yaml.
        requirements: weights_bytes and largest_tensor_bytes, as far as they are known.
        reported: the limits that the browser reports, by its own names (maxBufferSize, …).
    """
    tensor_limit = web_limits()["largest_tensor"][backend]
    wanted = (
        ("the weights take", requirements.get("weights_bytes"), size_limit),
        ("the largest tensor takes", requirements.get("largest_tensor_bytes"), tensor_limit),
    )
    for what, size, name in wanted:
        allowed, origin = _allowed(name, reported) if name else (None, "")
        taken = _size(size)
        if allowed is not None and taken is not None and taken > allowed:
            return f"{what} {_mib(taken)}, and {name} is {_mib(allowed)} ({origin})"
    return None


def _allowed(name: str, reported: Mapping[str, Any]) -> tuple[float | None, str]:
    limit = web_limits()["limits"][name]
    value = _size(reported.get(limit.get("reported_as")))
    if value is not None and value > 0:
        return value, "as the browser reports"
    return limit["bytes"], "the guaranteed least"


def _size(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
