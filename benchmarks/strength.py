"""How strong generated tests are: which planted faults they catch, and on which architecture.

    python benchmarks/strength.py                        # everything: about 15 minutes on two cores
    python benchmarks/strength.py --model gpt2 --fault cache

Each architecture runs on its tiny twin, on the CPU, first as it is (any failure is a false alarm),
then once for each fault of tests/faults that is possible on it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))


def main() -> int:
    """Print a line for each fault and a table at the end; 1 where something was missed."""
    options = _options()
    os.environ.update(RP_WEIGHTS="tiny", HF_HUB_OFFLINE="1")
    os.environ["TEST_HARDWARE_PREFERENCES"] = str({"device": "cpu"})
    from fault_strength import ARCHITECTURES, applicable, measure

    outcomes = []
    for one in ARCHITECTURES:
        if options.model and not any(word in one.model for word in options.model):
            continue
        faults = [f for f in applicable(one) if not options.fault or options.fault in f.name]
        with tempfile.TemporaryDirectory(prefix="rp_") as folder:
            for outcome in measure(one, Path(folder), [None, *faults]):
                outcomes.append(outcome)
                _print(outcome)
    _print_table(outcomes)
    if options.json:
        options.json.write_text(json.dumps([vars(one) for one in outcomes], indent=2) + "\n")
    return int(any(one.caught is not (one.fault is not None) for one in outcomes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", action="append", help="only architectures with this in the name")
    parser.add_argument("--fault", help="only faults with this in the name")
    parser.add_argument("--json", type=Path, help="also write every outcome to this file")
    return parser.parse_args()


def _print(outcome: object) -> None:
    if outcome.fault is None:
        told = f"FALSE ALARM in {outcome.caught_by}" if outcome.caught else "passes as it is"
    else:
        told = f"{outcome.fault:36} {outcome.caught_by or 'MISSED'}"
    print(f"{outcome.architecture:32} {told}", flush=True)


def _print_table(outcomes: Sequence[object]) -> None:
    groups = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.template, outcome.architecture].append(outcome)
    print(f"\n{'template':36} {'architecture':32} caught  false alarms")
    for (template, architecture), found in sorted(groups.items()):
        planted = [one for one in found if one.fault]
        caught = f"{sum(one.caught for one in planted)}/{len(planted)}"
        alarms = sum(one.caught for one in found if one.fault is None)
        print(f"{template:36} {architecture:32} {caught:>6}  {alarms}")
    planted = [one for one in outcomes if one.fault]
    caught = sum(one.caught for one in planted)
    print(f"{caught} of {len(planted)} caught: {100 * caught / max(1, len(planted)):.1f} %")


if __name__ == "__main__":
    sys.exit(main())
