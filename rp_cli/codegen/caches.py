"""rp's own caches on this disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from rp_cli.errors import OutputError


def clear_caches() -> str:
    """Delete what rp can make again, the default hardware cache and the twins; say what was there.

    Raises:
        OutputError: something cannot be deleted, or is a link to what may be somebody else's.
    """
    from hardware_detection import default_cache_path
    from hardware_detection.files import rp_home

    cleared = [str(path) for path in (default_cache_path(), rp_home() / "twins") if _removed(path)]
    return f"Cleared {' and '.join(cleared)}." if cleared else "The caches were empty."


def _removed(path: Path) -> bool:
    """Delete a file or folder; return whether there was one."""
    if path.is_symlink():
        raise OutputError(f"{path} is a link and is not cleared; delete it yourself.")
    try:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            return False
    except OSError as error:
        raise OutputError(f"Cannot clear {path}: {error.strerror or error}.") from error
    return True
