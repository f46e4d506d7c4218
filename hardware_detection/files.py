"""Where rp keeps its files, and how it writes them: beside the target first, then renamed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def rp_home() -> Path:
    """Return the folder for everything that rp keeps: caches, twins, records.

    ``RP_HOME`` decides; without it, the user's cache folder of the platform.
    """
    chosen = os.environ.get("RP_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("rp", appauthor=False)


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` so that a reader sees the old file or the new one.

    The folder must exist. Nothing is left behind when the write fails.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    import secrets

    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        # "x" with the usual mode, where tempfile would make a file that only its owner can read.
        with temporary.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
