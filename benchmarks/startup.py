"""How long commands take to start, as ratios in one run.

    python benchmarks/startup.py [--rounds 11] [--json FILE]

Every command is run once to warm the file cache, then all of them once per round, one after
another, so that a slow moment of the machine hits all alike; the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NOOP = "import typer\napp = typer.Typer()\n@app.command()\ndef main(): pass\napp()\n"

# name -> (arguments, the peer that it is measured against, the most it may take of it or None)
Commands = dict[str, tuple[list[str], str, float | None]]


def commands(folder: Path) -> Commands:
    """Return what is measured; the peers come first."""
    scripts = Path(sys.executable).parent
    noop = folder / "noop.py"
    noop.write_text(NOOP)
    rp = [str(scripts / "rp")]
    generate = [*rp, "generate", "--model", "bert-base-uncased", "--output-dir", str(folder)]
    return {
        "python -c pass": ([sys.executable, "-c", "pass"], "python -c pass", None),
        "Typer command that does nothing": (
            [sys.executable, str(noop)], "Typer command that does nothing", None,
        ),
        "import resource_pool": (
            [sys.executable, "-c", "import resource_pool"], "python -c pass", None,
        ),
        "rp --help": ([*rp, "--help"], "Typer command that does nothing", 1.5),
        "rp classify bert-base-uncased": (
            [*rp, "classify", "bert-base-uncased"], "Typer command that does nothing", 1.5,
        ),
        "rp detect (valid cache)": ([*rp, "detect"], "Typer command that does nothing", 1.5),
        "rp generate (valid cache)": (generate, "Typer command that does nothing", 2.5),
        "hf --help": ([str(scripts / "hf"), "--help"], "Typer command that does nothing", None),
        "accelerate env": (
            [str(scripts / "accelerate"), "env"], "Typer command that does nothing", None,
        ),
        "transformers env": (
            [str(scripts / "transformers"), "env"], "Typer command that does nothing", None,
        ),
    }  # fmt: skip


def measure(measured: Commands, rounds: int, environment: dict[str, str]) -> dict[str, float]:
    """Return the median seconds of each command that is installed."""
    there = {name: args for name, (args, _, _) in measured.items() if shutil.which(args[0])}
    seconds: dict[str, list[float]] = {name: [] for name in there}
    for number in range(rounds + 1):
        for name, arguments in there.items():
            started = time.perf_counter()
            subprocess.run(arguments, check=True, capture_output=True, env=environment)
            if number:  # the first round warms the file cache
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure and print one line per command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "RP_HOME": folder}
        # As for an ordinary user: modules are compiled once and not at every start.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        measured = commands(Path(folder))
        medians = measure(measured, options.rounds, environment)
    print(f"{'command':34}{'ms':>7}  {'ratio':>6}  {'goal':>6}  measured against")
    for name, (_, peer, goal) in measured.items():
        if name not in medians:
            print(f"{name:34}{'not installed':>15}")
            continue
        ratio = medians[name] / medians[peer]
        limit = f"{goal:.1f}" if goal else "-"
        print(f"{name:34}{1000 * medians[name]:7.0f}  {ratio:6.2f}  {limit:>6}  {peer}")
    extra = medians["import resource_pool"] - medians["python -c pass"]
    print(f"import resource_pool costs {1000 * extra:.0f} ms over bare Python (goal: 50)")
    if options.json:
        facts = {"machine": platform.platform(), "python": platform.python_version()}
        options.json.write_text(json.dumps({**facts, "seconds": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
