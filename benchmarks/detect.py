"""How long detection takes, as ratios in one run, beside tools that answer similar questions.

    python benchmarks/detect.py [--rounds 7] [--web] [--json FILE]

Measured as in startup.py: every command once to warm the file cache, then all of them once per
round, one after another; the median of the rounds counts. What else is installed counts too:
without torch, the proof of OpenVINO takes longest where that is here. `accelerate env`,
`transformers env` and `torch.utils.collect_env` tell versions and what PyTorch says; they compute
nothing on a device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from startup import NOOP, Commands, measure

NOTHING = "Typer command that does nothing"
IMPORT = "import torch"
# As where torch is not installed: a module that is None cannot be found.
WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; sys.argv = ['rp', 'detect', '--refresh'];"
    " from rp_cli.app import main; main()"
)
FIRST_WITHOUT_TORCH_S = 0.5


def commands(folder: Path, *, web: bool) -> Commands:
    """Return what is measured: name -> (arguments, peer, the most it may take of the peer)."""
    scripts = Path(sys.executable).parent
    noop = folder / "noop.py"
    noop.write_text(NOOP)
    python, rp = sys.executable, str(scripts / "rp")
    measured: Commands = {
        NOTHING: ([python, str(noop)], NOTHING, None),
        IMPORT: ([python, "-c", "import torch"], IMPORT, None),
        "rp detect (valid cache)": ([rp, "detect"], NOTHING, 1.5),
        "rp detect --refresh, no torch": ([python, "-c", WITHOUT_TORCH], NOTHING, None),
        "rp detect --refresh": ([rp, "detect", "--refresh"], IMPORT, 1.3),
        "accelerate env": ([str(scripts / "accelerate"), "env"], IMPORT, None),
        "transformers env": ([str(scripts / "transformers"), "env"], IMPORT, None),
        "torch.utils.collect_env": ([python, "-m", "torch.utils.collect_env"], IMPORT, None),
    }
    if web:
        measured["rp detect --refresh --web"] = ([rp, "detect", "--refresh", "--web"], IMPORT, None)
    return measured


def main() -> None:
    """Measure and print one line per command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--web", action="store_true", help="also start the installed browsers")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # As for an ordinary user: modules are compiled once and not at every start.
        environment = {**os.environ, "RP_HOME": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        measured = commands(Path(folder), web=options.web)
        # A file of its own: the others write the default one anew in each round.
        measured["rp detect (valid cache)"][0].extend(["--cache", str(Path(folder) / "hw.json")])
        medians = measure(measured, options.rounds, environment)
    print(f"{'command':32}{'ms':>7}  {'ratio':>6}  {'goal':>5}  measured against")
    for name, (_, peer, goal) in measured.items():
        if name in medians:
            limit = f"{goal:.1f}" if goal else "-"
            ratio = medians[name] / medians[peer]
            print(f"{name:32}{1000 * medians[name]:7.0f}  {ratio:6.2f}  {limit:>5}  {peer}")
    seconds = medians["rp detect --refresh, no torch"]
    print(f"first detection without torch: {seconds:.2f} s (goal: {FIRST_WITHOUT_TORCH_S} s)")
    if options.json:
        facts = {"machine": platform.platform(), "python": platform.python_version()}
        options.json.write_text(json.dumps({**facts, "seconds": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
