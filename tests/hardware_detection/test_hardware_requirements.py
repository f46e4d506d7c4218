from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection.errors import RequirementError
from hardware_detection.names import HARDWARE_NAMES
from hardware_detection.requirements import NAMES, measure, parse, unmet
from hardware_detection.testing import fake_report

TWO_GPUS: list[dict[str, Any]] = [
    {"memory_total_mb": 24576.0, "memory_free_mb": 20480.0},
    {"memory_total_mb": 40960.0, "memory_free_mb": 1024.0},
]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return fake_report(
        cuda=TWO_GPUS,
        cpu={"usable_cores": 6},
        errors={"rocm": "torch is not built for ROCm"},
        memory_total_mb=32768.0,
        memory_available_mb=8192.0,
    )


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("cuda", True),
        ("cuda>=2", True),
        ("cuda>2", False),
        ("cuda==2", True),
        ("cuda=2", True),
        ("cuda!=2", False),
        ("cuda<3,cuda<=2", True),
        ("mps", False),
        ("mps=0", True),
        ("rocm", False),
        ("cpu>=1", True),
        ("vram>=40GiB", True),
        ("vram>40GiB", False),
        ("vram>=42GB", True),
        ("vram>=43GB", False),
        ("vram>=40960MiB", True),
        ("vram_free>=20GiB", True),
        ("vram_free>20GiB", False),
        ("vram_total>=64GiB", True),
        ("vram_total>0.0625TiB", False),
        ("memory>=32GiB,memory_free>=8GiB", True),
        ("memory_free>8GiB", False),
        ("cores>=6", True),
        ("cores>6", False),
        (" CUDA >= 1 , vram >= 40 gib ", True),
        ("cuda>=1,mps>=1", False),
    ],
)
def test_what_holds(report: dict[str, Any], text: str, met: bool) -> None:
    assert (not unmet(parse(text), report)) is met


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "cannot read"),
        (",", "cannot read"),
        ("cuda>=1,", "cannot read"),
        ("cuda>=", "cannot read"),
        (">=1", "cannot read"),
        ("cuda>=-1", "cannot read"),
        ("cuda>=1e9", "has no unit|cannot read"),
        ("cuda=>1", "cannot read"),
        ("cuda>=1 vram>=2GiB", "cannot read"),
        ("cuda>=1GiB", "no unit"),
        ("vram", "needs a size"),
        ("vram>=40", "needs a unit"),
        ("vram>=40G", "needs a unit"),
        ("gpu>=1", "unknown name 'gpu' in a requirement .*by its kind, such as cuda"),
        ("cudda>=1", "did you mean 'cuda'?"),
        ("vram_fre>=1GiB", "did you mean 'vram_free'?"),
        ("cuda>=٣", "cannot read"),
        ("__import__('os')", "cannot read"),
    ],
)
def test_what_cannot_be_read(text: str, word: str) -> None:
    with pytest.raises(RequirementError, match=word):
        parse(text)


def test_the_sentence_says_what_is_there(report: dict[str, Any]) -> None:
    problems = unmet(parse("cuda>=3,rocm,vram>=80GiB,cores>=8"), report)
    assert problems == [
        "cuda>=3 is not met: this machine has 2",
        "rocm is not met: this machine has none (torch is not built for ROCm)",
        "vram>=80GiB is not met: this machine has 40.0 GiB",
        "cores>=8 is not met: this machine has 6",
    ]


def test_without_a_gpu_there_is_no_vram() -> None:
    nothing = fake_report()
    assert measure("vram", nothing) == measure("vram_total", nothing) == 0.0
    assert unmet(parse("vram>=1MiB"), nothing)


OPERATORS = {
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "==": lambda a, b: a == b,
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
    "!=": lambda a, b: a != b,
}


@given(
    st.sampled_from(HARDWARE_NAMES),
    st.sampled_from(sorted(OPERATORS)),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_counts_mean_what_they_say(name: str, sign: str, wanted: int, there: int) -> None:
    report = fake_report(cuda=[{}] * there)
    found = report["details"][name]["device_count"]
    assert (not unmet(parse(f"{name}{sign}{wanted}"), report)) is OPERATORS[sign](found, wanted)


@given(st.integers(0, 10**6), st.sampled_from(["MiB", "GiB", "TiB", "MB", "GB", "TB"]))
def test_a_size_is_the_same_in_any_case(number: int, unit: str) -> None:
    texts = (f"vram>={number}{unit}", f"VRAM >= {number} {unit.lower()}")
    first, second = (parse(text)[0] for text in texts)
    assert (first.name, first.comparison, first.value) == ("vram", ">=", second.value)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        clauses = parse(text)
    except RequirementError:
        return
    assert all(clause.name in NAMES for clause in clauses)
    assert unmet(clauses, fake_report()) is not None
