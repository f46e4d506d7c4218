"""Whatever the bytes, a parser answers or raises its own error. `fuzz.py` looks further."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))
from fuzzed_parsers import parsers

PARSERS = parsers()
WORDS = st.sampled_from(
    sorted(
        {
            "schema_version", "detections", "records", "fingerprint", "devices", "facts", "results",
            "index", "name", "family", "vision", "model_type", "architectures", "auto_map", "dims",
            "offset", "type", "float32", "O", "dtype", "shape", "data_offsets", "files", "tests",
            "pool", "models", "status", "seconds", "device", "priority_list", "cuda", "cpu",
            "hw_compatibility", "memory_usage", "peak", "count", "backends", "started_at",
            "error_type", "timestamp", "memory", "alternatives", "recommendations",
        }
    )
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def holds(name: str, data: bytes) -> None:
    parser = PARSERS[name]
    with contextlib.suppress(*parser.errors):
        parser.parse(data)


@pytest.mark.parametrize("name", PARSERS)
def test_what_it_takes_is_taken(name):
    for seed in PARSERS[name].seeds:
        holds(name, seed)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=40)
@given(data=st.binary(max_size=200))
def test_any_bytes(name, data):
    holds(name, data)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60)
@given(value=VALUES, rest=st.binary(max_size=20))
def test_any_document(name, value, rest):
    text = json.dumps(value).encode()
    holds(name, text)
    if name == "browser's tensors":
        holds(name, text + b"\n" + rest)
    if name == "safetensors":
        holds(name, len(text).to_bytes(8, "little") + text + rest)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=40)
@given(data=st.data())
def test_what_it_takes_with_a_part_exchanged(name, data):
    seed = data.draw(st.sampled_from(PARSERS[name].seeds))
    begin = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(begin, len(seed)))
    holds(name, seed[:begin] + data.draw(st.binary(max_size=8)) + seed[end:])
