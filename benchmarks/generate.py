"""How fast test files are written: for every loadable model type in one process, and for one.

    python benchmarks/generate.py [--rounds 5] [--json FILE]

The peers: formatting the same files with one ruff process for each, and a Typer command that does
nothing. The goal is every type of transformers in 5 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from model_family_classifier import classify_model
from rp_cli.codegen.plan import TestPlan, make_plan
from rp_cli.codegen.render import _source, format_sources, render_all
from rp_cli.codegen.write import draft_tests, write_drafts
from rp_cli.coverage.sweep import known_types

NOOP = "import typer\napp = typer.Typer()\n@app.command()\ndef main(): pass\napp()\n"
PEER_FILES = 20  # enough to know what a process for each file costs
GOAL_SECONDS = 5.0


def all_plans(folder: Path) -> list[TestPlan]:
    """Plan a test for each type with an Auto class, each named by a folder with its config."""
    plans = []
    for model_type in sorted(known_types()):
        model = folder / model_type
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"model_type": model_type}))
        plans.append(make_plan(classify_model(str(model))))
    return plans


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median(rounds: int, work: Callable[[], object]) -> float:
    """Return the median seconds of several rounds."""
    return statistics.median(timed(work) for _ in range(rounds))


def figures(rounds: int, folder: Path) -> dict[str, float]:
    """Measure all, in seconds."""
    (folder / "models").mkdir()
    plans: list[TestPlan] = []
    found = {"classify and plan": timed(lambda: plans.extend(all_plans(folder / "models")))}
    sources = [_source(plan, None) for plan in plans]
    found["files"] = len(plans)
    found["templates"] = median(rounds, lambda: [_source(plan, None) for plan in plans])
    found["format, one process"] = median(rounds, lambda: format_sources(sources))
    few = sources[:PEER_FILES]
    one_by_one = median(rounds, lambda: [format_sources([source]) for source in few])
    found["format, a process for each"] = one_by_one * len(plans) / len(few)
    drafts = draft_tests(plans, folder / "out")

    def write() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        write_drafts(drafts)

    found["write"] = median(rounds, write)
    found["render one"] = median(rounds, lambda: render_all(plans[:1]))
    parts = ("classify and plan", "templates", "format, one process", "write")
    found["everything"] = sum(found[part] for part in parts)
    return found | startup(rounds, folder)


def startup(rounds: int, folder: Path) -> dict[str, float]:
    """Measure the start of one `rp generate`, and of a command that does nothing."""
    (folder / "noop.py").write_text(NOOP)
    rp = shutil.which("rp") or str(Path(sys.executable).with_name("rp"))
    commands = {
        "start of rp generate": [rp, "generate", "--model", "gpt2", "--output-dir", str(folder)],
        "start of a Typer command": [sys.executable, str(folder / "noop.py")],
    }
    environment = {**os.environ, "RP_HOME": str(folder / "home")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    seconds = {}
    for name, words in commands.items():

        def run(words: list[str] = words) -> None:
            subprocess.run(words, check=True, capture_output=True, env=environment)

        run()  # detects the hardware, and warms the file cache
        seconds[name] = median(rounds, run)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rp_") as folder:
        found = figures(options.rounds, Path(folder))
    count = int(found.pop("files"))
    for name, seconds in found.items():
        print(f"{name:30} {seconds:8.3f} s")
    verdict = "within" if found["everything"] <= GOAL_SECONDS else "beyond"
    speed = count / found["everything"]
    print(f"{count} files, {speed:.0f} per second: {verdict} the goal of {GOAL_SECONDS:g} s")
    batch = found["format, a process for each"] / found["format, one process"]
    print(f"formatting in one process is {batch:.0f} times as fast as one process for each")
    start = found["start of rp generate"] / found["start of a Typer command"]
    print(f"rp generate starts in {start:.2f} times what a Typer command takes")
    if options.json:
        options.json.write_text(json.dumps({"files": count, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
