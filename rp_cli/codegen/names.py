"""Names of generated files and classes. A model's name is untrusted; what comes out is not."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from model_family_classifier.database import folder_of
from rp_cli.errors import BadInputError

MAX_STEM = 120

# What huggingface_hub accepts as a repository, without importing it: "name" or "owner/name",
# each part of 1 to 96 of these characters, beginning and ending with a letter, digit or "_".
_PART = r"(?=[\w.-]{1,96}(?:/|$))\w(?:[\w.-]*\w)?"
_REPOSITORY = re.compile(rf"(?:{_PART}/)?{_PART}", re.ASCII)

# Folders that are named after what they hold; whose it is stands in the folder above.
_GENERIC_FOLDER = re.compile(
    r"models?|checkpoints?([_-]?\d+)?|snapshots?|[0-9a-f]{40}|weights|outputs?"
    r"|final|best|latest|main",
    re.IGNORECASE,
)


def resolve_model_name(given: str) -> str:
    """Return the absolute path of a local model folder, or a hub name as it is.

    Raises:
        BadInputError: the name is empty, holds control characters, or is neither a folder nor
            a name that the hub can hold.
    """
    name = given.strip()
    if not name or not name.isprintable():
        raise BadInputError(f"{given!r} is not a model name; give e.g. bert-base-uncased.")
    folder = folder_of(name)
    if folder is not None:
        return folder
    if not is_hub_name(name):
        raise BadInputError(
            f"{name!r} is neither a model folder nor a hub name; "
            "give a folder with a config.json, or a name such as bert-base-uncased."
        )
    return name


def is_hub_name(name: str) -> bool:
    """Whether the hub can hold a repository of that name."""
    barred = "--" in name or ".." in name or name.endswith(".git")
    return _REPOSITORY.fullmatch(name) is not None and not barred


def file_name(model_name: str) -> str:
    """Return the file name of a model's test: ``test_hf_<name>.py``, lower case, ASCII.

    bert-base-uncased -> test_hf_bert_base_uncased.py; a local folder gives its last part, and
    the parts above it as long as they only say what is in there (``my-bert/checkpoint-500``).
    Where characters other than separators are lost, a digest of the whole name keeps two
    names apart.
    """
    return f"test_hf_{stem(model_name)}.py"


def class_name(model_name: str) -> str:
    """Return the name of the test class: ``TestBertBaseUncased``."""
    return "Test" + "".join(part[:1].upper() + part[1:] for part in stem(model_name).split("_"))


def stem(model_name: str) -> str:
    """Return the model's name reduced to a-z, 0-9 and single underscores."""
    base = _folder_name(Path(model_name)) if Path(model_name).is_absolute() else model_name
    plain = re.sub(r"[^a-z0-9]+", "_", base.lower()).strip("_")
    lossless = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", base) and len(plain) <= MAX_STEM
    if lossless:
        return plain
    digest = hashlib.sha256(model_name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{plain[:MAX_STEM].strip('_') or 'model'}_{digest}"


def _folder_name(folder: Path) -> str:
    """Return the last part, and those before it up to the first that names something."""
    parts = folder.parts[1:]
    first = len(parts) - 1
    while first > 0 and _GENERIC_FOLDER.fullmatch(parts[first]):
        first -= 1
    return "/".join(parts[max(first, 0) :])
