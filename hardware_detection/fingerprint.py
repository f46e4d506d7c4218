"""What must not have changed for an earlier detection to hold: machine, drivers, packages."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from hardware_detection.browsers import find_browsers
from hardware_detection.environment import relevant
from hardware_detection.machine import Machine
from hardware_detection.parsing import AMD_DRIVER_FILE, NVIDIA_DRIVER_FILE, parse_nvidia_driver
from hardware_detection.torch_build import torch_build

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PACKAGES = (
    "rp-toolchain",
    "torch_xla",
    "openvino",
    "onnxruntime",
    "onnxruntime-qnn",
    "nvidia-ml-py",
    "playwright",
)
# Device files of NVIDIA, AMD, Windows' Linux and Google: a container may gain or lose them, and
# those in the folder of the kernel's Direct Rendering Manager.
_DEVICE_FILES = ("nvidia", "kfd", "dxg", "accel")
_RENDER_FOLDER = "/dev/dri"


def fingerprint(machine: Machine) -> dict[str, Any]:
    """Return the facts on which a detection depends, as JSON values.

    Only reads files and variables; starts no process. A few milliseconds.
    """
    build = torch_build(machine)
    return {
        "hostname": platform.node(),
        "boot": _boot(machine),
        "platform": f"{machine.platform} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_version()} in {sys.prefix}",
        "cpus": {"logical": os.cpu_count(), "usable": machine.usable_cpus()},
        "limits": list(machine.limits()[:2]),
        "drivers": _drivers(machine),
        "device_files": [
            *(name for name in machine.listdir("/dev") if name.startswith(_DEVICE_FILES)),
            *machine.listdir(_RENDER_FOLDER),
        ],
        "packages": {name: machine.package_version(name) for name in _PACKAGES},
        "torch": build and build._asdict(),
        "browsers": {
            browser.path: machine.stamp(browser.path) for browser in find_browsers(machine)
        },
        "environment": relevant(machine.environ),
    }


def _boot(machine: Machine) -> str:
    boot_id = (machine.read_text(_BOOT_ID) or "").strip()
    return boot_id or f"since {machine.boot_minute()}"


def _drivers(machine: Machine) -> dict[str, str | None]:
    return {
        "nvidia": parse_nvidia_driver(machine.read_text(NVIDIA_DRIVER_FILE) or ""),
        "amd": (machine.read_text(AMD_DRIVER_FILE) or "").strip() or None,
    }
