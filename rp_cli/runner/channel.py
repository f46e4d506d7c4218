"""Messages between ``rp run`` and its workers: JSON over a socket, with open files beside it."""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_LENGTH_BYTES = 4
_READ_BYTES = 1 << 16
_MOST_FDS = 16

Message = dict[str, Any]


class Channel:
    """One end of a socket pair. ``receive`` is called when there is something to read."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._bytes = bytearray()
        self._fds: deque[int] = deque()

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Return our end, and the other one to be handed to somebody."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def fileno(self) -> int:
        """Return what a selector needs."""
        return self._socket.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message and duplicates of open files.

        Raises:
            OSError: the other end is gone.
        """
        payload = json.dumps({**message, "fds": len(fds)}).encode()
        data = len(payload).to_bytes(_LENGTH_BYTES, "big") + payload
        sent = socket.send_fds(self._socket, [data], list(fds)) if fds else 0
        self._socket.sendall(data[sent:])

    def receive(self) -> list[tuple[Message, list[int]]] | None:
        """Read once; return the messages that are whole by now, or None when the end is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, _READ_BYTES, _MOST_FDS)
        except OSError:
            return None
        for fd in fds:
            os.set_inheritable(fd, False)
        self._fds += fds
        self._bytes += data
        return self._whole() if data else None

    def _whole(self) -> list[tuple[Message, list[int]]]:
        found = []
        while len(self._bytes) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._bytes[:_LENGTH_BYTES], "big")
            if len(self._bytes) < end:
                break
            message = json.loads(self._bytes[_LENGTH_BYTES:end])
            del self._bytes[:end]
            found.append((message, [self._fds.popleft() for _ in range(message.pop("fds"))]))
        return found

    def close(self) -> None:
        """Close this end; the other one reads the end of the stream."""
        with suppress(OSError):
            self._socket.close()
