"""What each preference and each statistic means, for the reference.

``docs/generate_reference.py`` writes these words into docs/preferences.md and docs/statistics.md;
tests hold the keys to those that the pool takes and gives.
"""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """What a preference may be, and what it does."""

    values: str
    effect: str


#: In the order of the reference.
PREFERENCES = {
    "device": Meaning(
        '`"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`, `"rocm"`, `"xpu"`, `"openvino"`, '
        '`"webgpu"`, `"webnn"`, `"tpu"`, `"qualcomm"`',
        "tried first",
    ),
    "priority_list": Meaning("list of devices", "tried in this order, then the CPU"),
    "preferred_index": Meaning(
        "0, 1, ...",
        "which GPU, where the name has no number; not there or without room: the one with the "
        "most free memory",
    ),
    "compatible_devices": Meaning(
        "list of devices",
        "others are passed over; the CPU always is compatible",
    ),
    "hw_compatibility": Meaning(
        '`{name: {"compatible": bool, "reason": str, "memory_usage": {"peak": MB}}}`',
        "hardware that is not compatible is passed over; the peak is what the model is planned "
        "with: idle models go for it, and where they are not enough, the device is passed over",
    ),
    "force_device": Meaning(
        "bool",
        "the device or the list's first, or an error; compatibility is not checked. An automatic "
        "choice cannot be forced",
    ),
    "force_low_memory": Meaning(
        "bool", "turns low-memory mode on, [for the whole pool](low-memory.md)"
    ),
    "precision": Meaning(
        '`"fp32"`, `"fp16"`, `"bf16"`, `None`',
        'cast to it where the device proved that it computes in it; `"int8"` is for browsers, and '
        "falls back elsewhere, because PyTorch modules need quantized layers for it",
    ),
    "model_family": Meaning("text", "takes the place of `model_type`"),
    "subfamily": Meaning(
        "text",
        "`web_deployment`: the model is meant for browsers. Without a device or list it goes to "
        "WebGPU or WebNN, the better one for its family first, and then where it would go "
        "otherwise; `browser_optimized` is on unless it is given. Any other word is without effect",
    ),
    "fallback_to_simulation": Meaning(
        "bool",
        "where a named browser does not compute, onnxruntime on the CPU stands in for it, "
        "[labelled as such](web.md#simulation)",
    ),
    "browser_optimized": Meaning(
        "bool",
        "a browser gets a smaller file: float16 where it computed in that, else weights in int8; "
        "[what that saves and costs](web.md) is measured",
    ),
    "description": Meaning("text", "without effect"),
}

#: statistic -> meaning. "[]" is each of a list, "*" each key of a dictionary.
STATISTICS = {
    "hits": "requests that found the resource, or joined its load",
    "misses": "requests that found nothing",
    "total_requests": "both together",
    "hit_ratio": "hits / total_requests; 0 before the first request",
    "cached_resources": "everything that is cached now: models, tokenizers and the rest",
    "cached_models": "models that are cached now",
    "cached_tokenizers": "tokenizers that are cached now",
    "memory_usage": "parameters and buffers of all cached models, tied weights once, in bytes",
    "memory_usage_mb": "the same in MiB",
    "low_memory_mode": "whether [the mode](low-memory.md) is on",
    "timestamp": "when this was asked: ISO 8601, UTC",
    "system_memory": "the machine's memory; empty without psutil",
    "system_memory.total_mb": "all of it, or a container's limit",
    "system_memory.available_mb": "what of it is free",
    "system_memory.percent_used": "the rest, in percent",
    "system_memory.under_pressure": "whether that is 90 % or more",
    "system_memory.age_seconds": "how old these values are",
    "cpu": "the processor",
    "cpu.percent": "load since the last call; `None` at the first",
    "cpu.count": "logical cores",
    "cpu.age_seconds": "how old these values are",
    "cuda_memory": "CUDA's GPUs, and those of ROCm, which PyTorch drives as CUDA. A process that "
    "has not used CUDA is not made to: then the facts are those of the last detection",
    "cuda_memory.device_count": "how many there are",
    "cuda_memory.devices": "one row for each; an empty list without any",
    "cuda_memory.devices[].id": "its number",
    "cuda_memory.devices[].name": "its name",
    "cuda_memory.devices[].total_mb": "its memory",
    "cuda_memory.devices[].allocated_mb": "what tensors of this process take",
    "cuda_memory.devices[].reserved_mb": "that, and what PyTorch's "
    "allocator keeps for later; not the `reserved_mb` of `devices`",
    "cuda_memory.devices[].free_mb": "what the driver says is free",
    "cuda_memory.devices[].percent_used": "the rest, of all processes, in percent",
    "cuda_memory.devices[].under_pressure": "whether that is 90 % or more",
    "cuda_memory.devices[].utilization": "load in percent; `None` where nothing tells",
    "cuda_memory.devices[].tensor_cores": "whether it has them; `None` where nothing tells",
    "cuda_memory.devices[].age_seconds": "how old these values are",
    "cuda_memory.cuda_version": "the version that PyTorch was built for; `None` without",
    "cuda_memory.rocm_version": "the version that PyTorch was built for; `None` without",
    "mps": "Apple's GPU, with `allocated_mb` where it is available",
    "mps.available": "what PyTorch says; `None` where it is not loaded",
    "openvino": "what is known of OpenVINO, without importing it",
    "openvino.installed": "whether the package is",
    "openvino.devices": "the names of its devices, by the last detection",
    "webnn": "what is known of WebNN in the browsers here",
    "webnn.available": "by the last detection; `None` before the first",
    "webgpu": "what is known of WebGPU in the browsers here",
    "webgpu.available": "by the last detection; `None` before the first",
    "models": "a row for each cached model, by its key",
    "models.*.memory_mb": "parameters and buffers",
    "models.*.method": "how that was found out",
    "models.*.device": "where it is",
    "models.*.backend": "what computes it: `cpu`, `cuda`, `openvino`, `webgpu`, ...",
    "models.*.simulated": "whether something stands in for the hardware that was asked for",
    "models.*.dtype": "of its parameters, as placed",
    "models.*.weights": "what can be proved of them; see below",
    "models.*.age_seconds": "since it was loaded",
    "models.*.idle_seconds": "since it was last asked for",
    "models.*.hits": "how often it was found",
    "models.*.load_seconds": "how long its constructor and its placement took",
    "models.*.leases": "how many hold it",
    "models.*.pinned": "whether it is pinned",
    "models.*.web": "of a model in a browser or its simulation only, as measured at placement",
    "models.*.web.difference": "the greatest from torch, as a share of the greatest value",
    "models.*.web.tolerance": "the greatest difference that passes, which is wider in less than "
    "float32",
    "models.*.web.download_bytes": "of its ONNX files",
    "models.*.web.float32_download_bytes": "what they would be in float32",
    "models.*.web.browser": "its name",
    "models.*.web.adapter_kind": "what computes: hardware, software (an emulated GPU), simulated "
    "or unknown",
    "devices": "a row for each device that the pool has used",
    "devices.*.used_mb": "cached, or evicted and not free yet",
    "devices.*.reserved_mb": "planned for what is being loaded; not the `reserved_mb` of "
    "`cuda_memory`, which is the allocator's",
    "devices.*.budget_mb": "the device's memory; `None` where it cannot be asked for",
    "management": "what the pool did",
    "management.cleanups": "cleanups, by call and under memory pressure",
    "management.evictions": "what left the cache; `pool.events()` has the reason of each",
    "management.oom_recoveries": "loads that succeeded after memory had run out",
    "management.mutations": "models that were changed under a lease",
    "management.moves": "moves to another device",
    "management.not_freed": "evictions whose memory did not come back in time",
    "management.freed_mb": "what that gave back",
}
