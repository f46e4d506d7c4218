"""Every environment variable that rp reads: for the reference, and held to the code.

What is asked for detection alone stands in ``hardware_detection.environment``.
"""

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
        "turns low-memory mode on with any word but `0`, `false`, `no` and `off`, in whatever "
        "case; nothing in the environment turns it off again",
    ),
    Setting(
        "RAY_ADDRESS",
        "the cluster of `rp run --engine ray`, where `--address` names none",
        "one of this machine alone",
    ),
    Setting(
        "RAY_TMPDIR",
        "the folder of a Ray cluster that rp starts",
        "`ray` in the current folder, or a temporary one where that has a long name",
    ),
    Setting(
        "OMP_NUM_THREADS",
        "on how many threads each file of `rp run` computes",
        "its share of the cores",
    ),
    Setting("TERM", "`dumb`: `rp run` draws no bar"),
    Setting("HF_HUB_OFFLINE", "`1`, `on`, `yes` or `true`: the hub is not asked"),
    Setting("TRANSFORMERS_OFFLINE", "the same"),
    Setting("HF_HUB_CACHE", "where the hub's files are kept", "`hub` in `HF_HOME`"),
    Setting("HUGGINGFACE_HUB_CACHE", "the same, by its older name"),
    Setting("HF_HOME", "the folder of the hub's client", "`huggingface` in `XDG_CACHE_HOME`"),
    Setting("XDG_CACHE_HOME", "the user's cache folder", "`~/.cache`"),
    Setting("PROGRAMFILES", "where Windows keeps programs: browsers are looked for there"),
    Setting("PROGRAMFILES(X86)", "the same"),
    Setting("LOCALAPPDATA", "the same"),
    Setting(
        "WEBNN_SIMULATION_ENABLED",
        "says that a simulation of WebNN is set up; shown in the details, never as available",
    ),
    Setting("WEBGPU_SIMULATION_ENABLED", "the same of WebGPU"),
    Setting("QNN_SIMULATION_ENABLED", "the same of Qualcomm's processor"),
)

#: Variables that the libraries below rp read -> the module that does.
OF_LIBRARIES = {
    Setting(
        "HF_ENDPOINT", "the hub to ask, read by huggingface_hub", "the public one"
    ): "huggingface_hub.constants",
    Setting(
        "HF_TOKEN", "the token for downloads, read by huggingface_hub; `rp classify` sends none"
    ): "huggingface_hub.utils._auth",
    Setting("NO_COLOR", "not empty: no colours on a terminal, read by rich"): "rich.console",
}
