"""What a folder on disk holds: its config, and whether its safetensors weights are whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")

# A tokenizer or processor needs at least one of these.
_PREPROCESSING = re.compile(
    r"(tokenizer|preprocessor|processor|image_processor|video_preprocessor)[\w]*\.json"
    r"|vocab\.\w+|merges\.txt|.*\.(model|spm|tiktoken)|tekken\.json"
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_HEADER = 100 * 2**20


class MissingWeightsError(Exception):
    """No pretrained weights: why (a clause that follows the model's name), and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def is_plain_name(name: str) -> bool:
    """Tell whether ``name`` is a file name that stays in its folder and means only itself."""
    return _PLAIN_NAME.fullmatch(name) is not None


def as_folder(name: str) -> Path | None:
    """Return the folder that ``name`` is; None when it is something else, or can be no path."""
    try:
        folder = Path(name).expanduser()
        return folder.resolve() if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        # Too long, a null byte, a home of nobody.
        return None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in ``path``; None when there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold the model's weights, all of them whole.

    Raises:
        MissingWeightsError: there are none, some are missing, or one is cut short.
    """
    files = [folder / name for name in _weight_names(folder)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise MissingWeightsError(
            f"{len(missing)} of {len(files)} weight files are missing in {folder}",
            "fetch the model again",
        )
    for file in files:
        if not is_whole(file):
            raise MissingWeightsError(
                f"{file} is cut short or is no safetensors file (a Git LFS pointer?)",
                "fetch the model again",
            )
    return files


def _weight_names(folder: Path) -> list[str]:
    if (folder / SINGLE).is_file():
        return [SINGLE]
    names = sorted({file.name for file in shards(folder).values()})
    if names:
        return names
    if any(path.suffix in PICKLED for path in folder.iterdir()):
        raise MissingWeightsError(
            f"{folder} holds pickled weights only, which are never loaded",
            "convert them to safetensors",
        )
    raise MissingWeightsError(f"{folder} holds no safetensors weights", "fetch the model again")


def shards(folder: Path) -> dict[str, Path]:
    """Return tensor -> file by the index of a folder's shards; empty without a sound one."""
    index = read_json(folder / INDEX)
    weight_map = index.get("weight_map") if index else None
    if not isinstance(weight_map, dict) or not all(
        map(is_plain_name, map(str, weight_map.values()))
    ):
        return {}
    return {str(tensor): folder / str(name) for tensor, name in weight_map.items()}


def is_whole(file: Path) -> bool:
    """Tell whether a safetensors file is as long as its header says.

    The format: 8 bytes with the header's length, the header as JSON, the tensors' bytes
    (https://huggingface.co/docs/safetensors).
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= _MAX_HEADER:
                return False
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
        return file.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return False


def has_preprocessing(folder: Path) -> bool:
    """Tell whether a tokenizer or processor can be loaded from ``folder``."""
    return any(_PREPROCESSING.fullmatch(path.name) for path in folder.iterdir())


def size_of(files: list[Path]) -> int:
    """Return the files' size in bytes."""
    return sum(file.stat().st_size for file in files)
