"""The limits that a container or a service manager sets on this process: cgroup v1 and v2.

The file formats are those of the kernel's documents admin-guide/cgroup-v1 and cgroup-v2. A limit
counts at every level between the process's own group and the top of what is mounted; what is
above that (a container sees only its own part) cannot be seen from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from hardware_detection.parsing import whole_number

GROUPS_FILE = "/proc/self/cgroup"
MOUNTS_FILE = "/proc/self/mountinfo"

_MIB = 1 << 20
# Version 1 has no word for "no limit": it shows the largest number of whole pages.
_NO_LIMIT = 1 << 60

ReadText = Callable[[str], "str | None"]


class Limits(NamedTuple):
    """What this process may use; None: no limit.

    Attributes:
        cpus: cores' worth of time, 1.5 for one and a half.
        memory_mb: MiB.
        memory_free_mb: MiB that are left below the limit; file pages that the kernel can drop
            count as free, as in the system's own "available".
    """

    cpus: float | None = None
    memory_mb: float | None = None
    memory_free_mb: float | None = None


class _Files(NamedTuple):
    """What the two versions call the same things."""

    memory_limit: str
    memory_used: str
    droppable: str


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file")


def read_limits(read_text: ReadText) -> Limits:
    """Return the strictest limits of this process; empty where there are no cgroups."""
    groups = own_groups(read_text)
    cpus = [n for one in groups if one.controller in ("", "cpu") for n in _cpus(read_text, one)]
    memory = read_memory_limits(read_text, groups)
    return Limits(min(cpus, default=None), *(memory or (None, None)))


class Group(NamedTuple):
    """A folder whose limits count for this process. ``controller`` is "" in version 2."""

    controller: str
    folder: str


def own_groups(read_text: ReadText) -> list[Group]:
    """Return where this process's limits stand; the same as long as nobody moves the process."""
    mounts = parse_mounts(read_text(MOUNTS_FILE) or "")
    groups = parse_groups(read_text(GROUPS_FILE) or "")
    return [
        Group(controller, folder)
        for controller in ("", "cpu", "memory")
        if controller in mounts and controller in groups
        for folder in levels(groups[controller], *mounts[controller])
    ]


def read_memory_limits(read_text: ReadText, groups: Iterable[Group]) -> tuple[float, float] | None:
    """Return the strictest limit on memory and the least that is left, in MiB; None: no limit."""
    found = [
        limit
        for one in groups
        if one.controller in ("", "memory")
        for limit in _memory(read_text, one.folder, _V1 if one.controller else _V2)
    ]
    if not found:
        return None
    return min(limit for limit, _ in found), min(free for _, free in found)


def parse_groups(text: str) -> dict[str, str]:
    """Return controller -> group from /proc/self/cgroup; version 2 has the controller ""."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            groups.update(dict.fromkeys(parts[1].split(","), parts[2]))
    return groups


def parse_mounts(text: str) -> dict[str, tuple[str, str]]:
    """Return controller -> (root, mount point) from /proc/self/mountinfo.

    The root is the group that is seen at the mount point. The first mount of a controller wins.
    """
    mounts: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        mounted, separator, filesystem = line.partition(" - ")
        fields, kind = mounted.split(), filesystem.split()
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            mounts.setdefault("", (fields[3], fields[4]))
        elif kind[0] == "cgroup":
            for controller in kind[2].split(","):
                mounts.setdefault(controller, (fields[3], fields[4]))
    return mounts


def levels(group: str, root: str, mount: str) -> Iterator[str]:
    """Yield the folders from the process's own group up to the mount point."""
    inside = group.removeprefix(root.rstrip("/"))
    # A group outside the root, or "/../x" in a namespace of its own: only the top can be seen.
    names = [] if ".." in inside.split("/") else [name for name in inside.split("/") if name]
    for depth in range(len(names), -1, -1):
        yield "/".join([mount, *names[:depth]])


def _cpus(read_text: ReadText, group: Group) -> Iterator[float]:
    folder = group.folder
    quota, _, period = (read_text(f"{folder}/cpu.max") or "").partition(" ")
    if not quota:
        quota = read_text(f"{folder}/cpu.cfs_quota_us") or ""
        period = read_text(f"{folder}/cpu.cfs_period_us") or ""
    micros, per = whole_number(quota), whole_number(period)
    if micros and per:
        yield micros / per


def _memory(read_text: ReadText, folder: str, files: _Files) -> Iterator[tuple[float, float]]:
    limit = whole_number(read_text(f"{folder}/{files.memory_limit}"))
    if limit is None or limit >= _NO_LIMIT:
        return
    used = whole_number(read_text(f"{folder}/{files.memory_used}")) or 0
    statistics = read_text(f"{folder}/memory.stat") or ""
    found = re.search(rf"^{files.droppable} (\d+)$", statistics, re.MULTILINE)
    droppable = whole_number(found.group(1)) or 0 if found else 0
    free = min(limit, max(0, limit - max(0, used - droppable)))
    yield round(limit / _MIB, 1), round(free / _MIB, 1)
