"""A pool under mixed load with faults: does its memory stay flat, is its ledger exact?

    python benchmarks/soak.py [--minutes 10] [--threads 8] [--json FILE]

Threads load, lease, move, clean up and ask for real torch modules of 1 to 16 MiB, through one pool
with the real machine's memory. Some constructors fail, dawdle, or run out of memory; some callers
change what they leased. Every tenth of the time all threads stop, the pool is cleared, and what is
left is printed: resident memory, and what the ledger charges (which must be nothing).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import random
import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import torch

from hardware_detection.testing import fake_report
from resource_pool import PoolError, ResourcePool

MIB = 2**20
STEPS = 10
EXPECTED = (PoolError, ZeroDivisionError, MemoryError)


class Block(torch.nn.Module):
    """A module of so many MiB of zeros, quickly made."""

    def __init__(self, mib: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(mib * MIB // 4), requires_grad=False)
        self.train(False)


def constructor(rng: random.Random, mib: int) -> Any:
    """Return a constructor of a module of so many MiB, and of a random fate."""
    fate = rng.random()

    def load() -> Any:
        if fate < 0.05:
            raise ZeroDivisionError("a planned failure")
        if fate < 0.10:
            raise MemoryError("a planned lack of memory")
        if fate < 0.15:
            time.sleep(0.01)  # a slow load: others go on beside it
        return Block(mib)

    return load


def act(pool: ResourcePool, rng: random.Random) -> str:
    """Do one random thing; return what it was."""
    number = rng.randrange(24)
    name, mib = f"m{number}", 1 + number % 16
    wish = {"device": "cpu", "precision": rng.choice(["fp32", "fp32", "bf16"])}
    load, action = constructor(rng, mib), rng.random()
    if action < 0.55:
        pool.get_model("embedding", name, load, wish)
        return "get"
    if action < 0.75:
        with pool.lease("embedding", name, load, wish) as model:
            if rng.random() < 0.1:
                model.train()  # the guard finds it, and the next one gets a clean model
        return "lease"
    if action < 0.85:
        pool.get_tokenizer("embedding", name, lambda: [0] * 1000)
        return "tokenizer"
    if action < 0.92:
        pool.cleanup_unused_resources(max_age_minutes=rng.choice([0, 0.001, 30]))
        return "cleanup"
    if action < 0.96:
        pool.get_stats()
        return "stats"
    pool.generate_error_report(name, "cpu", "out of memory. Tried to allocate 2.00 GiB")
    return "report"


def work(pool: ResourcePool, seed: int, until: float, done: Counter[str]) -> None:
    """Act until the time is over; anything but an expected error ends the soak."""
    rng = random.Random(seed)
    while time.monotonic() < until:
        try:
            done[act(pool, rng)] += 1
        except EXPECTED as error:
            done[type(error).__name__] += 1


def resident_mib() -> float:
    """Return this process' memory after everything that can be given back was given back."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / MIB


def step(pool: ResourcePool, seconds: float, threads: int, number: int) -> dict[str, Any]:
    """Let all threads work, then clear; return what is left."""
    counts = [Counter[str]() for _ in range(threads)]
    failures: list[BaseException] = []
    until = time.monotonic() + seconds

    def guarded(seed: int, done: Counter[str]) -> None:
        try:
            work(pool, seed, until, done)
        except BaseException as error:
            failures.append(error)

    workers = [
        threading.Thread(target=guarded, args=(1000 * number + index, counts[index]))
        for index in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    kept = pool.clear()["kept"]
    stats = pool.get_stats()
    return {
        "operations": sum(sum(one.values()) for one in counts),
        "errors": sum(one[kind.__name__] for one in counts for kind in EXPECTED),
        "evictions": stats["management"]["evictions"],
        "mutations": stats["management"]["mutations"],
        "kept": len(kept),
        "charged": stats["devices"],
        "resident_mib": resident_mib(),
    }


def main() -> None:
    """Soak, and say at the end whether memory stayed flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("resource_pool").setLevel(logging.CRITICAL)  # thousands of planned faults
    pool = ResourcePool(hardware=fake_report, monitor_interval=1.0)
    rows = []
    for number in range(STEPS):
        rows.append(step(pool, 60 * options.minutes / STEPS, options.threads, number))
        print(", ".join(f"{name} {value}" for name, value in shown(rows[-1])), flush=True)
    sizes = [row["resident_mib"] for row in rows]
    early, late = statistics.median(sizes[: STEPS // 2]), statistics.median(sizes[STEPS // 2 :])
    exact = all(not row["charged"] and not row["kept"] for row in rows)
    print(
        f"{sum(row['operations'] for row in rows)} operations; resident memory {min(sizes):.0f} to "
        f"{max(sizes):.0f} MiB, median {early:.0f} in the first half and {late:.0f} in the second; "
        f"the ledger is {'exact' if exact else 'NOT EXACT'}"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(0 if exact else 1)


def shown(row: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return a row's figures as they are printed."""
    return [(name, round(v, 1) if isinstance(v, float) else v) for name, v in row.items()]


if __name__ == "__main__":
    main()
