"""Fuzz a parser with coverage as the guide (pip install atheris; Linux, macOS).

    python tests/fuzz/fuzz.py "hardware cache" -max_total_time=60
    python tests/fuzz/fuzz.py --all -max_total_time=60      # one after another, 60 s each

What it finds lies in crash-* in the current folder and is printed with its traceback. The options
with one dash are libFuzzer's.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

_PACKAGES = ["hardware_detection", "model_family_classifier", "resource_pool", "rp_cli"]

with atheris.instrument_imports(include=_PACKAGES):
    from fuzzed_parsers import Parser, parsers

    # rp imports what it needs when it needs it: here, so that it is instrumented.
    PARSERS = parsers()
    for _parser in PARSERS.values():
        for _seed in _parser.seeds:
            with contextlib.suppress(*_parser.errors):
                _parser.parse(_seed)


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz one parser until libFuzzer ends the process."""
    parser = PARSERS[name]

    def once(data: bytes) -> None:
        with contextlib.suppress(*parser.errors):
            parser.parse(data)

    with tempfile.TemporaryDirectory() as folder:
        corpus = _corpus(Path(folder), parser, once)
        atheris.Setup([sys.argv[0], *options, corpus], once)
        atheris.Fuzz()


def _corpus(folder: Path, parser: Parser, once: object) -> str:
    for number, seed in enumerate(parser.seeds):
        (folder / str(number)).write_bytes(seed)
    return str(folder)


def main() -> None:
    """Fuzz the parser that is named, or all."""
    name, *options = sys.argv[1:]
    if name != "--all":
        return fuzz(name, options)
    failed = [
        one
        for one in PARSERS
        if subprocess.run([sys.executable, __file__, one, *options], check=False).returncode
    ]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
