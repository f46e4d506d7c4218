"""The environment variables that change what a machine can compute on, and their conflicts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from hardware_detection.parsing import parse_visible_devices, whole_number

#: Every variable that influences detection or what runs on what was detected -> what it does.
RELEVANT = {
    "CUDA_VISIBLE_DEVICES": "which NVIDIA (and, with ROCm, AMD) GPUs are seen, and in what order",
    "CUDA_DEVICE_ORDER": "how CUDA numbers the GPUs",
    "NVIDIA_VISIBLE_DEVICES": "which NVIDIA GPUs a container was given",
    "HIP_VISIBLE_DEVICES": "which AMD GPUs are seen",
    "ROCR_VISIBLE_DEVICES": "which AMD GPUs the ROCm runtime shows",
    "GPU_DEVICE_ORDINAL": "which AMD GPUs are seen, by its older name",
    "HSA_OVERRIDE_GFX_VERSION": "as which architecture an AMD GPU presents itself",
    "PYTORCH_ENABLE_MPS_FALLBACK": "whether operations that MPS lacks run on the CPU",
    "PYTORCH_MPS_HIGH_WATERMARK_RATIO": "how much memory MPS may take",
    "PYTORCH_CUDA_ALLOC_CONF": "how PyTorch allocates GPU memory",
    "PYTORCH_ALLOC_CONF": "how PyTorch allocates GPU memory, by its newer name",
    "ZE_AFFINITY_MASK": "which Intel GPUs are seen",
    "ZE_FLAT_DEVICE_HIERARCHY": "whether an Intel GPU of several tiles counts as several",
    "ONEAPI_DEVICE_SELECTOR": "which devices Intel's runtimes show",
    "PJRT_DEVICE": "which device torch_xla uses",
    "TPU_VISIBLE_CHIPS": "which TPU chips are seen",
    "QNN_SDK_ROOT": "where the QNN SDK is",
    "OMP_NUM_THREADS": "how many threads a computation on the CPU takes",
    "MKL_NUM_THREADS": "how many threads MKL takes",
    "ATEN_CPU_CAPABILITY": "which CPU extensions PyTorch uses",
    "RP_BROWSER": "which browser is asked for WebGPU and WebNN",
    "WEBNN_SIMULATION_ENABLED": "declares a simulation of WebNN",
    "WEBGPU_SIMULATION_ENABLED": "declares a simulation of WebGPU",
    "QNN_SIMULATION_ENABLED": "declares a simulation of Qualcomm's processor",
}

_SIMULATIONS = tuple(name for name in RELEVANT if name.endswith("_SIMULATION_ENABLED"))


def is_on(value: str | None) -> bool:
    """Whether a switch in the environment is on: "0", "false", "no", "off" and "" are not."""
    return (value or "").strip().lower() not in {"", "0", "false", "no", "off"}


def relevant(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of RELEVANT that are set."""
    return {name: environ[name] for name in RELEVANT if name in environ}


def conflicts(
    environ: Mapping[str, str], *, platform: str, cpu_count: int | None = None
) -> list[str]:
    """Return a sentence for each setting that hides hardware, contradicts another or is idle.

    Args:
        environ: the environment.
        platform: as ``sys.platform``.
        cpu_count: logical cores; this machine's by default.
    """
    cores = cpu_count or os.cpu_count() or 1
    return [
        *_visibility(environ),
        *_threads(environ, cores),
        *_mps(environ, platform),
        *(
            f"{name} declares a simulation: it runs on the CPU and is never shown as available"
            for name in _SIMULATIONS
            if is_on(environ.get(name))
        ),
    ]


def _visibility(environ: Mapping[str, str]) -> Iterator[str]:
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        if name in environ:
            yield from _one_visibility(name, environ[name])
    cuda, hip = environ.get("CUDA_VISIBLE_DEVICES"), environ.get("HIP_VISIBLE_DEVICES")
    if cuda is not None and hip is not None and cuda != hip:
        yield (
            f"CUDA_VISIBLE_DEVICES={cuda!r} and HIP_VISIBLE_DEVICES={hip!r} differ,"
            " and ROCm reads both; set only one"
        )
    if "ROCR_VISIBLE_DEVICES" in environ and (hip is not None or cuda is not None):
        yield (
            "ROCR_VISIBLE_DEVICES filters first and renumbers, and the other *_VISIBLE_DEVICES"
            " count what is left; set only one"
        )
    if environ.get("NVIDIA_VISIBLE_DEVICES") in {"", "void", "none"}:
        yield "NVIDIA_VISIBLE_DEVICES keeps every GPU out of this container"


def _one_visibility(name: str, value: str) -> Iterator[str]:
    listed = [part.strip() for part in value.split(",")]
    visible = parse_visible_devices(value)
    if not visible:
        yield f"{name}={value!r} hides every GPU"
    elif len(visible) < len(listed):
        yield f"{name}={value!r}: {listed[len(visible)]!r} and what follows it are ignored"
    if len(set(visible)) < len(visible):
        yield f"{name}={value!r} names a GPU twice, and then none is seen"


def _threads(environ: Mapping[str, str], cores: int) -> Iterator[str]:
    omp, mkl = environ.get("OMP_NUM_THREADS"), environ.get("MKL_NUM_THREADS")
    if omp is not None and mkl is not None and omp != mkl:
        yield f"OMP_NUM_THREADS={omp} and MKL_NUM_THREADS={mkl} differ; set only one"
    for name, value in (("OMP_NUM_THREADS", omp), ("MKL_NUM_THREADS", mkl)):
        threads = whole_number((value or "").split(",")[0])
        if threads is not None and threads > cores:
            yield f"{name}={value} asks for more threads than the {cores} cores that are here"


def _mps(environ: Mapping[str, str], platform: str) -> Iterator[str]:
    if not is_on(environ.get("PYTORCH_ENABLE_MPS_FALLBACK")):
        return
    if platform == "darwin":
        yield (
            "PYTORCH_ENABLE_MPS_FALLBACK lets operations run on the CPU unnoticed;"
            " what runs on MPS is then slower than it looks"
        )
    else:
        yield "PYTORCH_ENABLE_MPS_FALLBACK has no effect here: MPS is part of macOS"
