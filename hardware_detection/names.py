"""The names of the hardware backends, and what they are called in PyTorch."""

from __future__ import annotations

from hardware_detection.errors import UnknownHardwareError

CPU = "cpu"
CUDA = "cuda"
ROCM = "rocm"
XPU = "xpu"
MPS = "mps"
OPENVINO = "openvino"
WEBNN = "webnn"
WEBGPU = "webgpu"
TPU = "tpu"
QUALCOMM = "qualcomm"

# Every backend, in the order of display, and the name of its devices in PyTorch. Tensors for a
# runtime that is not PyTorch's own (OpenVINO, QNN, a browser) lie in ordinary memory.
_TORCH_NAMES = {
    CPU: "cpu",
    CUDA: "cuda",
    ROCM: "cuda",
    XPU: "xpu",
    MPS: "mps",
    OPENVINO: "cpu",
    WEBNN: "cpu",
    WEBGPU: "cpu",
    TPU: "xla",
    QUALCOMM: "cpu",
}
#: Every backend, in the order of display.
HARDWARE_NAMES = tuple(_TORCH_NAMES)

#: PyTorch's GPUs that have a number and memory of their own, best first.
GPUS = (CUDA, ROCM, XPU)
#: The backends that are PyTorch's own devices, best first.
TORCH_PRIORITY = (*GPUS, MPS, CPU)
#: All, best first. Browsers are missing: they run a model only when somebody asks for one.
DEFAULT_PRIORITY = (*GPUS, MPS, TPU, OPENVINO, QUALCOMM, CPU)

_ALIASES = {"xla": TPU}


def backend_of(device: object) -> str:
    """Return the backend of a device: ``"cuda:1"`` or ``torch.device("cuda", 1)`` -> ``"cuda"``.

    PyTorch calls a ROCm device "cuda" too, so "cuda" stays "cuda" here.

    Raises:
        UnknownHardwareError: no backend has this name.
    """
    return split_device(device)[0]


def split_device(device: object) -> tuple[str, int | None]:
    """Return backend and index of a device: ``"rocm:1"`` -> ``("rocm", 1)``, ``"cpu"`` -> None.

    Raises:
        UnknownHardwareError: no backend has this name, or the index is not a whole number.
    """
    text = str(device).strip().lower()
    name, colon, index = text.partition(":")
    name = _ALIASES.get(name, name)
    # More digits than a device could have: int() refuses texts that are too long in its own way.
    is_index = index.isascii() and index.isdigit() and len(index) < 10
    if name not in HARDWARE_NAMES or (colon and not is_index):
        raise UnknownHardwareError(str(device), HARDWARE_NAMES)
    return name, int(index) if colon else None


def torch_device_name(device: object) -> str:
    """Return the name in PyTorch: ``"rocm:1"`` -> ``"cuda:1"``, ``"openvino"`` -> ``"cpu"``.

    Raises:
        UnknownHardwareError: no backend has this name.
    """
    name, index = split_device(device)
    torch_name = _TORCH_NAMES[name]
    if index is None or torch_name == "cpu":
        return torch_name
    return f"{torch_name}:{index}"
