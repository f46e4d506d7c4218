"""Fakes for tests of code that uses the pool, and of the pool: hardware that is not here.

    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})       # MiB
    pool = machine.pool()
    model = pool.get_model("embedding", "m", constructor=machine.loader(60))

The fakes look like the real parts (``resource_pool.devices.Devices``, a detection report), so
that the pool under test is the real one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from resource_pool._pool import ResourcePool
from resource_pool.devices import Memory

MIB = 1024 * 1024
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class OutOfFakeMemoryError(RuntimeError):
    """What a fake device raises when it has no room, as CUDA would."""


class FakeClock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass without waiting."""
        self.now += seconds


class FakeModel:
    """A model of a given size in float32 that lives on a fake device until it is collected.

    With a ``body``, another such model, which several may have in common, it is a head of that
    size on it.
    """

    def __init__(self, machine: FakeMachine, mib: float, body: FakeModel | None = None) -> None:
        self.machine = machine
        # As a torch module has them: whoever holds the body holds a part of this model.
        self._parameters: dict[str, Any] = {}
        self._modules = {"body": body}
        self.elements = int(mib * MIB / 4)
        self.dtype = "float32"
        self.sizes: dict[str, int] = {}
        self.training = False
        machine.devices.put(self, {"cpu": self.elements * 4})

    @property
    def parts(self) -> list[FakeModel]:
        """Itself, and its body where it has one."""
        body = self._modules["body"]
        return [self, *(body.parts if body else ())]

    @property
    def device(self) -> str:
        """Where it is; several devices joined by "+"."""
        return "+".join(sorted({name for part in self.parts for name in part.sizes}))


class FakeDevices:
    """Devices with memory that a test sets, in the place of torch's.

    Attributes:
        leaks: devices whose memory does not come back when a model goes.
        broken: device -> an error that every placement there raises.
    """

    def __init__(self, totals: Mapping[str, int]) -> None:
        self.totals = dict(totals)
        self.leaks: set[str] = set()
        self.broken: dict[str, Exception] = {}
        self.released: list[tuple[str, ...]] = []
        self._used: dict[str, int] = {}
        self._lock = threading.RLock()  # guards _used; a finalizer may run at any moment

    def put(self, model: FakeModel, sizes: Mapping[str, int]) -> None:
        """Allocate a model's memory anew, in bytes per device.

        Raises:
            OutOfFakeMemoryError: there is no room; nothing has changed.
        """
        with self._lock:
            for device, size in sizes.items():
                room = self.totals[device] - self._used.get(device, 0)
                if size - model.sizes.get(device, 0) > room:
                    raise OutOfFakeMemoryError(
                        f"{device} out of memory. Tried to allocate {size} bytes, {room} free"
                    )
            self._free(model.sizes)
            for device, size in sizes.items():
                self._used[device] = self._used.get(device, 0) + size
            if not model.sizes:
                weakref.finalize(model, self._free, model.sizes).atexit = False
            model.sizes.clear()
            model.sizes.update(sizes)

    def _free(self, sizes: Mapping[str, int]) -> None:
        with self._lock:
            for device, size in sizes.items():
                self._used[device] -= 0 if device in self.leaks else size

    # -- what the pool calls -------------------------------------------------------------

    def memory(self, device: str) -> Memory | None:
        """Return the memory of a device that exists."""
        total = self.totals.get(device)
        if total is None:
            return None
        with self._lock:
            return Memory(total, total - self._used.get(device, 0))

    def survey(self, model: Any) -> None:  # noqa: ARG002
        """Return nothing: all about a fake model is known."""
        return

    def is_movable(self, model: Any) -> bool:
        """Whether it is a fake model on one device."""
        parts = self.parts(model)
        return bool(parts) and all(len(part.sizes) == 1 for part in parts)

    def place(self, model: Any, device: str, dtype: str | None, seen: Any = None) -> str:  # noqa: ARG002
        """Move and cast a fake model; other objects are left alone."""
        if not self.is_movable(model):
            return "it is not a fake model on one device"
        if device in self.broken:
            raise self.broken[device]
        for part in model.parts:
            self._place(part, device, dtype or part.dtype)
        return ""

    def _place(self, part: FakeModel, device: str, dtype: str) -> None:
        if _DTYPE_BYTES[dtype] < _DTYPE_BYTES[part.dtype]:
            self._cast(part, dtype)
        self.put(part, {device: part.elements * _DTYPE_BYTES[part.dtype]})
        self._cast(part, dtype)

    def _cast(self, part: FakeModel, dtype: str) -> None:
        self.put(part, dict.fromkeys(part.sizes, part.elements * _DTYPE_BYTES[dtype]))
        part.dtype = dtype

    def spread(self, model: Any, budgets: Mapping[str, int], dtype: str | None) -> Any:
        """Fill the devices in their order."""
        model.dtype = dtype or model.dtype
        rest = model.elements * _DTYPE_BYTES[model.dtype]
        sizes: dict[str, int] = {}
        for device, budget in budgets.items():
            sizes[device] = min(rest, budget)
            rest -= sizes[device]
        self.put(model, {device: size for device, size in sizes.items() if size})
        return model

    def describe(self, model: Any, seen: Any = None) -> dict[str, Any]:  # noqa: ARG002
        """Return where a model is and what it takes."""
        sizes: dict[str, int] = {}
        for (device, _), size in self.places(model).items():
            sizes[device] = sizes.get(device, 0) + size
        return {
            "device": "+".join(sorted(sizes)) or "unknown",
            "dtype": model.dtype if sizes else "unknown",
            "memory_usage": sum(sizes.values()),
            "memory_estimation_method": "fake" if sizes else "unknown",
            "sizes": sizes,
        }

    def parts(self, model: Any, seen: Any = None) -> list[Any]:  # noqa: ARG002
        """Return the model itself, which moves as a whole, and its body."""
        return model.parts if isinstance(model, FakeModel) else []

    def storages(self, model: Any) -> dict[tuple[str, int], Any]:
        """Return the model itself: it holds its memory."""
        parts = self.parts(model)
        return {(device, id(part)): part for part in parts for device in part.sizes}

    def places(self, model: Any, seen: Any = None) -> dict[tuple[str, int], int]:  # noqa: ARG002
        """Return what fake models take."""
        return {
            (device, id(part)): size
            for part in self.parts(model)
            for device, size in part.sizes.items()
        }

    def would_change(self, model: Any, device: str, dtype: str | None) -> bool:
        """Whether placing it would move or cast it."""
        return self.is_movable(model) and any(
            part.device != device or dtype not in (None, part.dtype) for part in model.parts
        )

    def release(self, devices: Sequence[str]) -> None:
        """Note that the caches of these devices were emptied."""
        self.released.append(tuple(devices))

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a fake device, or Python, had no memory left."""
        return isinstance(error, OutOfFakeMemoryError | MemoryError)

    def fingerprint(self, model: Any) -> Mapping[str, Hashable]:
        """Return what a test can change about a fake model."""
        if not isinstance(model, FakeModel):
            return {}
        return {"training": model.training, "dtype": model.dtype, "device": model.device}


class FakeSystem:
    """RAM as the upkeep sees it, plenty unless a test says otherwise.

    Attributes:
        ram: in bytes; None where it cannot be read.
        container: the limit of a container and what is left of it, in bytes.
    """

    def __init__(self) -> None:
        self.ram: Memory | None = Memory(64 * 1024 * MIB, 48 * 1024 * MIB)
        self.container: Memory | None = None

    def memory(self) -> Memory | None:
        """Return the RAM, within the container's limit."""
        return self.container or self.ram

    def container_memory(self) -> Memory | None:
        """Return the container's."""
        return self.container


class FakeMachine:
    """A machine with devices of the given sizes, in MiB: {"cpu": 1000, "cuda:0": 100}."""

    def __init__(self, mib: Mapping[str, float], dtypes: Sequence[str] = ("fp32", "fp16")) -> None:
        self.devices = FakeDevices({name: int(size * MIB) for name, size in mib.items()})
        self.dtypes = list(dtypes)
        self.clock = FakeClock()
        self.system = FakeSystem()
        self.loads: list[float] = []

    def report(self) -> dict[str, Any]:
        """Return a detection report of this machine."""
        from hardware_detection.testing import fake_report

        gpus = [name for name in self.devices.totals if name.startswith("cuda:")]
        described = [{"name": name, **self._described(name)} for name in sorted(gpus)]
        return fake_report(cuda=described)

    def pool(self, **options: Any) -> ResourcePool:
        """Return a pool on this machine; ``options`` go to :class:`ResourcePool`."""
        mine: dict[str, Any] = {
            "hardware": self.report,
            "devices": self.devices,
            "estimate": lambda *_: None,
            "clock": self.clock,
            "system": self.system,
        }
        pool = ResourcePool(**{**mine, **options})
        pool._evictor._sleep = self.clock.sleep
        return pool

    def loader(self, mib: float, seconds: float = 1.0) -> Callable[[], FakeModel]:
        """Return a constructor of a model of this size that takes ``seconds`` on the clock."""

        def load() -> FakeModel:
            self.loads.append(mib)
            self.clock.now += seconds
            return FakeModel(self, mib)

        return load

    def _described(self, name: str) -> dict[str, Any]:
        memory = self.devices.memory(name)
        assert memory is not None  # noqa: S101 - every device of this machine has a size
        return {
            "memory_total_mb": memory.total / MIB,
            "memory_free_mb": memory.free / MIB,
            "dtypes": self.dtypes,
        }
