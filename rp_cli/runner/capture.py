"""What a child writes, kept within bounds: its beginning and its end, however much there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 64 * 1024
_READ_BYTES = 1 << 20
# At its end, a child may have left a pipe full, and a process that goes on filling it.
_LAST_BYTES = 1 << 24


class Capture:
    """A pipe that a child writes into and we read; memory stays bounded.

    Args:
        forward: gets every piece of bytes as it comes.
    """

    def __init__(self, forward: Callable[[bytes], object] = lambda _: None) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        _widen(self.writer)
        self._forward = forward
        self._head, self._tail = bytearray(), bytearray()
        self._total = 0

    def fileno(self) -> int:
        """Return what a selector needs."""
        return self._reader

    def hand_over(self) -> None:
        """Close our copy of the writing end; the child has its own."""
        os.close(self.writer)
        self.writer = -1

    def read(self) -> bool:
        """Read a piece; return False at the end, and where there is nothing now."""
        try:
            data = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return False
        self._keep(data)
        return bool(data)

    def _keep(self, data: bytes) -> None:
        self._forward(data)
        self._total += len(data)
        room = HEAD_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[:-TAIL_BYTES]

    def close(self) -> str:
        """Read what is there, close the pipe and return the text, UTF-8 with replacements."""
        for _ in range(_LAST_BYTES // _READ_BYTES):
            if not self.read():
                break
        for fd in (self._reader, self.writer):
            with suppress(OSError):
                os.close(fd)
        left_out = self._total - len(self._head) - len(self._tail)
        gap = f"\n[... {left_out} bytes left out ...]\n".encode() if left_out else b""
        return (bytes(self._head) + gap + bytes(self._tail)).decode("utf-8", errors="replace")


def _widen(pipe: int) -> None:
    """Let a pipe hold more (Linux): a child that says much is not stopped at every 64 KiB."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):  # refused where the user has many pipes
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _READ_BYTES)
