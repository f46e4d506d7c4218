"""What the caller of a run wants, and what that means for those who do it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rp_cli.runner.history import Past
from rp_cli.runner.scheduling import Branch


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


@dataclass(frozen=True)
class Settings:
    """How a run is to be done.

    Attributes:
        folder: for the files in which children write their results.
        environment: of the children, the whole of it.
        jobs: how many files run at once, those on GPUs not counted.
        threads: on how many of them each file computes.
        gpus: one environment per GPU, for the worker that has it.
        budget: bytes of memory for all that runs at once.
        sizes: key of a shared model -> bytes.
        selection: which tests are meant, as ``parse_selection`` reads it.
        process_limit: how many processes a file may start before it is killed.
        user_processes: the limit of the user's processes and threads, None for none.
        work_folder: the current folder of each file's process; None: that of this one.
        later_branches: of files that are run after these by somebody else; their models stay.
        later_names: the names of models that those files use on a GPU.
    """

    folder: Path
    environment: Mapping[str, str]
    timeout_seconds: float
    jobs: int = 1
    threads: int = 1
    gpus: Sequence[Mapping[str, str]] = ()
    budget: int = 1 << 62
    sizes: Mapping[str, int] = field(default_factory=dict)
    selection: str = ""
    fail_fast: bool = False
    process_limit: int = 1 << 30
    user_processes: int | None = None
    work_folder: Path | None = None
    later_branches: Collection[Branch] = ()
    later_names: Collection[str] = ()
