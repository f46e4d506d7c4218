"""Figures in the pages are those that the benchmarks printed: benchmarks/results."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]


def result(name: str) -> str:
    return (TOP / "benchmarks" / "results" / name).read_text(encoding="utf-8")


def page(name: str) -> str:
    """Return a page's text with its lines joined."""
    return " ".join((TOP / name).read_text(encoding="utf-8").split())


def test_the_page_of_generated_tests_says_how_many_faults_are_caught_and_which_are_not():
    printed, told = result("strength-2-cores.txt"), page("docs/generation.md")
    caught, planted, share = re.search(
        r"^(\d+) of (\d+) caught: (\S+) %$", printed, re.MULTILINE
    ).groups()
    assert f"{caught} of {planted} were caught ({share} %)" in told
    assert "FALSE ALARM" not in printed
    missed = re.findall(r"^(\S+) +(.*?) +MISSED$", printed, re.MULTILINE)
    assert len(missed) == int(planted) - int(caught)
    rows = re.findall(r"\| (\S+/\S+) \| ([^|]+) \| [^|]+ \|", told)
    assert sorted(rows) == sorted(missed)


def test_readme_says_how_far_predictions_are_from_measurements_on_cpu_and_gpu():
    told = page("README.md")
    worst = dict(
        re.findall(
            r"^(predicted|accelerate) +median .*worst +([\d.]+)%$",
            result("prediction-2-cores.txt"), re.MULTILINE,
        )
    )  # fmt: skip
    assert f"| {round(float(worst['accelerate']))} % | | {worst['predicted']} % |" in told
    errors = [
        float(found)
        for found in re.findall(r" (-?[\d.]+)% ", result("cuda-h200.txt").partition("error")[2])
    ]
    assert len(errors) == 5
    assert max(errors) < 0
    assert f"| {-max(errors)} to {-min(errors)} % too low |" in told
