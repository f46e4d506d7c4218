"""NVIDIA's management library: free memory that is true now, without PyTorch."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hardware_detection.log import log

_MIB = 1 << 20
_DEADLINE_S = 1.0


@contextmanager
def session() -> Iterator[Any]:
    """Yield the initialised ``pynvml`` module, and shut it down afterwards.

    Raises:
        ImportError: nvidia-ml-py is not installed.
        pynvml.NVMLError: there is no driver, or it does not answer as it should.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def free_memory_mb(uuids: Iterable[str]) -> dict[str, float]:
    """Return the free memory in MiB of each GPU that could be asked now, by UUID.

    Empty where nvidia-ml-py or the driver is missing, or does not answer within a second.
    Only for GPUs that the same driver has proved since boot: it runs in this process.
    """
    found: dict[str, float] = {}
    thread = threading.Thread(target=_ask, args=(list(uuids), found), daemon=True)
    thread.start()
    thread.join(_DEADLINE_S)
    return dict(found)


def _ask(uuids: list[str], found: dict[str, float]) -> None:
    try:
        with session() as nvml:
            for uuid in uuids:
                handle = nvml.nvmlDeviceGetHandleByUUID(nvml_uuid(uuid))
                found[uuid] = nvml.nvmlDeviceGetMemoryInfo(handle).free / _MIB
    except Exception as error:
        log().debug("NVML does not tell the free memory: %s", error)


def nvml_uuid(uuid: str) -> str:
    """Return a GPU's UUID as NVML spells it; PyTorch leaves out the "GPU-"."""
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
