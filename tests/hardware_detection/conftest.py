"""A machine that is not here, and a PyTorch whose GPUs are not here either."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hardware_detection import service
from hardware_detection.machine import CpuCounts, CpuTarget, Machine
from hardware_detection.process import Outcome
from hardware_detection.proofs.matrices import expected

Answer = Mapping[str, Any] | str | Outcome


class FakeMachine(Machine):
    """Answers from tables and records which children would have been started."""

    def __init__(
        self,
        *,
        platform: str = "linux",
        web: bool = False,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        packages: Iterable[str] = (),
        versions: Mapping[str, str] | None = None,
        programs: Mapping[str, Outcome] | None = None,
        proofs: Mapping[tuple[str, ...], Answer] | None = None,
    ) -> None:
        super().__init__(web=web)
        self.platform = platform
        self.environ = dict(environ or {})
        self.files = dict(files or {})
        self.packages = set(packages)
        self.versions = dict(versions or {})
        self.programs = dict(programs or {})
        self.proofs = dict(proofs or {})
        self.started: list[tuple[str, ...]] = []

    def read_text(self, path: str) -> str | None:
        return self.files.get(path)

    def exists(self, path: str) -> bool:
        return path in self.files

    def real_path(self, path: str) -> str:
        return path

    def stamp(self, path: str) -> list[int] | None:
        return [len(self.files[path]), 0] if path in self.files else None

    def listdir(self, path: str) -> list[str]:
        inside = (name[len(path) + 1 :] for name in self.files if name.startswith(f"{path}/"))
        return sorted({name.split("/")[0] for name in inside})

    def package_file(self, package: str, name: str) -> str | None:
        return f"/site/{package}/{name}" if package in self.packages else None

    def has_package(self, package: str) -> bool:
        return package in self.packages

    def package_version(self, distribution: str) -> str | None:
        return self.versions.get(distribution)

    def which(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program in self.programs else None

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float = 10.0,
        environ: Mapping[str, str] | None = None,
    ) -> Outcome:
        self.started.append(tuple(argv))
        return self.programs[Path(argv[0]).name]

    def prove(self, *arguments: str) -> Outcome:
        self.started.append(arguments)
        answer = self.proofs[arguments]
        if isinstance(answer, Outcome):
            return answer
        return finished(answer if isinstance(answer, str) else json.dumps(answer))

    def host_memory_mb(self) -> tuple[float, float]:
        return 16384.0, 8192.0

    def cpu_counts(self) -> CpuCounts:
        return CpuCounts(4, 8, 6, 1)

    def cpu_target(self) -> CpuTarget:
        return CpuTarget("zen4", frozenset({"avx2"}))

    def cpu_name(self) -> str | None:
        return None

    def architecture(self) -> str:
        return "x86_64"


def finished(stdout: str = "", returncode: int = 0, stderr: str = "") -> Outcome:
    return Outcome("finished", returncode, stdout, stderr, 0.1)


def torch_files(*, cuda: str | None = None, hip: str | None = None) -> dict[str, str]:
    """Return the version.py of a PyTorch build."""
    text = f"__version__ = '2.13.0'\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = {hip!r}\n"
    return {"/site/torch/version.py": text}


def gpu_row(index: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a device as a proof's child answers it, with correct results."""
    return {
        "index": index,
        "name": "Fake GPU",
        "memory_total_mb": 81920.0,
        "memory_free_mb": 80000.0,
        "results": {"fp32": list(expected()), "fp16": list(expected())},
        "facts": {"compute_capability": "9.0", "uuid": f"GPU-{index}"},
        **changes,
    }


def answer(*rows: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    return {"devices": list(rows), "facts": facts}


class Tools:
    """The helpers above, for tests: test files cannot import a conftest."""

    machine = FakeMachine
    finished = staticmethod(finished)
    torch_files = staticmethod(torch_files)
    gpu_row = staticmethod(gpu_row)
    answer = staticmethod(answer)


@pytest.fixture
def fake() -> type[Tools]:
    return Tools


@pytest.fixture
def empty_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Make detection look at a machine with nothing; returns how often one was detected."""
    from hardware_detection import detection

    detections: list[Machine] = []
    really_detect = detection.detect

    def counting(machine: Machine) -> Any:
        detections.append(machine)
        return really_detect(machine)

    monkeypatch.setattr(service, "Machine", FakeMachine)
    monkeypatch.setattr(detection, "detect", counting)
    return lambda: len(detections)


_FAKE_TORCH = """
import os

_FAULT = os.environ.get("FAKE_TORCH_FAULT", "")
if _FAULT == "raises":
    raise ImportError("libcudart.so.12: cannot open shared object file\\nmore lines")
if _FAULT == "segfault":
    import signal
    os.kill(os.getpid(), signal.SIGSEGV)
if _FAULT == "hang":
    import threading
    threading.Event().wait()
if _FAULT == "exit":
    os._exit(7)

from torch import version
__version__ = version.__version__
float32, bfloat16, float16, int8 = "float32", "bfloat16", "float16", "int8"


class device:
    def __init__(self, type, index=None):
        self.type, self.index = type, index


class Tensor:
    def __init__(self, rows, type="cpu"):
        self.rows, self.device = rows, device(type)

    def to(self, where):
        return Tensor(self.rows, where.type) if isinstance(where, device) else self

    def __matmul__(self, other):
        columns = list(zip(*other.rows))
        rows = [[sum(a * b for a, b in zip(r, c)) for c in columns] for r in self.rows]
        if _FAULT == "wrong":
            rows[3][5] += 1
        return Tensor(rows, self.device.type)

    def cpu(self):
        return Tensor(self.rows)

    def flatten(self):
        return Flat([value for row in self.rows for value in row])


class Flat(list):
    def tolist(self):
        return list(map(float, self))


def tensor(rows, dtype=None):
    return Tensor(rows)


def _int_mm(left, right):
    raise RuntimeError("int8 is not supported on this fake")


class cuda:
    @staticmethod
    def device_count():
        return 0 if _FAULT == "none" else 2

    @staticmethod
    def get_device_properties(index):
        if _FAULT == "second broken" and index == 1:
            raise RuntimeError("CUDA error: ECC\\nmore lines")
        return type("P", (), {
            "name": "Fake H100", "total_memory": 80 << 30, "major": 9, "minor": 0,
            "multi_processor_count": 132, "uuid": f"uuid-{index}",
        })

    @staticmethod
    def mem_get_info(index):
        return 79 << 30, 80 << 30


class xpu:
    @staticmethod
    def device_count():
        return 1

    @staticmethod
    def get_device_properties(index):
        return type("P", (), {
            "name": "Intel Arc", "total_memory": 16 << 30, "driver_version": "1.6",
        })

    @staticmethod
    def mem_get_info(index):
        raise RuntimeError("not supported by this driver")


class accelerator:
    @staticmethod
    def current_accelerator():
        return device("xpu")
"""


@pytest.fixture
def fake_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Machine]:
    """Return a function: kind of fault -> a machine whose children import a fake PyTorch."""
    package = tmp_path / "vendor" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_FAKE_TORCH)
    (package / "version.py").write_text(
        "__version__ = '9.9'\ncuda = '13.0'\nhip = None\nxpu = '2025'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))

    class WithFakeDriver(Machine):
        def exists(self, path: str) -> bool:
            return path == "/dev/nvidiactl"

        def package_file(self, name: str, file: str) -> str | None:
            return str(package / file)

        def has_package(self, name: str) -> bool:
            return False

        def which(self, program: str) -> str | None:
            return None

    def build(fault: str) -> Machine:
        monkeypatch.setenv("FAKE_TORCH_FAULT", fault)
        return WithFakeDriver(proof_deadline_s=0.3 if fault == "hang" else 60.0)

    return build
