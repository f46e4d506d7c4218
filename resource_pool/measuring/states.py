"""What a model holds, and what is told of it at the end."""

from __future__ import annotations

import math
import sys
import unittest
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resource_pool.weights import Weights

_SAFETENSORS_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def loaded_dtype(folder: Path) -> str | None:
    """Return the dtype in which ``from_pretrained`` loads a folder's weights: "float32".

    The config's, where it has one; else that of most parameters in the safetensors files. None
    where the files are quantised: their number formats are not the model's.
    """
    from resource_pool.prediction.files import weight_entries
    from resource_pool.weights.folders import CONFIG, read_json

    config = read_json(folder / CONFIG) or {}
    if config.get("quantization_config"):
        return None
    told = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    if told in _SAFETENSORS_DTYPES.values():
        return told
    counts: Counter[str] = Counter()
    for entry in weight_entries(folder):
        counts[entry["dtype"]] += math.prod(entry["shape"])
    return _SAFETENSORS_DTYPES.get(max(counts, key=counts.__getitem__, default=""))


def computes_on(model: Any) -> str:
    """Return where a model computes, in the pool's words: "cuda:0", "cpu+cuda:0", "openvino:0".

    The devices of its parameters, or the engine that its forward has been moved to.
    """
    from resource_pool.devices.forwards import placement

    elsewhere = placement(model)
    if elsewhere is not None:
        return elsewhere.device
    return "+".join(sorted({str(parameter.device) for parameter in model.parameters()}))


def precision_of(model: Any) -> str:
    """Return the precision that a model was placed in, e.g. "bfloat16".

    In a browser it may be another one than the module's dtype: float16, or int8 for the weights.
    """
    from resource_pool.devices.forwards import placement

    elsewhere = placement(model)
    return elsewhere.dtype if elsewhere else str(model.dtype).removeprefix("torch.")


def in_torch(model: Any) -> bool:
    """Whether torch computes a model's forward, and no other engine."""
    from resource_pool.devices.forwards import placement

    return placement(model) is None


def weights_of(model: Any) -> dict[str, int]:
    """Return a checksum of each parameter, and of each buffer that is saved; tied ones once."""
    kept = model.state_dict()
    named = [*model.named_parameters(), *((n, b) for n, b in model.named_buffers() if n in kept)]
    return {name: _checksum(tensor) for name, tensor in named}


def state_of(model: Any) -> dict[str, Any]:
    """Return all of a model that running it must leave as it is.

    Weights and saved buffers, training flags, hooks, what asks for gradients, and the configs.
    """
    modules = {
        f"module {name}": (one.training, len(one._forward_hooks), len(one._forward_pre_hooks))
        for name, one in model.named_modules()
    }
    configs = [model.config, getattr(model, "generation_config", None)]
    return {
        "weights": weights_of(model),
        "training, hooks": modules,
        "requires_grad": {name: one.requires_grad for name, one in model.named_parameters()},
        "configs": [None if one is None else one.to_json_string() for one in configs],
    }


def print_summary(weights: Weights) -> None:
    """Print which weights ran, each model of the pool and where it is, and the statistics."""
    from resource_pool import get_global_resource_pool

    stats = get_global_resource_pool().get_stats()
    lines = ["", f"Weights: {weights}"]
    lines += [
        f"Model {key}: {facts['memory_mb']:.1f} MB, device: {facts['device']}, "
        f"dtype: {facts['dtype']}, weights: {facts['weights']}"
        for key, facts in stats["models"].items()
    ]
    shown = ("hits", "misses", "cached_models", "memory_usage_mb", "low_memory_mode")
    lines.append(f"Resource pool stats: { ({name: stats[name] for name in shown}) }")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


class NoProcessor:
    """Stands for the processor of a twin that has none: one of its packages is not installed."""


def processor_of(auto_class: Any, weights: Weights) -> Any:
    """Return what prepares a model's inputs, from the pool; none of the model's own code is run.

    A tokenizer without a token for padding pads with its end token, as is usual.

    Args:
        auto_class: transformers' AutoTokenizer, AutoImageProcessor, ...
        weights: the folder to load it from, the first time.

    Returns:
        The processor; `NoProcessor` where the weights are a twin's and it has none that loads.

    Raises:
        OSError: the weights are real, and their folder has no processor, or a tokenizer that
            knows no word.
    """
    from resource_pool import get_global_resource_pool

    name = weights.model_name
    return get_global_resource_pool().get_tokenizer(
        name,
        name,
        constructor=lambda: _loaded_processor(auto_class, weights),
        variant=f"{auto_class.__name__}-{weights.kind}",
    )


def _loaded_processor(auto_class: Any, weights: Weights) -> Any:
    try:
        processor = auto_class.from_pretrained(weights.path, trust_remote_code=False)
    except (OSError, ImportError, ValueError):
        if weights.kind != "tiny":
            raise
        return NoProcessor()
    if weights.kind != "tiny" and not _knows_words(processor):
        raise OSError(
            f"{weights.path} has no tokenizer; save the model's there as well: "
            "tokenizer.save_pretrained(folder)"
        )
    if getattr(processor, "pad_token", "") is None:
        processor.pad_token = processor.eos_token
    return processor


def _knows_words(processor: Any) -> bool:
    """Whether a tokenizer has words; transformers makes one without any where no file is there."""
    special = getattr(processor, "all_special_ids", None)
    if special is None or not hasattr(processor, "__len__"):
        return True
    return len(processor) > len(set(special))


@contextmanager
def reported(model_name: str, preferences: Mapping[str, Any]) -> Iterator[None]:
    """Write an error report where hardware fails; what there is no room for is a skip.

    Raises:
        unittest.SkipTest: the preferences insist on hardware that is not here, or on an engine
            that cannot compute this model, or it fits nowhere even if all others go; says why,
            with the arithmetic. An engine that computes something else is no skip.
    """
    from resource_pool import (
        DeviceUnavailableError,
        InsufficientMemoryError,
        UnsupportedOperationError,
        get_global_resource_pool,
        saved_error_report,
    )
    from resource_pool.errors import WrongResultError

    try:
        with saved_error_report(get_global_resource_pool(), model_name, preferences):
            yield
    except WrongResultError:
        raise
    except UnsupportedOperationError as error:
        place = preferences.get("device") or "the engine"
        raise unittest.SkipTest(f"{place}: {error}") from error
    except (DeviceUnavailableError, InsufficientMemoryError) as error:
        raise unittest.SkipTest(str(error)) from error


def _checksum(tensor: Any) -> int:
    import torch

    plain = tensor.detach().cpu().contiguous().flatten()
    return zlib.crc32(plain.view(torch.uint8).numpy())
