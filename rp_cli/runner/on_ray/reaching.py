"""Where a Ray cluster is, and whether it answers."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from rp_cli.errors import BadInputError
from rp_cli.runner.on_ray.assigning import Node
from rp_cli.runner.on_ray.link import Link

Message = Mapping[str, Any]

_TICK_SECONDS = 0.05
# Starting a cluster takes seconds; a busy machine needs more.
_CONNECT_SECONDS = 120.0
_KNOCK_SECONDS = 5.0
_ADDRESS = re.compile(r"(?P<host>[^:/\s]+|\[[0-9A-Fa-f:]+\]):(?P<port>[0-9]{1,5})")


def cluster_address(named: str | None) -> str:
    """Return where the cluster is: HOST:PORT, "auto" (that of this machine) or "local" (our own).

    Args:
        named: by the caller; None: what RAY_ADDRESS says, else a cluster of our own, which has
            this machine alone and ends with the run.

    Raises:
        BadInputError: it is no address of a cluster, or nobody answers there; Ray would wait.
    """
    address = os.environ.get("RAY_ADDRESS", "").strip() or "local" if named is None else named
    if address not in ("auto", "local"):
        _knock(address)
    return address


def _knock(address: str) -> None:
    if address.startswith("ray://"):
        raise BadInputError(
            f"{address} is an address of Ray's client, through which results do not come one by "
            "one; run rp on a machine of the cluster, with --address auto."
        )
    found = _ADDRESS.fullmatch(address)
    if not found or int(found["port"]) > 65535:
        raise BadInputError(f"--address takes HOST:PORT, auto or local, not {address!r}.")
    try:
        where = (found["host"].strip("[]"), int(found["port"]))
        socket.create_connection(where, timeout=_KNOCK_SECONDS).close()
    except OSError as error:
        raise BadInputError(
            f"No Ray cluster answers at {address} ({error.strerror or error}); `ray status` on one "
            "of its machines tells the address."
        ) from error


def connected(link: Link, address: str, stop: Callable[[], bool]) -> list[Node]:
    """Wait until the cluster answers; return its nodes.

    Raises:
        BadInputError: it cannot be used.
        KeyboardInterrupt: ``stop`` said so.
    """
    deadline = time.monotonic() + _CONNECT_SECONDS
    while time.monotonic() < deadline:
        if stop():
            raise KeyboardInterrupt
        for message in link.receive(_TICK_SECONDS):
            if message["event"] == "problem":
                raise BadInputError(_no_cluster(address, message["why"]))
            return nodes_in(message)
    raise BadInputError(_no_cluster(address, f"no answer after {_CONNECT_SECONDS:.0f} s"))


def _no_cluster(address: str, why: str) -> str:
    if address == "local":
        return f"A Ray cluster of this machine could not be started: {why}"
    return (
        f"The Ray cluster at {address} cannot be used: {why}. rp must run on a machine of the "
        "cluster (`ray start` makes this one such), with its versions of Python and Ray."
    )


def nodes_in(message: Message) -> list[Node]:
    """Return the nodes that a message tells of."""
    return [Node(**node) for node in message["nodes"]]
