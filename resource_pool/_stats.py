"""Builds the plain dictionaries of the statistics from what the pool's parts know."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from resource_pool import _system
from resource_pool._entries import Entry
from resource_pool._events import EventLog
from resource_pool._hardware import Hardware
from resource_pool._origin import UNKNOWN
from resource_pool._store import Store
from resource_pool.devices import Devices, Memory, memory_of
from resource_pool.devices.cuda import cuda_statistics

MB = 1024 * 1024


def collect(
    store: Store,
    devices: Devices,
    log: EventLog,
    hardware: Hardware,
    *,
    low_memory: bool,
    memory: Memory | None,
) -> dict[str, Any]:
    """Return the statistics as plain values; memory in MB unless a name says otherwise.

    Args:
        hardware: the last detection report that the pool saw counts; none is asked for.
        memory: the machine's RAM now, where it can be read.
    """
    from datetime import datetime, timezone

    report = hardware.last
    store.settle()
    entries = [entry for entry in store.entries() if entry.ready]
    models = [entry for entry in entries if entry.kind == "model"]
    used = sum(sum(entry.charged.values()) for entry in models)  # what two share, once
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
        "system_memory": _system.system_memory(memory),
        "cpu": _system.cpu(),
        "cuda_memory": cuda_statistics(report, hardware.age_seconds),
        "mps": _mps(),
        "openvino": {"installed": _installed("openvino"), "devices": _names(report, "openvino")},
        "webnn": {"available": _available(report, "webnn")},
        "webgpu": {"available": _available(report, "webgpu")},
        "models": {entry.key: model_facts(entry, store.clock()) for entry in models},
        "devices": _per_device(store, devices),
        "management": {
            "cleanups": log.count("cleanup"),
            "evictions": log.count("evict"),
            "oom_recoveries": log.count("oom_recovery"),
            "mutations": log.count("mutated"),
            "moves": log.count("move"),
            "not_freed": log.count("not_freed"),
            "freed_mb": store.freed_bytes / MB,
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
        "simulated": facts.get("simulated", False),
        "dtype": facts.get("dtype", "unknown"),
        "weights": str(facts.get("weights", UNKNOWN)),
        "age_seconds": now - entry.created_at,
        "idle_seconds": now - entry.last_used,
        "hits": entry.hits,
        "load_seconds": entry.load_seconds,
        "leases": len(entry.lessees),
        "pinned": entry.pinned,
        **({"web": facts["web"]} if "web" in facts else {}),
    }


def _per_device(store: Store, devices: Devices) -> dict[str, dict[str, float | None]]:
    with store.lock:
        totals = {
            name: (
                store.ledger.total(name, "used", "leaving"),
                store.ledger.total(name, "reserved"),
            )
            for name in store.ledger.devices()
        }
    return {
        name: {
            "used_mb": used / MB,
            "reserved_mb": reserved / MB,
            "budget_mb": _megabytes(memory_of(devices, name)),
        }
        for name, (used, reserved) in totals.items()
    }


def _megabytes(memory: Memory | None) -> float | None:
    return None if memory is None else memory.total / MB


def _mps() -> dict[str, Any]:
    """Say "unknown" (None) where torch is not loaded: asking would load it."""
    backends = getattr(sys.modules.get("torch"), "backends", None)
    mps = getattr(backends, "mps", None)
    if mps is None or not mps.is_available():
        return {"available": None if mps is None else False}
    torch = sys.modules["torch"]
    return {"available": True, "allocated_mb": torch.mps.current_allocated_memory() / MB}


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _names(report: Mapping[str, Any] | None, backend: str) -> Sequence[str]:
    devices = (report or {}).get("details", {}).get(backend, {}).get("devices", ())
    return [str(device.get("name")) for device in devices]


def _available(report: Mapping[str, Any] | None, backend: str) -> bool | None:
    return None if report is None else bool(report["hardware"].get(backend))
