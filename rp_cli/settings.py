"""Every environment variable that rp reads as its own: for the reference, and held to the code."""

from __future__ import annotations

from typing import NamedTuple


class Setting(NamedTuple):
    """A variable, what it does, and what holds without it."""

    name: str
    meaning: str
    default: str = ""


SETTINGS = (
    Setting(
        "RP_HOME",
        "the folder for what rp keeps: hardware cache, twins, records, onnxruntime-web",
        "the user's cache folder; in a checkout, the hardware cache lies in `hardware_cache/`",
    ),
    Setting(
        "RP_WEIGHTS",
        "`auto`, `pretrained` (missing weights are a failure) or `tiny` (no download)",
        "`auto`",
    ),
    Setting(
        "RP_MAX_DOWNLOAD",
        "the most that `auto` downloads for one model, e.g. `500MiB`",
        "`2GiB`",
    ),
    Setting(
        "TEST_HARDWARE_PREFERENCES",
        "preferences that replace those in a generated test, as `str(dict)` or JSON; read as "
        "data, never evaluated",
    ),
    Setting(
        "RP_BROWSER",
        "the one browser executable to ask for WebGPU and WebNN, and to run models in",
        "the installed ones",
    ),
    Setting("RP_MODEL_DB", "your model database", "`models.yaml` in `RP_HOME`"),
    Setting(
        "RESOURCE_POOL_MONITOR",
        "seconds between two looks at the machine's memory by a thread of the pool's",
        "no thread",
    ),
    Setting(
        "RESOURCE_POOL_LOW_MEMORY",
        "`1` turns low-memory mode on; `0`, empty and `false` do not",
    ),
    Setting(
        "RAY_ADDRESS",
        "the cluster of `rp run --engine ray`, where `--address` names none",
        "one of this machine alone",
    ),
    Setting("HF_HUB_OFFLINE", "the hub is not asked"),
    Setting("TRANSFORMERS_OFFLINE", "the hub is not asked"),
    Setting(
        "WEBNN_SIMULATION_ENABLED",
        "says that a simulation of WebNN is set up; shown in the details, never as available",
    ),
    Setting("WEBGPU_SIMULATION_ENABLED", "the same of WebGPU"),
    Setting("QNN_SIMULATION_ENABLED", "the same of Qualcomm's processor"),
)
