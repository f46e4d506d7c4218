"""The model hub: what is in its cache here, what it would send, and whether that fits."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from resource_pool.errors import PreferenceError
from resource_pool.weights.folders import (
    CONFIG,
    INDEX,
    PICKLED,
    SINGLE,
    MissingWeightsError,
    is_plain_name,
)

DEFAULT_MAX_DOWNLOAD = 2 * 2**30
TIMEOUT_SECONDS = 5.0

_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_SMALL_FILES = (".json", ".txt", ".model", ".spm", ".jinja", ".tiktoken")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)
# Loading needs the weights once, plus buffers and the allocator's slack.
_MEMORY_HEADROOM = 1.2


class RemoteFile(NamedTuple):
    """A file of a model on the hub; the size in bytes is None where the hub does not say."""

    name: str
    size: int | None


class Hub(Protocol):
    """What is needed of a hub; tests pass one of their own to ``locate_weights``."""

    def snapshot(self, model_name: str, revision: str | None) -> Path | None:
        """Return the folder of the model in the cache on this disk; None when it is not there."""

    def files(self, model_name: str, revision: str | None) -> list[RemoteFile]:
        """Ask the hub for the model's files; MissingWeightsError when it has no answer."""

    def download(self, model_name: str, revision: str | None, names: Sequence[str]) -> Path:
        """Fetch the named files into the cache and return the model's folder there."""

    def disk_free(self) -> int:
        """Return the free bytes where the cache is."""


class HuggingFaceHub:
    """The Hugging Face hub through ``huggingface_hub``, with its cache, endpoint and token."""

    def snapshot(self, model_name: str, revision: str | None) -> Path | None:
        """Look into the cache only; a name that no hub can hold is simply not there."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            config = try_to_load_from_cache(model_name, CONFIG, revision=revision)
        except HFValidationError:
            return None
        # The client answers with a marker object where it knows that the file does not exist.
        return Path(config).parent if isinstance(config, str) else None

    def files(self, model_name: str, revision: str | None) -> list[RemoteFile]:
        """Ask for names and sizes in one request."""
        from huggingface_hub import HfApi, errors

        try:
            info = HfApi().model_info(
                model_name, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
            )
        except errors.GatedRepoError as error:
            raise MissingWeightsError(
                "the hub gives it only to accounts that were granted access",
                "ask for access on its page, then `hf auth login`",
            ) from error
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            raise MissingWeightsError(
                "the hub has no such model or revision", "check the name"
            ) from error
        except errors.HFValidationError as error:
            raise MissingWeightsError(
                "this is no name that a hub can hold", "check the name"
            ) from error
        except Exception as error:
            raise _unreachable(error) from error
        return [RemoteFile(file.rfilename, file.size) for file in info.siblings or ()]

    def download(self, model_name: str, revision: str | None, names: Sequence[str]) -> Path:
        """Fetch the named files; names with wildcards were sorted out before."""
        from huggingface_hub import snapshot_download

        try:
            folder = snapshot_download(
                model_name,
                revision=revision,
                allow_patterns=list(names),
                etag_timeout=TIMEOUT_SECONDS,
            )
        except Exception as error:
            raise _unreachable(error) from error
        return Path(folder)

    def disk_free(self) -> int:
        """Measure at the nearest folder above the cache that exists."""
        from huggingface_hub.constants import HF_HUB_CACHE

        cache = Path(HF_HUB_CACHE).absolute()
        there = next(folder for folder in (cache, *cache.parents) if folder.exists())
        return shutil.disk_usage(there).free


def _unreachable(error: Exception) -> MissingWeightsError:
    # The client raises errors of several HTTP libraries; all of them mean the same here.
    return MissingWeightsError(
        f"the model hub cannot be reached ({type(error).__name__})",
        "check the network, or name a folder that holds the model",
    )


def is_offline() -> bool:
    """Tell whether the user forbade asking the hub (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)."""
    values = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.upper() in {"1", "ON", "YES", "TRUE"} for value in values)


def fetch(hub: Hub, model_name: str, revision: str | None) -> Path:
    """Download a model that fits this machine and return its folder.

    Raises:
        MissingWeightsError: it does not fit, has no safetensors weights, or the hub is away.
        PreferenceError: RP_MAX_DOWNLOAD is no size.
    """
    limit = max_download()
    wanted = wanted_files(hub.files(model_name, revision))
    total, weights = _bytes(wanted), _bytes([f for f in wanted if f.name.endswith("safetensors")])
    check_fits(
        total, weights, limit=limit, disk_free=hub.disk_free(), memory_free=_memory_available()
    )
    return hub.download(model_name, revision, [file.name for file in wanted])


def wanted_files(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Pick the weights in safetensors and the small text files beside them, never a pickle."""
    # Names come from the hub: one with a wildcard or a folder in it is not taken.
    plain = [file for file in files if is_plain_name(file.name)]
    weights = [file for file in plain if file.name == SINGLE]
    if not weights and any(file.name == INDEX for file in plain):
        weights = [file for file in plain if _SHARD.fullmatch(file.name)]
    if not weights:
        raise _no_safetensors(plain)
    return weights + [file for file in plain if file.name.endswith(_SMALL_FILES)]


def _no_safetensors(files: Sequence[RemoteFile]) -> MissingWeightsError:
    pickled = any(file.name.endswith(PICKLED) for file in files)
    only = "pickled weights only, which are never loaded" if pickled else "no safetensors weights"
    return MissingWeightsError(f"the hub has {only} for it", "choose a model with safetensors")


def check_fits(
    total: float, weights: float, *, limit: int, disk_free: int, memory_free: int
) -> None:
    """Raise MissingWeightsError, with the arithmetic, for a download that is too big.

    ``weights`` is the part of ``total`` bytes that will be loaded into memory.
    """
    size = "an unknown size" if math.isinf(total) else as_size(total)
    if total > limit:
        raise MissingWeightsError(
            f"its files have {size}, more than the limit of {as_size(limit)}",
            "raise RP_MAX_DOWNLOAD",
        )
    if total > disk_free:
        raise MissingWeightsError(
            f"its files have {size}, and {as_size(disk_free)} are free on the disk", "make room"
        )
    if weights * _MEMORY_HEADROOM > memory_free:
        raise MissingWeightsError(
            f"it needs {as_size(weights * _MEMORY_HEADROOM)} of memory, "
            f"and {as_size(memory_free)} are free",
            "use a machine with more memory",
        )


def _bytes(files: Sequence[RemoteFile]) -> float:
    return sum(math.inf if file.size is None else file.size for file in files)


def _memory_available() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def max_download() -> int:
    """Return RP_MAX_DOWNLOAD in bytes: "500MiB", "2 GB", a plain number; 2 GiB when it is unset.

    Raises:
        PreferenceError: it is no size.
    """
    text = os.environ.get("RP_MAX_DOWNLOAD", "").strip()
    if not text:
        return DEFAULT_MAX_DOWNLOAD
    match = _SIZE.fullmatch(text)
    if match is None:
        raise PreferenceError(
            f"RP_MAX_DOWNLOAD is {text!r}; give a size such as 500MiB, 2GiB or a number of bytes"
        )
    number, prefix, binary, _ = match.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** " kmgt".index(prefix.lower() or " "))


def as_size(count: float) -> str:
    """Return a number of bytes for people: "80.0 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
