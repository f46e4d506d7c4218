"""Hardware error reports: what failed where, why, what to do, and what else is here."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resource_pool._families import family_facts, subfamily_of
from resource_pool._hardware import CPU, HARDWARE_NAMES
from resource_pool.errors import DeviceUnavailableError, PoolError, PreferenceError

if TYPE_CHECKING:
    from resource_pool._pool import ResourcePool

logger = logging.getLogger("resource_pool")

SCHEMA_VERSION = 1

# In this order: the first pattern that is found in the message (or the trace) decides.
_ERROR_TYPES: tuple[tuple[str, str], ...] = (
    (
        "out_of_memory",
        (
            r"\bneeds [\d.]+ [KMGT]iB|out of memory|outofmemory|memoryerror|bad_alloc"
            r"|can(?:no|')t allocate memory"
        ),
    ),
    ("missing_package", r"no module named|modulenotfounderror|requires the .* (library|package)"),
    (
        "device_absent",
        (
            r"torch not compiled with cuda|no cuda gpus|invalid device ordinal"
            r"|is not available here|no such device|cannot be used"
        ),
    ),
    ("unknown", r"device-side assert"),
    ("driver", r"\bdriver\b|cuda error|\bcudnn|\bnccl|hip error|\bhsa_"),
    (
        "dtype",
        (
            r"expected .*(dtype|scalar type)|not implemented for '(half|bfloat16|float8)"
            r"|dtype mismatch|must have the same dtype"
        ),
    ),
    (
        "unsupported_operation",
        (
            r"not currently implemented for the|not implemented for|unsupported ?op"
            r"|notimplementederror|could not run '[^']+' with arguments"
        ),
    ),
    ("timeout", r"timed out|time ?out|deadline"),
)

_OPERATION = re.compile(r"aten::\w+(?:\.\w+)*|(?<=operator ')[^']+|(?<=Could not run ')[^']+")
_NEEDED = re.compile(r"(?:tried to allocate|needs) ([\d.]+) ?([KMGT]i?B)", re.IGNORECASE)
_FREE = re.compile(r"([\d.]+) ?([KMGT]i?B) (?:is )?free", re.IGNORECASE)
_MB_PER = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}

_RECOMMENDATIONS: dict[str, tuple[str, ...]] = {
    "out_of_memory": (
        "Use a smaller batch or a shorter input.",
        'Ask for half precision: hardware_preferences={"precision": "fp16"}.',
        "Drop what is not needed: pool.cleanup_unused_resources(max_age_minutes=0).",
        "Turn on low-memory mode: RESOURCE_POOL_LOW_MEMORY=1.",
    ),
    "missing_package": ("Install the package that the message names, in this environment.",),
    "device_absent": (
        "See what this machine can compute on: rp detect --refresh.",
        'Let the pool choose: hardware_preferences={"device": "auto"}.',
    ),
    "driver": (
        "Compare the driver with the one that this build of torch needs: rp detect --debug.",
        "Update the driver, or install a build of torch for the driver that is there.",
    ),
    "dtype": ('Ask for full precision: hardware_preferences={"precision": "fp32"}.',),
    "unsupported_operation": ("Run the model on other hardware of the list of alternatives.",),
    "timeout": ("Give it more time, or a smaller input.",),
    "unknown": ("Read the stack trace, and run `rp check --debug` for the state of this machine.",),
}

_FAMILY_RECOMMENDATIONS: dict[tuple[str, str], str] = {
    ("out_of_memory", "text_generation"): "Generate fewer tokens: the KV cache grows with each.",
    ("out_of_memory", "vision"): "Use a smaller image size.",
    ("out_of_memory", "audio"): "Cut the audio into shorter pieces.",
    ("out_of_memory", "multimodal"): "Pass one image at a time, at a smaller size.",
    ("out_of_memory", "embedding"): "Encode fewer texts at once.",
}

_SUBFAMILY_RECOMMENDATIONS: dict[tuple[str, str | None], str] = {
    ("out_of_memory", "mixture_of_experts"): (
        "Quantise it or spread it over several GPUs: all experts are in memory, used or not."
    ),
    ("out_of_memory", "chat_model"): "Cut the conversation: the whole history is in each prompt.",
    ("out_of_memory", "seq2seq"): "Use fewer beams: each keeps a KV cache of its own.",
    ("out_of_memory", "object_detector"): "Scale the images down; their size is not fixed.",
    ("out_of_memory", "segmentation"): "Scale the images down: a mask is as large as its image.",
    ("out_of_memory", "speech_recognition"): "Transcribe in windows of 30 seconds.",
    ("unsupported_operation", "state_space"): (
        "Its fast kernels are for CUDA; without their packages transformers' plain loop runs."
    ),
    ("dtype", "object_detector"): "Keep it in fp32: sampling of deformable layers needs it.",
}

_PLATFORM_RECOMMENDATIONS: dict[tuple[str, str], str] = {
    ("unsupported_operation", "mps"): "Set PYTORCH_ENABLE_MPS_FALLBACK=1 to run it on the CPU.",
    ("unsupported_operation", "cuda"): "Run it on the CPU, or with a newer build of torch.",
    ("unsupported_operation", "openvino"): "Keep the model on torch: device='cpu'.",
    ("unsupported_operation", "webgpu"): "`rp web check` says what does not work there.",
    ("unsupported_operation", "webnn"): "`rp web check` says what does not work there.",
    ("driver", "cuda"): "`nvidia-smi` prints the driver's version.",
    ("driver", "rocm"): "`rocminfo` prints the driver's version.",
}


def error_report(
    model_name: str,
    hardware_type: str,
    error_message: str,
    stack_trace: str | None = None,
    *,
    hardware: Mapping[str, Any],
    held_by: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the report of a failure as a plain dictionary.

    Args:
        hardware_type: the backend or device where it failed, e.g. "cuda" or "cuda:0".
        hardware: a detection report, for the alternatives that really are here.
        held_by: what takes the device's memory, the largest first: key and MB.
    """
    backend = hardware_type.partition(":")[0]
    kind = error_type(error_message, stack_trace)
    family = family_facts("", model_name).family or "unknown"
    subfamily = subfamily_of(model_name)
    return {
        "schema_version": SCHEMA_VERSION,
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "model_name": model_name,
        "model_family": family,
        "subfamily": subfamily,
        "hardware_type": hardware_type,
        "error_type": kind,
        "error_message": error_message,
        "stack_trace": stack_trace,
        "operation": _operation(error_message),
        "memory": {
            "needed_mb": _megabytes(_NEEDED, error_message),
            "free_mb": _megabytes(_FREE, error_message),
            "held_by": list(held_by),
        },
        "environment": {"driver": _driver(backend, hardware), "versions": _versions()},
        "recommendations": recommendations(kind, family, backend, subfamily),
        "alternatives": _alternatives(backend, hardware),
    }


def error_type(message: str, stack_trace: str | None = None) -> str:
    """Return the kind of failure that the message tells of, or else the trace; or "unknown"."""
    # Of a trace only its last line: paths and source lines before it hold any word.
    last_line = next(reversed((stack_trace or "").strip().splitlines()), "")
    for text in (message, last_line):
        for kind, pattern in _ERROR_TYPES:
            if re.search(pattern, text, re.IGNORECASE):
                return kind
    return "unknown"


def recommendations(
    kind: str, family: str, backend: str, subfamily: str | None = None
) -> list[str]:
    """Return what to do, the most specific first."""
    specific = (
        _PLATFORM_RECOMMENDATIONS.get((kind, backend)),
        _SUBFAMILY_RECOMMENDATIONS.get((kind, subfamily)),
        _FAMILY_RECOMMENDATIONS.get((kind, family)),
    )
    return [text for text in specific if text] + list(_RECOMMENDATIONS[kind])


def save(report: Mapping[str, Any], output_dir: str | os.PathLike[str]) -> Path:
    """Write ``report`` into ``output_dir`` under a name that no other report has."""
    import secrets

    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    # The model's name is untrusted: only letters and digits of it reach the path.
    name = re.sub(r"[^A-Za-z0-9]+", "_", str(report.get("model_name", "")))[:80].strip("_")
    path = folder / f"{name or 'model'}_{stamp}_{secrets.token_hex(4)}.json"
    _write(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return path


def _write(path: Path, text: str) -> None:
    try:
        from hardware_detection.files import write_atomically
    except ImportError:  # the pool goes without the detector; nobody else writes this file
        try:
            path.write_text(text, encoding="utf-8")
        except OSError:
            path.unlink(missing_ok=True)
            raise
    else:
        write_atomically(path, text)


@contextlib.contextmanager
def saved_error_report(
    pool: ResourcePool,
    model_name: str,
    hardware_preferences: Mapping[str, Any] | None = None,
    output_dir: str | os.PathLike[str] = "./hardware_reports",
) -> Iterator[None]:
    """Save an error report of whatever goes wrong inside, and let the error go on.

    A forced device that is not there and a wrong preference are answers about the request and
    no failures of hardware: they are not reported.
    """
    try:
        yield
    except (DeviceUnavailableError, PreferenceError):
        raise
    except Exception as error:
        trace = traceback.format_exc()
        try:
            device = _where(pool, model_name, hardware_preferences)
            message = f"{type(error).__name__}: {error}"
            report = pool.generate_error_report(model_name, device, message, trace)
            logger.error("Error report: %s", pool.save_error_report(report, output_dir))
        except Exception:
            # The report is for the error that goes on below; it must not take its place.
            logger.exception("The error report could not be made")
        raise


def _where(pool: ResourcePool, name: str, preferences: Mapping[str, Any] | None) -> str:
    """Return where the pool would put the model, in the caller's words where it cannot."""
    try:
        return pool.explain("", name, preferences).device
    except PoolError:
        return str((preferences or {}).get("device") or CPU)


def _operation(message: str) -> str | None:
    found = _OPERATION.search(message)
    return found.group(0) if found else None


def _megabytes(pattern: re.Pattern[str], message: str) -> float | None:
    found = pattern.search(message)
    return float(found.group(1)) * _MB_PER[found.group(2)[0].lower()] if found else None


def _driver(backend: str, hardware: Mapping[str, Any]) -> str | None:
    driver = hardware.get("details", {}).get(backend, {}).get("driver")
    return None if driver is None else str(driver)


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in ("torch", "transformers")}


def _version(package: str) -> str | None:
    from importlib import metadata  # 25 ms, which importing the pool must not cost

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _alternatives(backend: str, hardware: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the other hardware, what is here first and the CPU behind faster things."""
    found = hardware["hardware"]
    names = [name for name in (*HARDWARE_NAMES, CPU) if name != backend]
    order = sorted(dict.fromkeys(names), key=lambda n: (not found.get(n), n == CPU))
    details = hardware.get("details", {})
    return [
        {
            "hardware": name,
            "available": bool(found.get(name)),
            "reason": details.get(name, {}).get("reason", ""),
        }
        for name in order
    ]
