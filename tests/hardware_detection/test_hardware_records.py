from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection import HARDWARE_NAMES
from hardware_detection.record import Device, ProbeResult, RecordError, from_json, to_json

sizes = st.none() | st.floats(min_value=0, max_value=1e9)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
facts = st.dictionaries(st.text(max_size=10), scalars | st.lists(scalars, max_size=3), max_size=3)
devices = st.builds(
    Device,
    index=st.integers(0, 64),
    name=st.text(max_size=20),
    memory_total_mb=sizes,
    memory_free_mb=sizes,
    dtypes=st.lists(st.sampled_from(["fp32", "fp16", "int8"]), max_size=3).map(tuple),
    problem=st.text(max_size=20),
    facts=facts,
)


@st.composite
def results(draw: st.DrawFn) -> ProbeResult:
    found = tuple(draw(st.lists(devices, max_size=3)))
    proved = any(device.dtypes for device in found)
    status = "available" if proved else draw(st.sampled_from(["absent", "unusable", "error"]))
    sources = draw(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3))
    return ProbeResult(
        draw(st.sampled_from(HARDWARE_NAMES)),
        status,  # type: ignore[arg-type]
        draw(st.text(max_size=20)),
        found,
        draw(facts),
        sources,
        draw(st.booleans()),
    )


@given(results())
def test_a_record_survives_json(result: ProbeResult) -> None:
    assert from_json(json.loads(json.dumps(to_json(result)))) == result


GOOD = to_json(
    ProbeResult(
        "cuda", "available", "r", (Device(0, "n", 1.0, 1.0, ("fp32",)),), {"a": 1}, {"a": "b"}
    )
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), "gpu"),
        (("name",), None),
        (("status",), "yes"),
        (("status",), "absent"),
        (("status",), ["available"]),
        (("reason",), None),
        (("devices",), {}),
        (("devices",), []),
        (("devices", 0), "H100"),
        (("devices", 0, "index"), -1),
        (("devices", 0, "index"), True),
        (("devices", 0, "index"), "0"),
        (("devices", 0, "name"), 3),
        (("devices", 0, "memory_total_mb"), -1),
        (("devices", 0, "memory_total_mb"), float("nan")),
        (("devices", 0, "memory_total_mb"), float("inf")),
        (("devices", 0, "memory_total_mb"), 10**400),
        (("devices", 0, "memory_free_mb"), True),
        (("devices", 0, "dtypes"), "fp32"),
        (("devices", 0, "dtypes"), [1]),
        (("devices", 0, "dtypes"), []),
        (("devices", 0, "problem"), 0),
        (("devices", 0, "facts"), []),
        (("devices", 0, "extra"), 1),
        (("facts",), None),
        (("sources",), {"a": 1}),
        (("retry",), 1),
        (("extra",), 1),
    ],
)
def test_anything_else_is_refused(path: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(GOOD)
    data["devices"] = list(data["devices"])
    data["devices"][0]["dtypes"] = list(data["devices"][0]["dtypes"])
    assert from_json(data)
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(RecordError):
        from_json(data)


def test_available_without_a_proof_cannot_be_said() -> None:
    with pytest.raises(RecordError, match="proofs"):
        ProbeResult("cuda", "available", "trust me", (Device(0, "GPU"),))
