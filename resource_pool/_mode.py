"""The mode of a pool, shared by its parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Mode:
    """Whether low-memory mode is on, and whether somebody asked for it: then it stays on."""

    low_memory: bool = False
    asked_for: bool = False
