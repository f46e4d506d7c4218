"""What kind of failure a message tells of, and what to do about it."""

from __future__ import annotations

import re

# In this order: the first pattern that is found in the message (or the trace) decides.
_ERROR_TYPES: tuple[tuple[str, str], ...] = (
    (
        "out_of_memory",
        (
            r"\bneeds [\d.]+ [KMGT]iB|out of memory|outofmemory|memoryerror|bad_alloc"
            r"|can(?:no|')t allocate memory"
        ),
    ),
    ("missing_package", r"no module named|modulenotfounderror|requires the .* (library|package)"),
    (
        "device_absent",
        (
            r"torch not compiled with cuda|no cuda gpus|invalid device ordinal"
            r"|is not available here|no such device|cannot be used"
        ),
    ),
    ("unknown", r"device-side assert"),
    (
        "driver",
        (
            r"\bdriver\b|cuda error|\bcudnn|\bnccl|hip error|\bhsa_|no kernel image is available"
            r"|lib(cud|cublas|amdhip|rocm|hip|ze_)\w*\.so\S*: cannot open shared object"
        ),
    ),
    (
        "dtype",
        (
            r"expected .*(dtype|scalar type)|not implemented for '(half|bfloat16|float8)"
            r"|dtype mismatch|must have the same dtype"
        ),
    ),
    (
        "unsupported_operation",
        (
            r"not currently implemented for the|not implemented for|unsupported ?op"
            r"|notimplementederror|could not run '[^']+' with arguments"
        ),
    ),
    ("timeout", r"timed out|time ?out|deadline"),
)

_RECOMMENDATIONS: dict[str, tuple[str, ...]] = {
    "out_of_memory": (
        "Use a smaller batch or a shorter input.",
        'Ask for half precision: hardware_preferences={"precision": "fp16"}.',
        "Drop what is not needed: pool.cleanup_unused_resources(max_age_minutes=0).",
        "Turn on low-memory mode: RESOURCE_POOL_LOW_MEMORY=1.",
    ),
    "missing_package": ("Install the package that the message names, in this environment.",),
    "device_absent": (
        "See what this machine can compute on: rp detect --refresh.",
        'Let the pool choose: hardware_preferences={"device": "auto"}.',
    ),
    "driver": (
        "Compare the driver with the one that this build of torch needs: rp detect --debug.",
        "Update the driver, or install a build of torch for the driver that is there.",
    ),
    "dtype": ('Ask for full precision: hardware_preferences={"precision": "fp32"}.',),
    "unsupported_operation": ("Run the model on other hardware of the list of alternatives.",),
    "timeout": ("Give it more time, or a smaller input.",),
    "unknown": ("Read the stack trace, and run `rp check --debug` for the state of this machine.",),
}

_FAMILY_RECOMMENDATIONS: dict[tuple[str, str], str] = {
    ("out_of_memory", "text_generation"): "Generate fewer tokens: the KV cache grows with each.",
    ("out_of_memory", "vision"): "Use a smaller image size.",
    ("out_of_memory", "audio"): "Cut the audio into shorter pieces.",
    ("out_of_memory", "multimodal"): "Pass one image at a time, at a smaller size.",
    ("out_of_memory", "embedding"): "Encode fewer texts at once.",
}

_SUBFAMILY_RECOMMENDATIONS: dict[tuple[str, str | None], str] = {
    ("out_of_memory", "mixture_of_experts"): (
        "Quantise it or spread it over several GPUs: all experts are in memory, used or not."
    ),
    ("out_of_memory", "chat_model"): "Cut the conversation: the whole history is in each prompt.",
    ("out_of_memory", "seq2seq"): "Use fewer beams: each keeps a KV cache of its own.",
    ("out_of_memory", "object_detector"): "Scale the images down; their size is not fixed.",
    ("out_of_memory", "segmentation"): "Scale the images down: a mask is as large as its image.",
    ("out_of_memory", "speech_recognition"): "Transcribe in windows of 30 seconds.",
    ("unsupported_operation", "state_space"): (
        "Its fast kernels are for CUDA; without their packages transformers' plain loop runs."
    ),
    ("dtype", "object_detector"): "Keep it in fp32: sampling of deformable layers needs it.",
}

_PLATFORM_RECOMMENDATIONS: dict[tuple[str, str], str] = {
    ("unsupported_operation", "mps"): "Set PYTORCH_ENABLE_MPS_FALLBACK=1 to run it on the CPU.",
    ("unsupported_operation", "cuda"): "Run it on the CPU, or with a newer build of torch.",
    ("unsupported_operation", "openvino"): "Keep the model on torch: device='cpu'.",
    ("unsupported_operation", "webgpu"): "`rp web check` says what does not work there.",
    ("unsupported_operation", "webnn"): "`rp web check` says what does not work there.",
    ("driver", "cuda"): "`nvidia-smi` prints the driver's version.",
    ("driver", "rocm"): "`rocminfo` prints the driver's version.",
}


_MESSAGE_RECOMMENDATIONS: dict[str, str] = {
    r"to be on the same device": "Bring the inputs to the model: inputs.to(model.device).",
    r"no kernel image is available": (
        "This build of torch has no code for this GPU; install one that has: "
        "torch.cuda.get_arch_list()."
    ),
}


def error_type(message: str, stack_trace: str | None = None) -> str:
    """Return the kind of failure that the message tells of, or else the trace; or "unknown"."""
    # Of a trace only its last line: paths and source lines before it hold any word.
    last_line = next(reversed((stack_trace or "").strip().splitlines()), "")
    for text in (message, last_line):
        for kind, pattern in _ERROR_TYPES:
            if re.search(pattern, text, re.IGNORECASE):
                return kind
    return "unknown"


def recommendations(
    kind: str, family: str, backend: str, subfamily: str | None = None, message: str = ""
) -> list[str]:
    """Return what to do, the most specific first."""
    by_words = _MESSAGE_RECOMMENDATIONS.items()
    specific = (
        *(advice for pattern, advice in by_words if re.search(pattern, message)),
        _PLATFORM_RECOMMENDATIONS.get((kind, backend)),
        _SUBFAMILY_RECOMMENDATIONS.get((kind, subfamily)),
        _FAMILY_RECOMMENDATIONS.get((kind, family)),
    )
    return [text for text in specific if text] + list(_RECOMMENDATIONS[kind])
