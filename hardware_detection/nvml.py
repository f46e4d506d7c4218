"""NVIDIA's management library: memory and utilisation that are true now, without PyTorch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from hardware_detection.log import log

_MIB = 1 << 20
_DEADLINE_S = 1.0


@contextlib.contextmanager
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


def loads(uuids: Iterable[str]) -> dict[str, tuple[float | None, float, float]]:
    """Return utilisation in percent, total and free memory in MiB of each GPU, by UUID.

    What could not be asked now is left out: all of them where nvidia-ml-py or the driver is
    missing, or does not answer within a second. Only for GPUs that the same driver has proved
    since boot: it runs in this process, in a thread that is left behind at the deadline.
    """
    found: dict[str, tuple[float | None, float, float]] = {}
    wanted = list(uuids)

    def ask_all() -> None:
        try:
            with session() as nvml:
                for uuid in wanted:
                    ask(nvml, uuid)
        except Exception as error:
            log().debug("NVML does not tell: %s", error)

    def ask(nvml: Any, uuid: str) -> None:
        try:
            found[uuid] = _load(nvml, nvml.nvmlDeviceGetHandleByUUID(nvml_uuid(uuid)))
        except Exception as error:  # one GPU that fell off the bus does not hide the others
            log().debug("NVML does not tell of %s: %s", uuid, error)

    thread = threading.Thread(target=ask_all, daemon=True)
    thread.start()
    thread.join(_DEADLINE_S)
    return dict(found)


def _load(nvml: Any, gpu: Any) -> tuple[float | None, float, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    try:
        utilisation = float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
    except Exception:  # a MIG instance has none of its own
        utilisation = None
    return utilisation, round(memory.total / _MIB, 1), round(memory.free / _MIB, 1)


def text(value: object) -> str:
    """Return a text of NVML's; releases of nvidia-ml-py before 12 return bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def nvml_uuid(uuid: str) -> str:
    """Return a GPU's UUID as NVML spells it; PyTorch leaves out the "GPU-"."""
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
