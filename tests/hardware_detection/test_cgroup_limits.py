"""A container's limits are the truth about cores and memory where they are below the host's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection.cgroups import (
    GROUPS_FILE,
    MOUNTS_FILE,
    Limits,
    levels,
    parse_groups,
    parse_mounts,
    read_limits,
)
from hardware_detection.detection import detect
from hardware_detection.machine import Machine
from hardware_detection.probes import cpu
from hardware_detection.report import report_now

GIB = 1 << 30
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)
NO_LIMIT_V1 = "9223372036854771712\n"


def v2(group: str = "/", **files: str) -> dict[str, str]:
    """Return the files of a version 2 hierarchy; ``__`` is "/" and ``_`` is "." in their names."""
    inside = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    return {
        GROUPS_FILE: f"0::{group}\n",
        MOUNTS_FILE: V2_MOUNT,
        **{f"/sys/fs/cgroup/{name}": text for name, text in inside.items()},
    }


def v1(memory: Mapping[str, str], cpu_files: Mapping[str, str], mounts: str) -> dict[str, str]:
    return {
        GROUPS_FILE: "3:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n1:name=systemd:/x\n0::/\n",
        MOUNTS_FILE: mounts,
        **{f"/sys/fs/cgroup/memory/{name}": text for name, text in memory.items()},
        **{f"/sys/fs/cgroup/cpu/{name}": text for name, text in cpu_files.items()},
    }


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({}, Limits()),
        (v2(), Limits()),
        (v2(cpu_max="max 100000\n", memory_max="max\n"), Limits()),
        (v2(cpu_max="150000 100000\n"), Limits(cpus=1.5)),
        (
            v2(
                memory_max=f"{2 * GIB}\n",
                memory_current=f"{GIB}\n",
                memory_stat=f"anon 5\ninactive_file {GIB // 2}\n",
            ),
            Limits(None, 2048.0, 1536.0),
        ),
        # Without the use, all of it counts as free; more use than the limit leaves nothing.
        (v2(memory_max=f"{GIB}\n"), Limits(None, 1024.0, 1024.0)),
        (v2(memory_max=f"{GIB}\n", memory_current=f"{2 * GIB}\n"), Limits(None, 1024.0, 0.0)),
        # The strictest level counts, whichever it is.
        (
            v2("/a/b", a__b__memory_max="max\n", a__memory_max=f"{GIB}\n", cpu_max="100000 100000"),
            Limits(1.0, 1024.0, 1024.0),
        ),
        # Outside of what is mounted: only the top is seen.
        (v2("/../other", memory_max=f"{GIB}\n"), Limits(None, 1024.0, 1024.0)),
        (v2(cpu_max="nonsense", memory_max="-5", memory_current="x"), Limits()),
        (v2(cpu_max="", memory_max=""), Limits()),
        (v2(cpu_max="50000 0\n"), Limits()),
        (
            v1({"memory.limit_in_bytes": NO_LIMIT_V1}, {"cpu.cfs_quota_us": "-1\n"}, V1_MOUNTS),
            Limits(),
        ),
        (
            v1(
                {
                    "docker/ab/memory.limit_in_bytes": f"{GIB}\n",
                    "docker/ab/memory.usage_in_bytes": f"{GIB // 2}\n",
                    "docker/ab/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 4}\n",
                    "memory.limit_in_bytes": NO_LIMIT_V1,
                },
                {"docker/ab/cpu.cfs_quota_us": "200000", "docker/ab/cpu.cfs_period_us": "100000"},
                V1_MOUNTS,
            ),
            Limits(2.0, 1024.0, 768.0),
        ),
        # Inside a container the mount shows the container's own group as its root.
        (
            v1(
                {"memory.limit_in_bytes": f"{GIB}\n"},
                {},
                V1_MOUNTS.replace(" / /sys", " /docker/ab /sys"),
            ),
            Limits(None, 1024.0, 1024.0),
        ),
    ],
    ids=range(15),
)
def test_limits(files: Mapping[str, str], limits: Limits) -> None:
    assert read_limits(files.get) == limits


def test_levels_go_up_to_the_mount() -> None:
    assert list(levels("/a/b", "/", "/m")) == ["/m/a/b", "/m/a", "/m"]
    assert list(levels("/a/b", "/a", "/m")) == ["/m/b", "/m"]
    assert list(levels("/", "/", "/m")) == ["/m"]


@given(st.text(), st.text(), st.text())
def test_no_text_breaks_the_reading(groups: str, mounts: str, content: str) -> None:
    parse_groups(groups)
    parse_mounts(mounts)
    texts = {GROUPS_FILE: f"0::/\n{groups}", MOUNTS_FILE: V2_MOUNT + mounts}
    limits = read_limits(lambda path: texts.get(path, content))
    assert all(value is None or value >= 0 for value in limits)


def test_the_machine_says_what_a_container_may_have(fake: Any) -> None:
    used = {"memory_current": f"{3 * GIB}\n", "memory_stat": f"inactive_file {GIB}\n"}
    files = v2(memory_max=f"{4 * GIB}\n", cpu_max="50000 100000\n", **used)
    machine = fake.machine(files=files)
    assert machine.memory_mb() == (4096.0, 2048.0)
    assert machine.usable_cpus() == 1
    result = cpu.probe(machine)
    assert result.facts["cpu_limit"] == 0.5
    assert result.facts["memory_limit_mb"] == 4096.0
    assert result.devices[0].memory_total_mb == 4096.0


@pytest.mark.parametrize(
    ("files", "planned"),
    [
        ({}, (6, None, 16384.0, 8192.0, None)),
        (
            v2(memory_max=f"{4 * GIB}\n", memory_current=f"{GIB}\n", cpu_max="150000 100000\n"),
            (2, 1.5, 4096.0, 3072.0, 4096.0),
        ),
        # A limit above what the host has limits nothing, and is told all the same.
        (v2(memory_max=f"{64 * GIB}\n"), (6, None, 16384.0, 8192.0, 65536.0)),
    ],
)
def test_the_report_says_what_to_plan_with(
    fake: Any, files: Mapping[str, str], planned: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Six(fake.machine):  # type: ignore[misc, name-defined]
        def cpu_counts(self) -> Any:
            return super().cpu_counts()._replace(usable=min(6, self.usable_cpus() or 6))

    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(6), raising=False)
    machine = Six(files=files)
    system = report_now(detect(machine), machine, from_cache=False)["system"]
    keys = ("cpu_count", "cpu_limit", "memory_total_mb", "memory_available_mb", "memory_limit_mb")
    assert tuple(system[key] for key in keys) == planned


def test_a_limit_above_the_hosts_memory_is_none(fake: Any) -> None:
    machine = fake.machine(files=v2(memory_max=f"{64 * GIB}\n"))
    assert machine.memory_mb() == machine.host_memory_mb()


def test_the_host_may_have_less_left_than_the_container_may_take(fake: Any) -> None:
    machine = fake.machine(files=v2(memory_max=f"{12 * GIB}\n", memory_current="0\n"))
    assert machine.memory_mb() == (12288.0, 8192.0)


def test_here_the_answer_is_possible() -> None:
    machine = Machine()
    total, available = machine.memory_mb()
    host, _ = machine.host_memory_mb()
    assert 0 <= available <= total <= host
    assert 1 <= (machine.usable_cpus() or 0) <= (os.cpu_count() or 1)
