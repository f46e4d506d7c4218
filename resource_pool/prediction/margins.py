"""How far a prediction may be off, as data: by method and backend, and where nothing is known.

On the CPU a trace is within 0.1 % of what the allocator gives out (benchmarks/prediction.py), and
its margin is for what the process takes beside that. On an H200 it was up to 3.4 % too low
(benchmarks/results/cuda-h200.txt): workspaces of libraries, blocks of 2 MiB. The margins of ROCm
and MPS are estimates until peaks are recorded there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from resource_pool._hardware import CPU, CUDA, MPS, ROCM
from resource_pool.prediction.result import Method

MIB = 2**20


class Margin(NamedTuple):
    """A fraction of the predicted peak, and bytes that are taken whatever the model is."""

    fraction: float
    fixed_bytes: int = 0


# A GPU's runtime loads its kernels into the device's memory: on an H200 with CUDA 13, 527 MiB for
# the context and 192 MiB at the first product.
_FIXED: Mapping[str, int] = {CPU: 0, CUDA: 768 * MIB, ROCM: 512 * MIB, MPS: 0}

_FRACTIONS: Mapping[Method, Mapping[str, float]] = {
    "recorded": {CPU: 0.02, CUDA: 0.02, ROCM: 0.02, MPS: 0.05},
    "trace": {CPU: 0.05, CUDA: 0.10, ROCM: 0.10, MPS: 0.15},
    "headroom": {CPU: 0.15, CUDA: 0.20, ROCM: 0.20, MPS: 0.25},
    "file_size": {CPU: 0.25, CUDA: 0.30, ROCM: 0.30, MPS: 0.35},
}

# Activations as a share of the weights, for one row of HEADROOM_TOKENS tokens or one image: the
# largest of the benchmark's models in each family, but for object detectors on large photos.
HEADROOM_TOKENS = 128
HEADROOM: Mapping[str, float] = {
    "embedding": 0.05,
    "text_generation": 0.10,
    "vision": 0.30,
    "audio": 0.40,
    "multimodal": 0.10,
    "unknown": 0.40,
}
FILE_SIZE_FACTOR = 1.2

# Fewer recorded errors say nothing about the worst one.
_ENOUGH = 10
_LEAST = 0.01
_QUANTILE = 0.95


def margin(method: Method, backend: str, errors: Sequence[float] = ()) -> Margin:
    """Return the margin of a method on a backend.

    Args:
        method: how the prediction was made.
        backend: hardware name; one that is not in the table counts as CUDA.
        errors: recorded (measured - predicted) / predicted; from ten of them on, the
            margin is their 95th percentile instead of the table's figure.
    """
    known = backend if backend in _FIXED else CUDA
    if len(errors) < _ENOUGH:
        return Margin(_FRACTIONS[method][known], _FIXED[known])
    worst = sorted(errors)[math.ceil(_QUANTILE * len(errors)) - 1]
    return Margin(max(_LEAST, worst), _FIXED[known])
