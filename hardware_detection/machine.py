"""The edge: the one object through which probes touch files, packages and processes.

Tests put a fake machine in its place.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hardware_detection.cgroups import Limits, read_limits
from hardware_detection.log import log
from hardware_detection.parsing import (
    CPUINFO_FILE,
    MEMORY_FILE,
    normalized,
    parse_distributions,
    parse_meminfo,
    parse_sockets,
)

if TYPE_CHECKING:
    from hardware_detection.process import Outcome

#: Importing PyTorch takes a second on a warm disk and half a minute on a slow network share.
PROOF_DEADLINE_S = 60.0
TOOL_DEADLINE_S = 10.0

# The kernel refuses reads of 4 MiB and more from /proc/sys.
_MAX_TEXT_BYTES = 1 << 20
_MIB = 1 << 20
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
# "-c" puts the current folder, which may hold anybody's files, first on the import path. The child
# lives for one answer: collecting garbage while it imports a vendor's library, and tidying up
# after it has answered, would take two fifths of its time.
_BOOTSTRAP = (
    "import gc, os, sys; gc.disable(); sys.path[:] = [sys.argv[1], *filter(None, sys.path)];"
    " from hardware_detection.proofs import main; main(sys.argv[2:]); os._exit(0)"
)


class CpuCounts(NamedTuple):
    """Cores with and without hyper-threads, sockets, and what this process may use.

    None: unknown.
    """

    physical: int | None
    logical: int | None
    usable: int | None
    sockets: int | None = None


class CpuTarget(NamedTuple):
    """A CPU by archspec's names; no microarchitecture: unknown."""

    microarchitecture: str | None
    features: frozenset[str]


class Machine:
    """This machine, as far as detection looks at it. Nothing here raises for what is missing."""

    def __init__(self, *, web: bool = False, proof_deadline_s: float = PROOF_DEADLINE_S) -> None:
        #: Whether browsers may be started.
        self.web = web
        self.proof_deadline_s = proof_deadline_s
        self.platform = sys.platform
        self.environ: Mapping[str, str] = os.environ
        # Children that run now, guarded by the lock; `close` kills them when we are interrupted.
        self._children: set[subprocess.Popen[bytes]] = set()
        self._closed = False
        self._lock = threading.Lock()

    def read_text(self, path: str) -> str | None:
        """Return the file's text (at most 1 MiB), or None if it cannot be read."""
        try:
            with Path(path).open("rb") as stream:
                return stream.read(_MAX_TEXT_BYTES).decode("utf-8", errors="replace")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Whether the path is there."""
        return os.path.exists(path)  # noqa: PTH110 - Path.exists raises on some permissions

    def real_path(self, path: str) -> str:
        """Return the path with its links resolved."""
        return os.path.realpath(path)

    def stamp(self, path: str) -> list[int] | None:
        """Return size and time of change (ns) of a file, or None if it is not there."""
        try:
            status = os.stat(path)  # noqa: PTH116 - called at every start: a Path costs more
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns]

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a folder; empty if it cannot be read."""
        try:
            return sorted(os.listdir(path))  # noqa: PTH208 - names are wanted, not paths
        except OSError:
            return []

    def package_file(self, package: str, name: str) -> str | None:
        """Return the path of a file in an importable top-level package, without importing it."""
        spec = self._spec(package)
        if spec is None or not spec.submodule_search_locations:
            return None
        return str(Path(next(iter(spec.submodule_search_locations))) / name)

    def limits(self) -> Limits:
        """Return what a container or a service manager lets this process have."""
        return read_limits(self.read_text)

    def memory_mb(self) -> tuple[float, float]:
        """Return the memory that this process may have, total and available now, in MiB.

        The system's, or a container's limit where that is smaller.
        """
        total, available = self.host_memory_mb()
        limits = self.limits()
        if limits.memory_mb is None or limits.memory_mb >= total:
            return total, available
        return limits.memory_mb, min(available, limits.memory_free_mb or 0.0)

    def host_memory_mb(self) -> tuple[float, float]:
        """Return the system's memory, total and available now, in MiB."""
        # Read by ourselves where it is one file: importing psutil takes longer than all the rest.
        known = parse_meminfo(self.read_text(MEMORY_FILE) or "")
        if known is not None:
            return known
        import psutil

        memory = psutil.virtual_memory()
        return round(memory.total / _MIB, 1), round(memory.available / _MIB, 1)

    def cpu_counts(self) -> CpuCounts:
        """Return how many cores there are, and how many this process may use."""
        import psutil

        return CpuCounts(
            physical=psutil.cpu_count(logical=False),
            logical=psutil.cpu_count(logical=True),
            usable=self.usable_cpus(),
            sockets=parse_sockets(self.read_text(CPUINFO_FILE) or ""),
        )

    def usable_cpus(self) -> int | None:
        """Return how many logical cores' worth of time this process may have, rounded up."""
        found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        limit = self.limits().cpus
        return found if limit is None or found is None else min(found, math.ceil(limit))

    def boot_minute(self) -> int:
        """Return when the system started, in minutes since the epoch; clocks drift by seconds."""
        import psutil

        return round(psutil.boot_time() / 60)

    def cpu_percent(self) -> float:
        """Return how busy the CPU was since the last call."""
        import psutil

        return float(psutil.cpu_percent(interval=None))

    def gpu_loads(self, uuids: list[str]) -> dict[str, tuple[float | None, float, float]]:
        """Return utilisation, total and free memory in MiB of NVIDIA GPUs, as far as they tell."""
        if not uuids or not self.has_package("pynvml"):
            return {}
        from hardware_detection.nvml import loads

        return loads(uuids)

    def cpu_target(self) -> CpuTarget:
        """Return the CPU's microarchitecture and features by archspec's names."""
        import archspec.cpu

        host = archspec.cpu.host()
        return CpuTarget(host.name, frozenset(host.features))

    def cpu_name(self) -> str | None:
        """Return the CPU's marketing name where /proc/cpuinfo has none (macOS, Windows, Arm)."""
        if self.platform == "darwin":
            outcome = self.run(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"])
            return outcome.stdout.strip() or None if outcome.ok else None
        return platform.processor() or None

    def architecture(self) -> str:
        """Return the instruction set: "x86_64", "aarch64", …"""
        return platform.machine() or "unknown"

    def has_package(self, package: str) -> bool:
        """Whether a top-level package can be imported, without importing it."""
        return self._spec(package) is not None

    def package_version(self, distribution: str) -> str | None:
        """Return the installed version of a distribution, or None."""
        return self._distributions.get(normalized(distribution))

    @cached_property
    def _distributions(self) -> dict[str, str]:
        """The version of each installed distribution by its normalized name."""
        # Only names of folders are read: importlib.metadata opens and parses a file for each.
        found: dict[str, str] = {}
        for folder in sys.path:
            for name, version in parse_distributions(self.listdir(folder or ".")):
                found.setdefault(name, version)  # the first on the path is what is imported
        return found

    def which(self, program: str) -> str | None:
        """Return the absolute path of a program on PATH, or None."""
        found = shutil.which(program)
        return os.path.abspath(found) if found else None  # noqa: PTH100 - no links resolved

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float = TOOL_DEADLINE_S,
        environ: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run a program and return how it ended."""
        from hardware_detection.process import kill_tree, run_bounded

        started: list[subprocess.Popen[bytes]] = []

        def remember(process: subprocess.Popen[bytes]) -> None:
            started.append(process)
            with self._lock:
                self._children.add(process)
                closed = self._closed
            if closed:
                kill_tree(process)

        try:
            outcome = run_bounded(argv, deadline_s=deadline_s, environ=environ, on_start=remember)
        finally:
            with self._lock:
                self._children.difference_update(started)
        log().debug("%s: %.2f s, %s", Path(argv[0]).name, outcome.seconds, outcome.kind)
        return outcome

    def prove(self, *arguments: str) -> Outcome:
        """Run one of ``hardware_detection.proofs`` in a Python of its own.

        What it leaves in its temporary folder, a killed browser's profile say, goes with it.
        """
        import tempfile

        argv = [sys.executable, "-c", _BOOTSTRAP, str(_PACKAGE_ROOT), *arguments]
        with tempfile.TemporaryDirectory(prefix="rp-", ignore_cleanup_errors=True) as folder:
            environ = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)}
            outcome = self.run(argv, deadline_s=self.proof_deadline_s, environ=environ)
        log().debug("proof %s: %.2f s, %s", " ".join(arguments), outcome.seconds, outcome.kind)
        return outcome

    def close(self) -> None:
        """Kill every child that still runs, and every one that starts from now on."""
        from hardware_detection.process import kill_tree

        with self._lock:
            self._closed = True
            children = [process for process in self._children if process.returncode is None]
        for process in children:
            kill_tree(process)

    @staticmethod
    def _spec(package: str) -> importlib.machinery.ModuleSpec | None:
        try:
            return importlib.util.find_spec(package)
        except (ImportError, ValueError):
            return None
