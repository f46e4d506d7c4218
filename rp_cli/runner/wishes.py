"""What the caller of a run wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rp_cli.runner.history import Past


@dataclass(frozen=True)
class Wishes:
    """What the caller wants; see ``run_tests``. ``folder`` is for temporary files."""

    folder: Path
    environment: Mapping[str, str]
    timeout_seconds: float
    jobs: int | None = None
    selection: str = ""
    fail_fast: bool = False
    history: Mapping[str, Past] = field(default_factory=dict)
