"""The mode of a pool, shared by its parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Mode:
    """Low-memory mode is turned on once and stays on."""

    low_memory: bool = False
