"""The way from ``rp run`` to the process that speaks to Ray."""

from __future__ import annotations

import selectors
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rp_cli.errors import BadInputError
from rp_cli.runner.capture import Capture
from rp_cli.runner.workers import Worker

Message = dict[str, Any]

# Ray tells its workers to end, and waits a little.
_END_SECONDS = 20.0


class Link:
    """Starts the process, and ends it, with what it started, on leaving.

    Args:
        environment: of the process, the whole of it.
        folder: an empty one; what Ray puts on disk lies there.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._words = Capture()
        scratch = folder / "nodes"
        scratch.mkdir()
        # For a cluster of our own: what a killed node leaves goes with the run's folder.
        environment = {**environment, "TMPDIR": str(scratch)}
        self._worker = Worker.start("ray", "ray", environment, self._words, folder)
        self._selector = selectors.DefaultSelector()
        for source in (self._words, self._worker.channel):
            self._selector.register(source, selectors.EVENT_READ)

    def send(self, message: Message) -> None:
        """Send a message; a process that is gone is noticed by who reads."""
        self._worker.send(message)

    def receive(self, seconds: float) -> list[Message]:
        """Return what was said, waiting for it at most so long.

        Raises:
            BadInputError: the process is gone.
        """
        found: list[Message] = []
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._words:
                self._words.read()
                continue
            messages = self._worker.channel.receive()
            if messages is None:
                raise BadInputError(f"The process that speaks to Ray has ended. {self._last()}")
            found += [message for message, _ in messages]
        return found

    def _last(self) -> str:
        lines = self._words.close().strip().splitlines()
        return f"It said: {lines[-1]}" if lines else ""

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        """End what runs; a cluster that is not ours goes on."""
        self._worker.dismiss(_END_SECONDS)
        self._worker.kill()
        self._selector.close()
        self._words.close()
