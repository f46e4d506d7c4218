"""Builds the plain dictionaries of the statistics from what the pool's parts know."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from resource_pool import _system
from resource_pool._events import EventLog
from resource_pool._hardware import HARDWARE_NAMES
from resource_pool._store import Entry, Store
from resource_pool.devices import torch as torch_devices

MB = 1024 * 1024


def collect(store: Store, log: EventLog, *, low_memory: bool) -> dict[str, Any]:
    """Return the statistics as plain values; memory in MB unless a name says otherwise."""
    entries = [entry for entry in store.entries() if entry.ready]
    models = [entry for entry in entries if entry.kind == "model"]
    used = sum(entry.facts.get("memory_usage", 0) for entry in models)
    total = store.hits + store.misses
    return {
        "hits": store.hits,
        "misses": store.misses,
        "total_requests": total,
        "hit_ratio": store.hits / total if total else 0.0,
        "cached_resources": len(entries),
        "cached_models": len(models),
        "cached_tokenizers": sum(entry.kind == "tokenizer" for entry in entries),
        "memory_usage": used,
        "memory_usage_mb": used / MB,
        "low_memory_mode": low_memory,
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "system_memory": _system.system_memory(),
        "cpu": _system.cpu(),
        "cuda_memory": torch_devices.cuda_memory(),
        "mps": {"available": _mps_available()},
        "openvino": {"devices": [], "installed": importlib.util.find_spec("openvino") is not None},
        "webnn": {"placed_models": 0},
        "webgpu": {"placed_models": 0},
        "models": {entry.key: model_facts(entry, store.now()) for entry in models},
        "devices": _per_device(models),
        "management": {
            "cleanups": log.count("cleanup"),
            "evictions": log.count("evict"),
            "failed_loads": log.count("load_failed"),
        },
    }


def model_facts(entry: Entry, now: float) -> dict[str, Any]:
    """Return what is known of one cached model; ages in seconds."""
    facts = entry.facts
    return {
        "memory_mb": facts.get("memory_usage", 0) / MB,
        "method": facts.get("memory_estimation_method", "unknown"),
        "device": facts.get("device", "unknown"),
        "backend": facts.get("backend", "unknown"),
        "dtype": facts.get("dtype", "unknown"),
        "weights": facts.get("weights", "unknown"),
        "age_seconds": now - entry.created_at,
        "idle_seconds": now - entry.last_used,
        "hits": entry.hits,
        "load_seconds": entry.load_seconds,
    }


def _per_device(models: Iterable[Entry]) -> dict[str, dict[str, float]]:
    used: dict[str, float] = {}
    for entry in models:
        device = entry.facts.get("device", "unknown")
        used[device] = used.get(device, 0.0) + entry.facts.get("memory_usage", 0) / MB
    return {device: {"used_mb": megabytes} for device, megabytes in used.items()}


def _mps_available() -> bool | None:
    """None where torch is not loaded: asking would load it."""
    torch = sys.modules.get("torch")
    return None if torch is None else bool(torch.backends.mps.is_available())


def available_names(report: Mapping[str, Any]) -> list[str]:
    """Return the names of the hardware that a report proves, in the order of display."""
    return [name for name in HARDWARE_NAMES if report["hardware"].get(name)]
