"""Checks many model types, each in a child process with a deadline and a bound on memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rp_cli.coverage.check import check_type

DEADLINE_SECONDS = 30.0
MEMORY_BYTES = 16 * 2**30

# A check takes the model type, its Auto class and perhaps more, and returns a row of the table.
Check = Callable[..., dict[str, Any]]


def sweep(
    types: Iterable[tuple[str, ...]],
    deadline: float = DEADLINE_SECONDS,
    check: Check = check_type,
) -> Iterator[dict[str, Any]]:
    """Yield what ``check`` returns for each (model type, Auto class, …), in their order."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rp_cli.coverage.preload"])
    with tempfile.TemporaryDirectory(prefix="rp-coverage-") as home:
        for arguments in types:
            yield _checked(context, check, arguments, home, deadline)
            shutil.rmtree(Path(home, "twins"), ignore_errors=True)


def _checked(
    context: Any, check: Check, arguments: tuple[str, ...], home: str, deadline: float
) -> dict[str, Any]:
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_check, args=(sender, check, arguments, home), daemon=True)
    started = time.perf_counter()
    child.start()
    sender.close()
    answer = None
    try:
        if receiver.poll(deadline):
            answer = receiver.recv_bytes()
    except EOFError:
        pass
    if answer is None and child.is_alive():
        child.kill()
    child.join()
    if answer is not None:
        return dict(json.loads(answer))
    took = time.perf_counter() - started
    cause = (
        f"no answer within {deadline:.0f} s"
        if took >= deadline
        else f"the process died (exit code {child.exitcode})"
    )
    return {
        "model_type": arguments[0],
        "auto_class": arguments[1],
        "status": "failed",
        "cause": cause,
        "seconds": round(took, 2),
    }


def _check(sender: Any, check: Check, arguments: tuple[str, ...], home: str) -> None:
    import resource

    import torch

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os.environ["RP_HOME"] = home
    torch.set_num_threads(1)
    sender.send_bytes(json.dumps(check(*arguments), default=str).encode())


def known_types() -> dict[str, str]:
    """Return model type -> Auto class, for all types with an Auto class."""
    from model_family_classifier.data import data_dir

    index = json.loads((data_dir("model_db") / "architectures.json").read_bytes())
    types = index["model_types"]
    return {name: entry["auto_class"] for name, entry in types.items() if entry["architectures"]}
