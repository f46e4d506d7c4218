"""How long test files take, and what memory: four ways, in one run.

    python benchmarks/run.py [--only bert|twins] [--files N] [--rounds 1] [--json FILE]

First, each of ten files gets a BERT of the base size (110 million parameters, random, made here on
this disk) from the pool and runs three tests on it; then the files are generated ones of twenty
models of the embedding family, each on its tiny twin. They are run

- as ``python FILE``, one after the other;
- with ``pytest`` in one process, which shares the pool and isolates nothing;
- with ``pytest -n 2``;
- with ``rp run``, which isolates every file.

Peak memory is that of all processes together: the sum of their proportional set sizes, in which a
page that several processes share counts once, looked at five times a second. One round takes
about four minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil

GOALS = (("python FILE, one by one", 8.0), ("pytest -n 2", 2.0), ("pytest, one process", 1.0))
TWINS = (
    "bert-base-uncased", "bert-large-uncased", "roberta-base", "distilbert-base-uncased",
    "albert-base-v2", "google/electra-small-discriminator", "microsoft/mpnet-base",
    "xlm-roberta-base", "camembert-base", "microsoft/deberta-v3-base",
    "sentence-transformers/all-MiniLM-L6-v2", "answerdotai/ModernBERT-base", "roberta-large",
    "nghuyong/ernie-2.0-base-en", "google/rembert", "junnyu/roformer_chinese_base",
    "facebook/esm2_t6_8M_UR50D", "distilroberta-base", "BAAI/bge-small-en-v1.5",
    "intfloat/multilingual-e5-small",
)  # fmt: skip
SOURCE = '''\
"""Test {number} of a BERT of the base size."""

import sys
import unittest

from resource_pool import get_global_resource_pool

MODEL = {model!r}


def load():
    from transformers import AutoModel

    return AutoModel.from_pretrained(MODEL)


class TestBert(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import torch

        cls.torch = torch
        cls.model = get_global_resource_pool().get_model("bert", MODEL, constructor=load)

    def run_model(self, rows=2, tokens=16):
        ids = self.torch.arange(rows * tokens).reshape(rows, tokens) + {number}
        with self.torch.no_grad():
            return self.model(input_ids=ids).last_hidden_state

    def test_shape(self):
        self.assertEqual(tuple(self.run_model().shape), (2, 16, 768))

    def test_finite(self):
        self.assertTrue(bool(self.torch.isfinite(self.run_model()).all()))

    def test_same_input_same_output(self):
        self.assertTrue(self.torch.allclose(self.run_model(), self.run_model(), atol=1e-5))


if __name__ == "__main__":
    unittest.main()
'''


RP = str(Path(sys.executable).parent / "rp")


class Figures(NamedTuple):
    """What a way took: seconds of wall clock and of CPU, MiB of all its processes at the peak."""

    wall: float
    cpu: float
    peak: float


def write_files(folder: Path, count: int) -> None:
    """Make the model and the files that use it."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder / "bert")
    for number in range(count):
        text = SOURCE.format(number=number, model=str(folder / "bert"))
        (folder / f"test_bert_{number}.py").write_text(text)


def write_twins(folder: Path, count: int) -> None:
    """Generate a test for each of some models of a family."""
    models = [word for name in TWINS[:count] for word in ("--model", name)]
    subprocess.run(
        [RP, "generate", *models, "--output-dir", str(folder)], check=True, capture_output=True
    )


def ways(folder: Path) -> dict[str, list[list[str]]]:
    """Return the commands of each way, one after the other."""
    files = sorted(map(str, folder.glob("test_*.py")))
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    # From another folder, as every test runner is called: nothing of the repository counts.
    alone = ["-c", "/dev/null", "--rootdir", str(folder)]
    return {
        "python FILE, one by one": [[sys.executable, file] for file in files],
        "pytest, one process": [[*pytest, *alone, *files]],
        "pytest -n 2": [[*pytest, *alone, "-n", "2", *files]],
        "rp run": [[RP, "run", *files]],
    }


def run(commands: list[list[str]], environment: dict[str, str], folder: Path) -> Figures:
    """Run commands one after the other, and look at their memory meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with Peak() as peak:
        for command in commands:
            done = subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Figures(wall, cpu, peak.bytes / 2**20)


class Peak:
    """Looks at the memory of all descendants of this process until it is left."""

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._done.wait(0.2):
            now = sum(map(_pss, psutil.Process().children(recursive=True)))
            self.bytes = max(self.bytes, now)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def _pss(process: psutil.Process) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def measure(folder: Path, rounds: int, environment: dict[str, str]) -> dict[str, Figures]:
    """Measure each way in each round, so that a slow moment hits all; the medians count."""
    # What is made once, twins and what was detected, is there; the file cache is warm.
    run(ways(folder)["rp run"], environment, folder)
    taken: dict[str, list[Figures]] = {name: [] for name in ways(folder)}
    for _ in range(rounds):
        for name, commands in ways(folder).items():
            taken[name].append(run(commands, environment, folder))
            print(f"  {name}: {taken[name][-1].wall:.1f} s", file=sys.stderr, flush=True)
    return {
        name: Figures(*(statistics.median(column) for column in zip(*rows, strict=True)))
        for name, rows in taken.items()
    }


def show(title: str, figures: dict[str, Figures]) -> None:
    """Print a line per way, and how the goals are met."""
    print(f"{title:26}{'wall s':>8}{'CPU s':>8}{'peak MiB':>10}")
    for name, (wall, cpu, peak) in figures.items():
        print(f"{name:26}{wall:8.1f}{cpu:8.1f}{peak:10.0f}")
    ours = figures["rp run"].wall
    for name, goal in GOALS:
        print(f"rp run is {figures[name].wall / ours:.2f} x as fast as {name} (goal: {goal:g})")


def of_part(part: str, count: int, rounds: int) -> dict[str, Figures]:
    """Write the files of a part, measure them and return the figures."""
    folder = Path(tempfile.mkdtemp(prefix="rp_benchmark_"))
    environment = {**os.environ, "RP_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    # As for an ordinary user: modules are compiled once and not at every start.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["RP_WEIGHTS"] = "tiny" if part == "twins" else "auto"
    try:
        (write_twins if part == "twins" else write_files)(folder, count)
        return measure(folder, rounds, environment)
    finally:
        shutil.rmtree(folder)


# What the files are, and how many of them.
PARTS = {"bert": ("{} files of a BERT-base", 10), "twins": ("{} generated files", len(TWINS))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--files", type=int, help="of each kind; otherwise 10 and 20")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    rounds = f"{options.rounds} round{'s' * (options.rounds != 1)}"
    print(f"{os.cpu_count()} cores, medians of {rounds}")
    found = {}
    for part in [options.only] if options.only else PARTS:
        title, count = PARTS[part]
        count = options.files or count
        figures = of_part(part, count, options.rounds)
        show(title.format(count), figures)
        found[part] = {name: row._asdict() for name, row in figures.items()}
    if options.json:
        facts = {"machine": platform.platform(), "python": platform.python_version()}
        options.json.write_text(json.dumps({**facts, "figures": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
