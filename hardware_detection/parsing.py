"""Parsers of texts that the system and vendors' tools write; getting the text is done elsewhere."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hardware_detection.record import Device

NVIDIA_DRIVER_FILE = "/proc/driver/nvidia/version"
AMD_DRIVER_FILE = "/sys/module/amdgpu/version"
MEMORY_FILE = "/proc/meminfo"
CPUINFO_FILE = "/proc/cpuinfo"

#: What nvidia-smi is asked for. The last two are unknown to older drivers (before about 500 and
#: 450), which then refuse the whole query and name the field.
NVIDIA_SMI_FIELDS = (
    "index",
    "uuid",
    "name",
    "memory.total",
    "memory.free",
    "driver_version",
    "compute_cap",
    "mig.mode.current",
)

# The flags in /proc/cpuinfo that extend arithmetic; the others are about the kernel and caches.
_ARITHMETIC_FLAG = re.compile(
    r"(mmx|sse\d|ssse3|avx|amx|fma|f16c|asimd|sve|sme(?!p)|i8mm|bf16|neon|fphp|gfni)\w*"
)


def parse_cpuinfo(text: str) -> tuple[str | None, frozenset[str]]:
    """Return the model name and the arithmetic extensions that /proc/cpuinfo lists.

    x86 says "model name" and "flags", Arm says "Features" and no name.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    flags = f"{fields.get('flags', '')} {fields.get('features', '')}".split()
    return fields.get("model name") or None, frozenset(filter(_ARITHMETIC_FLAG.fullmatch, flags))


def parse_sockets(text: str) -> int | None:
    """Return how many CPU sockets /proc/cpuinfo tells of; None where it does not (Arm)."""
    return len(set(re.findall(r"^physical id\s*: (\d+)$", text, re.MULTILINE))) or None


def parse_meminfo(text: str) -> tuple[float, float] | None:
    """Return total and available memory in MiB from /proc/meminfo; None where it lacks them."""
    sizes = dict(re.findall(r"^(MemTotal|MemAvailable): +(\d+) kB$", text, re.MULTILINE))
    total, available = (whole_number(sizes.get(name)) for name in ("MemTotal", "MemAvailable"))
    if total is None or available is None:
        return None
    return round(total / 1024, 1), round(available / 1024, 1)


def parse_nvidia_driver(text: str) -> str | None:
    """Return the driver's version from /proc/driver/nvidia/version ("580.65.06"), or None."""
    _, _, after = text.partition("NVRM version:")
    words = (after.splitlines() or [""])[0].split()
    return next((word for word in words if re.fullmatch(r"\d+(\.\d+)+", word)), None)


def parse_nvidia_smi(
    text: str, fields: Sequence[str] = NVIDIA_SMI_FIELDS
) -> tuple[tuple[Device, ...], str | None]:
    """Return the GPUs, unproved, and the driver's version from a query for these fields.

    The query is ``nvidia-smi --query-gpu=FIELDS --format=csv,noheader,nounits``. Lines that are no
    rows (warnings, errors) are left out; what stands in brackets ("[N/A]") is unknown.
    """
    devices: list[Device] = []
    driver = None
    for line in text.splitlines():
        cells = [_known(cell) for cell in line.split(",")]
        row = dict(zip(fields, cells)) if len(cells) == len(fields) else {}  # noqa: B905 - equal
        index = whole_number(row.get("index"))
        if index is None:
            continue
        driver = driver or row.get("driver_version")
        devices.append(_nvidia_device(index, row))
    return tuple(devices), driver


def _nvidia_device(index: int, row: Mapping[str, str | None]) -> Device:
    facts: dict[str, Any] = {
        "uuid": row.get("uuid"),
        "compute_capability": row.get("compute_cap"),
    }
    mig = row.get("mig.mode.current")
    if mig is not None:
        facts["mig"] = {"enabled": mig == "Enabled", "instances": []}
    return Device(
        index=index,
        name=row.get("name") or "unknown",
        memory_total_mb=_number(row.get("memory.total")),
        memory_free_mb=_number(row.get("memory.free")),
        facts={key: value for key, value in facts.items() if value is not None},
    )


def parse_refused_field(text: str) -> str | None:
    """Return the field that nvidia-smi does not know and for which it refused the query."""
    found = re.search(r'Field "([\w.]+)" is not a valid field to query', text)
    return found.group(1) if found else None


def parse_nvidia_smi_list(text: str) -> dict[str, list[dict[str, str]]]:
    """Return each GPU's UUID -> its MIG instances (uuid, name) from ``nvidia-smi -L``."""
    found: dict[str, list[dict[str, str]]] = {}
    instances: list[dict[str, str]] = []
    for line in text.splitlines():
        row = re.fullmatch(
            r"(?:GPU \d+: .*|\s+(MIG \S+)\s+Device\s+\d+:) \(UUID: ([\w/-]+)\)\s*", line
        )
        if row and row.group(1):
            instances.append({"uuid": row.group(2), "name": row.group(1)})
        elif row:
            instances = found.setdefault(row.group(2), [])
    return found


def has_tensor_cores(name: str, compute_capability: str) -> bool | None:
    """Whether an NVIDIA GPU has tensor cores; None where the compute capability says nothing.

    They came with 7.0. The small Turing chips (TU116, TU117) are 7.5 too and have none; only
    their names tell.
    """
    major = whole_number(compute_capability.partition(".")[0])
    if major is None:
        return None
    small_turing = re.search(r"\b(GTX 16\d\d|MX[45]50|T[4568]00|T550|T1000|T1200)\b", name)
    return major >= 7 and not (compute_capability == "7.5" and small_turing)


def parse_rocminfo(text: str) -> tuple[Device, ...]:
    """Return the GPUs, unproved, that ``rocminfo`` lists, in its order."""
    gpus = [agent for agent in _agents(text) if agent.get("Device Type") == "GPU"]
    return tuple(_rocm_device(index, agent) for index, agent in enumerate(gpus))


def _agents(text: str) -> list[dict[str, str]]:
    """Return the facts of each agent; "Global" is the size of its first global memory pool."""
    agents: list[dict[str, str]] = []
    agent: dict[str, str] = {}  # what stands before the first one is not kept
    segment = ""
    for line in text.splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        if re.fullmatch(r"Agent \d{1,9}", name):
            agent, segment = {}, ""
            agents.append(agent)
        elif name == "Segment":
            segment = value
        elif name == "Size" and segment.startswith("GLOBAL"):
            agent.setdefault("Global", value)
        elif line.startswith("  ") and not line.startswith("   ") and value:
            agent.setdefault(name, value)
    return agents


def _rocm_device(index: int, agent: Mapping[str, str]) -> Device:
    uuid = agent.get("Uuid", "")
    kibibytes = whole_number(agent.get("Global", "").partition("(")[0])
    facts = {
        "gcn_arch": agent.get("Name"),
        # Consumer cards have none and say "GPU-XX".
        "uuid": None if uuid.endswith("-XX") else uuid or None,
    }
    return Device(
        index=index,
        name=agent.get("Marketing Name", "unknown"),
        memory_total_mb=None if kibibytes is None else round(kibibytes / 1024, 1),
        facts={key: value for key, value in facts.items() if value},
    )


def parse_kfd_node(text: str) -> str | None:
    """Return the architecture ("gfx90a") of a node of AMD's kernel driver; None for a CPU.

    ``text`` is /sys/class/kfd/kfd/topology/nodes/N/properties. gfx_target_version holds major,
    minor and stepping as decimal pairs; the last two are hexadecimal digits in the name
    (LLVM's AMDGPU processor names).
    """
    found = re.search(r"^gfx_target_version (\d+)$", text, re.MULTILINE)
    version = whole_number(found.group(1)) if found else None
    if not version:
        return None
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def parse_torch_version(text: str) -> dict[str, str | None]:
    """Return "version", "cuda", "hip" and "xpu" from torch/version.py, read as data and never run.

    None where the build has no such part, or the file does not say.
    """
    wanted = {"__version__": "version", "cuda": "cuda", "hip": "hip", "xpu": "xpu"}
    build: dict[str, str | None] = dict.fromkeys(wanted.values())
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return build
    for statement in statements:
        for name, value in _assigned(statement):
            if name in wanted:
                build[wanted[name]] = value
    return build


def parse_distributions(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield normalized name and version of each distribution whose metadata folder is listed.

    The folders' names are those of PyPA's "Recording installed projects", and of the older eggs.
    """
    for name in names:
        found = re.fullmatch(r"(.+?)-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info", name)
        if found:
            yield normalized(found.group(1)), found.group(2)


def normalized(distribution: str) -> str:
    """Return a distribution's name as PyPA's name normalization spells it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def parse_visible_devices(text: str) -> tuple[str, ...]:
    """Return the entries that count in CUDA_VISIBLE_DEVICES: up to the first that is invalid.

    The rule of the CUDA programming guide: what follows "-1" or an empty entry is not visible.
    """
    entries: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", entry):
            break
        entries.append(entry)
    return tuple(entries)


def whole_number(text: str | None) -> int | None:
    """Return the one whole number of a kernel's file; None for "max", "-1" and anything else."""
    found = re.fullmatch(r"\s*(\d{1,20})\s*", text or "", re.ASCII)
    return int(found.group(1)) if found else None


def _assigned(statement: ast.stmt) -> Iterable[tuple[str, str | None]]:
    value: Any = getattr(statement, "value", None)
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    if isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, str)):
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id, value.value


def _known(cell: str) -> str | None:
    text = cell.strip()
    return None if re.fullmatch(r"|N/A|ERR!|\[.*\]", text) else text


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
