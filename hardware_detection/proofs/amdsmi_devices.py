"""What AMD's management library says of the GPUs; it computes nothing, so it proves nothing."""

from __future__ import annotations

from typing import Any

from hardware_detection.proofs import optional


def prove() -> dict[str, Any]:
    """Return every AMD GPU of the machine, hidden ones included, and the driver's version."""
    import amdsmi

    amdsmi.amdsmi_init()
    try:
        handles = amdsmi.amdsmi_get_processor_handles()
        rows = [_describe(amdsmi, index, handle) for index, handle in enumerate(handles)]
        driver = optional(lambda: amdsmi.amdsmi_get_gpu_driver_info(handles[0]))
    finally:
        amdsmi.amdsmi_shut_down()
    return {"devices": rows, "facts": {"driver": (driver or {}).get("driver_version")}}


def _describe(amdsmi: Any, index: int, handle: Any) -> dict[str, Any]:
    chip = amdsmi.amdsmi_get_gpu_asic_info(handle)
    # In MiB, both.
    memory = optional(lambda: amdsmi.amdsmi_get_gpu_vram_usage(handle)) or {}
    total, used = _number(memory.get("vram_total")), _number(memory.get("vram_used"))
    facts = {
        "gcn_arch": chip.get("target_graphics_version"),
        "uuid": optional(lambda: amdsmi.amdsmi_get_gpu_device_uuid(handle)),
        "pci_bus_id": optional(lambda: amdsmi.amdsmi_get_gpu_device_bdf(handle)),
    }
    return {
        "index": index,
        "name": _known(chip.get("market_name")),
        "memory_total_mb": total,
        "memory_free_mb": None if total is None or used is None else total - used,
        "results": {},
        "facts": {key: value for key, value in facts.items() if _known(value)},
    }


def _known(value: Any) -> Any:
    """Return the value; None for "N/A", with which the library fills what it does not know."""
    return None if value in ("N/A", "") else value


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
