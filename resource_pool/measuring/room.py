"""Whether there is room for a check; where there is not, it is skipped with the arithmetic."""

from __future__ import annotations

import shutil
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def scratch_folder(model: Any) -> Iterator[Path]:
    """Yield an empty folder in which the model can be saved and from which it can be loaded.

    Raises:
        unittest.SkipTest: disk, memory or the model's device are too small for a second copy, or
            memory ran out for it; with the arithmetic.
    """
    from resource_pool.devices.torch import TorchDevices

    devices = TorchDevices()
    needed = sum(one.numel() * one.element_size() for one in model.state_dict().values())
    need_memory(needed)
    device = str(model.device)
    memory = devices.memory(device) if device != "cpu" else None
    if memory is not None:
        _need(needed, memory.free, f"on {device}")
    with tempfile.TemporaryDirectory(prefix="rp_") as folder:
        _need(needed, shutil.disk_usage(folder).free, f"on the disk of {folder}")
        try:
            yield Path(folder)
        except (MemoryError, RuntimeError) as error:
            # A limit that the system does not tell of.
            if not devices.is_out_of_memory(error):
                raise
            why = f"needs {readable_gib(needed)} for a second copy, and memory ran out: {error}"
            raise unittest.SkipTest(why) from None


def need_memory(needed: int) -> None:
    """Go on where the machine has so many bytes free.

    Raises:
        unittest.SkipTest: it has not, with the arithmetic.
    """
    from resource_pool import get_global_resource_pool

    memory = get_global_resource_pool().get_stats()["system_memory"]
    free = memory.get("available_mb", float("inf")) * 2**20
    _need(needed, free, "in this machine's memory")


def readable_gib(size: float) -> str:
    """Return bytes as GiB with one decimal: "9.1 GiB"."""
    return f"{size / 2**30:.1f} GiB"


def _need(needed: float, free: float, where: str) -> None:
    if needed > free:
        raise unittest.SkipTest(f"needs {readable_gib(needed)}, {free / 2**30:.1f} free {where}")
