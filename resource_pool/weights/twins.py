"""Tiny twins: the real architecture with a shrunk config and random weights, kept on disk.

A twin is built in a folder beside its place and renamed, by one process at a time, so that
whoever finds its folder finds all of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hardware_detection.files import rp_home, write_atomically
from resource_pool.errors import WeightsUnavailableError, type_and_first_line
from resource_pool.weights import folders
from resource_pool.weights.cases import twin_case
from resource_pool.weights.evidence import TWIN_FIELD

SEED = 0
MARKER = "rp_twin.json"
# To be raised with every change in what a twin holds: twins of older versions are not used.
TWIN_VERSION = 3
# What a constructor sets to zero, one or next to nothing (biases, scales, gates) is moved by this
# much: a trained model has no such values, and they would hide faults and inputs alike.
_JITTER = 0.02
# The least spread of a normalised channel, as a share of its mean.
_LEAST_SPREAD = 0.3
_LOCK_SECONDS = 600.0

_log = logging.getLogger(__name__)
# The seeded draws go through torch's global generator, which the threads share.
_drawing = threading.Lock()


@dataclass(frozen=True)
class TwinRecipe:
    """Everything that determines a twin, beside the versions.

    ``config`` is the real model's config.json, or None to start from the type's default.
    """

    model_name: str
    model_type: str
    auto_class: str
    config: Mapping[str, Any] | None

    def folder_name(self) -> str:
        """Return a file name: readable, and different for everything that differs."""
        path = Path(self.model_name)
        name = path.name if path.is_absolute() else self.model_name
        parts = [name, self.model_type, self.auto_class, self.config, SEED, _versions()]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-")[:64]
        return f"{safe}-{digest}"


def _versions() -> dict[str, Any]:
    return {"transformers": metadata.version("transformers"), "twin": TWIN_VERSION}


def tiny_twin(recipe: TwinRecipe) -> Path:
    """Return the folder of the recipe's twin, building it when it is not there yet.

    Raises:
        WeightsUnavailableError: transformers cannot build this architecture from its config, or
            the folder cannot be written.
    """
    folder = rp_home().absolute() / "twins" / recipe.folder_name()
    if _is_complete(folder):
        return folder
    try:
        with _only_builder(folder):
            if not _is_complete(folder):
                _replace(folder, recipe)
    except OSError as error:
        raise WeightsUnavailableError(
            f"the tiny twin of {recipe.model_name} cannot be written to {folder.parent} "
            f"({error.strerror or error}); make room there, or set RP_HOME to another folder"
        ) from error
    return folder


@contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock", timeout=_LOCK_SECONDS):
        yield


def _is_complete(folder: Path) -> bool:
    """Tell whether every file that the marker lists is there, as long as it was written."""
    files = (folders.read_json(folder / MARKER) or {}).get("files")
    if not isinstance(files, dict) or folders.SINGLE not in files:
        return False
    try:
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False


def _replace(folder: Path, recipe: TwinRecipe) -> None:
    """Build the twin beside its place and rename it; what broken builders left goes away."""
    for remains in (folder, *folder.parent.glob(f".{folder.name}.*.tmp")):
        if remains.exists():
            shutil.rmtree(remains)
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    building.mkdir()
    try:
        _build(building, recipe)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


# Building ----------------------------------------------------------------------------------------


def _build(folder: Path, recipe: TwinRecipe) -> None:
    from resource_pool.weights.processors import prepare_tokens, save_processors

    try:
        original = _original_config(recipe)
        config = _tiny_config(original, recipe)
        layout = prepare_tokens(config)
        model = _random_model(config, recipe.auto_class)
        with _quiet():
            model.save_pretrained(folder)
        missing = save_processors(config, layout, folder)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # Third-party constructors raise whatever they like at a config they do not take.
        raise WeightsUnavailableError(
            f"no tiny twin of {recipe.model_name} can be built as {recipe.auto_class} of type "
            f"{recipe.model_type} ({type_and_first_line(error)}); "
            "use the pretrained weights, or another class"
        ) from error
    counts = {
        "parameters": model.num_parameters(),
        "original_parameters": _parameters_of(original, recipe.auto_class),
    }
    _write_marker(folder, recipe, {**counts, "missing": missing})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing a progress bar for a file of a megabyte."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _original_config(recipe: TwinRecipe) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(recipe.model_type, **_explicit(recipe))


def _explicit(recipe: TwinRecipe) -> dict[str, Any]:
    """Return what the real config.json says, or what a default config lacks."""
    given = recipe.config or twin_case(recipe.model_type).original
    return {k: v for k, v in given.items() if k not in ("model_type", TWIN_FIELD)}


def _tiny_config(original: Any, recipe: TwinRecipe) -> Any:
    from resource_pool.weights.shrink import shrink_config

    tiny = shrink_config(original, _explicit(recipe))
    setattr(tiny, TWIN_FIELD, f"seed {SEED}")
    return tiny


def _random_model(config: Any, auto_class: str) -> Any:
    """Return a float32 model on the CPU whose parameters depend on the config and seed alone."""
    import torch
    import transformers

    if not auto_class.startswith("Auto"):
        raise ValueError(f"{auto_class} is no Auto class of transformers")
    cls = getattr(transformers, auto_class)
    # The Auto classes iterate over it where one config stands for several classes.
    config.architectures = []
    with _drawing, torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(SEED)
        model = cls.from_config(config, dtype=torch.float32)
        for tensor in _weights_of(model):
            tensor.add_(torch.randn_like(tensor), alpha=_JITTER)
        _measure_statistics(model.eval())
    return model


def _weights_of(model: Any) -> Iterator[Any]:
    """Yield what training would have changed: parameters, statistics, and codebooks in buffers.

    A codebook of zeros, as it is constructed, gives one code to every input.
    """
    yield from (p for p in model.parameters() if p.requires_grad and p.is_floating_point())
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in saved and buffer.is_floating_point() and not bool(buffer.any()):
            yield buffer


def _measure_statistics(model: Any) -> None:
    """Give batch normalisation the statistics of the model's example inputs.

    With the ones that it is constructed with, the signal of a deep network fades away below the
    last bit of the biases, and every image gives the same output.
    """
    import torch

    from resource_pool.weights.inputs import example_inputs

    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average over what it sees
        norm.train()
    try:
        model(**example_inputs(model, batch=4))
    except Exception:
        # Whether the model runs is for others to find out.
        _log.debug("no statistics for %s", type(model).__name__, exc_info=True)
    for norm in norms:
        # A channel that hardly varies in a few images would blow up with the next one, and one that
        # hardly varies around its mean would blow up the rounding of the mean.
        norm.running_var.clamp_(min=float(norm.running_var.mean()) / 4)
        norm.running_var.clamp_(min=(_LEAST_SPREAD * norm.running_mean).square())
    model.eval()


def _parameters_of(original: Any, auto_class: str) -> int | None:
    """Count the original's parameters without their memory; None where that does not work."""
    import torch
    import transformers

    try:
        with torch.device("meta"):
            return int(getattr(transformers, auto_class).from_config(original).num_parameters())
    except Exception:
        # A figure for people: an architecture whose original needs a package that is not here
        # (timm, say) still has a twin.
        return None


def _write_marker(folder: Path, recipe: TwinRecipe, facts: Mapping[str, Any]) -> None:
    """Write the marker: it comes last, and lists every other file with its size."""
    marker = {
        "schema_version": 1,
        "twin_of": recipe.model_name,
        "model_type": recipe.model_type,
        "auto_class": recipe.auto_class,
        "from": "config.json" if recipe.config else "the type's default config",
        "seed": SEED,
        **facts,
        "versions": _versions(),
        "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir())},
    }
    write_atomically(folder / MARKER, json.dumps(marker, indent=2) + "\n")
