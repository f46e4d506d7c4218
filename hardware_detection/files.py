"""Where rp keeps its files, and how it reads and writes them."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from hardware_detection.errors import SettingError


def rp_home() -> Path:
    """Return the folder for everything that rp keeps: caches, twins, records.

    ``RP_HOME`` decides; without it, the user's cache folder of the platform.

    Raises:
        SettingError: RP_HOME begins with a user whom this system does not know.
    """
    chosen = os.environ.get("RP_HOME")
    if chosen:
        try:
            return Path(chosen).expanduser()
        except RuntimeError:
            raise SettingError(
                f"RP_HOME is {chosen!r}, and there is no such user here; set it to a folder"
            ) from None
    from platformdirs import user_cache_path

    return user_cache_path("rp", appauthor=False)


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of a file, which nobody vouches for.

    Raises:
        OSError: it cannot be read, is larger than ``most`` bytes, or is no regular file: opening
            a pipe would wait for a writer for ever, and a device never ends.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(most + 1)
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise OSError(0, f"it is larger than the {most >> 20} MiB that rp reads")
    return content


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` so that a reader sees the old file or the new one.

    The folder must exist. A link stays one, and its target is written; a file keeps its
    permissions. Nothing is left behind when the write fails. What UTF-8 cannot hold, half of a
    surrogate pair, is written as the escape that JSON, YAML and Python have for it.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    import secrets

    target = Path(os.path.realpath(path))
    mode = _mode(target)
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        # Never readable for more people than the file: it is made with its permissions.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(temporary, flags, 0o666 if mode is None else mode)
        with os.fdopen(
            descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n"
        ) as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if mode is not None:
            temporary.chmod(mode)  # what the umask took away
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
