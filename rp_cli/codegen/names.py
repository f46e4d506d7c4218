"""Names of generated files and classes. A model's name is untrusted; what comes out is not."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from rp_cli.errors import BadInputError

MAX_STEM = 120


def resolve_model_name(given: str) -> str:
    """Return the absolute path of a local model folder, or a hub name as it is.

    Raises:
        BadInputError: the name is empty, holds control characters, or looks like a path and
            is no folder.
    """
    name = given.strip()
    if not name or not name.isprintable():
        raise BadInputError(f"{given!r} is not a model name; give e.g. bert-base-uncased.")
    if _is_folder(name):
        return str(Path(name).expanduser().resolve())
    looks_like_path = name.startswith(("/", "~", ".", "\\")) or ".." in re.split(r"[/\\]", name)
    if looks_like_path:
        raise BadInputError(
            f"{name!r} is neither a model folder nor a hub name; "
            "give a folder with a config.json, or a name such as bert-base-uncased."
        )
    return name


def file_name(model_name: str) -> str:
    """Return the file name of a model's test: ``test_hf_<name>.py``, lower case, ASCII.

    bert-base-uncased -> test_hf_bert_base_uncased.py; a local folder gives its last part.
    Where characters other than separators are lost, a digest of the whole name keeps two
    names apart.
    """
    return f"test_hf_{stem(model_name)}.py"


def class_name(model_name: str) -> str:
    """Return the name of the test class: ``TestBertBaseUncased``."""
    return "Test" + "".join(part[:1].upper() + part[1:] for part in stem(model_name).split("_"))


def stem(model_name: str) -> str:
    """Return the model's name reduced to a-z, 0-9 and single underscores."""
    base = Path(model_name).name if Path(model_name).is_absolute() else model_name
    plain = re.sub(r"[^a-z0-9]+", "_", base.lower()).strip("_")
    lossless = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", base) and len(plain) <= MAX_STEM
    if lossless:
        return plain
    digest = hashlib.sha256(model_name.encode()).hexdigest()[:8]
    return f"{plain[:MAX_STEM].strip('_') or 'model'}_{digest}"


def _is_folder(name: str) -> bool:
    try:
        return Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        return False  # too long for a path, a home that does not exist, a NUL byte
