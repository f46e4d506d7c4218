"""What a plan is made of: what is asked for, what there is, what was decided, devices' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from resource_pool._eviction import MIB, Candidate
from resource_pool._hardware import CPU, CUDA, MPS, OPENVINO, ROCM, WEBGPU, WEBNN, XPU
from resource_pool._preferences import DeviceName, Preferences
from resource_pool.devices import Memory

# The backends that the pool can put a torch module on, with what their devices' names begin with;
# torch's name of the device type, where torch has one.
DEVICE_TYPES = {
    CPU: "cpu", CUDA: "cuda", ROCM: "cuda", XPU: "xpu", MPS: "mps", OPENVINO: "openvino",
    WEBGPU: "webgpu", WEBNN: "webnn",
}  # fmt: skip
BROWSERS = (WEBGPU, WEBNN)
# Those that take a module's forward, in float32 of their own, and RAM.
ENGINES = (OPENVINO, *BROWSERS)


@dataclass(frozen=True)
class Request:
    """What is asked for, and what is known about the model.

    Attributes:
        family_priority: backends, best first, for a request without a device or a list.
        barred: backend -> reason, for the backends that do not suit the family; they are
            not chosen automatically, and tried with a warning when the caller names one.
        browsers: the browsers' interfaces, best first for the family.
        needed: bytes that the model will take, by torch's name of the dtype (None: its own);
            returns None where that is not known.
    """

    label: str
    preferences: Preferences
    family_priority: tuple[str, ...] = (CPU,)
    barred: Mapping[str, str] | None = None
    browsers: tuple[str, ...] = BROWSERS
    needed: Callable[[str | None], int | None] | None = None

    def needing(self, size: int) -> Request:
        """Return the same request with bytes that the caller knows, whatever the dtype."""
        return replace(self, needed=lambda _: size)


@dataclass(frozen=True)
class Snapshot:
    """The machine and the pool at one moment.

    Attributes:
        report: a detection report.
        free: torch device -> bytes that a new model could take there now.
        idle: torch device -> the models there that may go.
        held: torch device -> what takes the rest, in words, for an error message.
        failed: torch device -> why it is passed over: it, or this model on it, failed.
        can_spread: whether accelerate is here, which spreads a model over several GPUs.
        can_simulate: whether onnxruntime is here, which stands in for browsers.
        crowded: torch device -> why it takes no more models but those that are forced there.
        cached: (torch device, dtype) of the instances of this model that are here already.
    """

    report: Mapping[str, Any]
    free: Mapping[str, int] = field(default_factory=dict)
    idle: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    can_spread: bool = False
    can_simulate: bool = False
    crowded: Mapping[str, str] = field(default_factory=dict)
    cached: frozenset[tuple[str, str | None]] = frozenset()


@dataclass(frozen=True)
class Decision:
    """Where the model goes.

    Attributes:
        backend: rp's name of the hardware, e.g. "rocm".
        device: torch's name, e.g. "cuda:0".
        dtype: torch's name of the dtype to cast to, or None to keep the constructor's.
        notes: why it is not what was asked for, one sentence each; empty when it is.
        evict: the keys of the models that must go first.
        needed: the bytes that it was planned with; None where they are not known.
        spread: the devices and the bytes on each, for a model that fits no single one.
        surprising: whether the caller named a device that it is not, which deserves a warning;
            that the first of a list is not here is what lists are for.
        cached: whether it is the place of an instance that is here, whatever room there is.
    """

    backend: str
    device: str
    dtype: str | None
    notes: tuple[str, ...] = ()
    evict: tuple[str, ...] = ()
    needed: int | None = None
    spread: Mapping[str, int] | None = None
    surprising: bool = False
    cached: bool = False

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices on which it will be: one, or those that it is spread over."""
        return tuple(self.spread or (self.device,))


def torch_devices(report: Mapping[str, Any]) -> dict[str, Memory | None]:
    """Return the torch devices of a report with the memory that it knows, the CPU always."""
    found: dict[str, Memory | None] = {CPU: None}
    for backend in DEVICE_TYPES:
        if backend in (CPU, *ENGINES) or not report["hardware"].get(backend):
            continue
        for device in report.get("details", {}).get(backend, {}).get("devices", ()):
            name = torch_name(DeviceName(backend, device["index"]))
            total, free = device.get("memory_total_mb"), device.get("memory_free_mb")
            known = total is not None and free is not None and device.get("dtypes")
            found[name] = Memory(int(total * MIB), int(free * MIB)) if known else None
    return found


def torch_name(device: DeviceName) -> str:
    """Return torch's name of a device, or one of the same kind where torch has none."""
    kind = DEVICE_TYPES[device.backend]
    if device.simulated:
        return str(device)
    return kind if device.index is None or kind in (CPU, MPS) else f"{kind}:{device.index}"


def is_on(device: str, hardware: str) -> bool:
    """Whether torch's ``device`` ("cuda:1") is what ``hardware`` names ("rocm", "cuda:1")."""
    backend, _, index = hardware.partition(":")
    kind = DEVICE_TYPES.get(backend, backend)
    return device == (f"{kind}:{index}" if index else kind) or (
        not index and device.startswith(f"{kind}:")
    )


def memory_place(device: str) -> str:
    """Return the device whose memory a model takes on ``device``: RAM for other engines'."""
    return CPU if device.partition(":")[0] in ENGINES else device


def readable(size: int) -> str:
    """Return bytes as people read them: "512.0 MiB", "9.1 GiB"."""
    return f"{size / MIB:.1f} MiB" if size < 1024 * MIB else f"{size / MIB / 1024:.1f} GiB"
