"""The preference dictionary of the guides: every key, every legal value, clear errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resource_pool import PreferenceError, preferences_from_environment
from resource_pool._preferences import DeviceName, Preferences, parse_device, parse_preferences

GUIDE = {
    "device": "auto",
    "priority_list": ["cuda", "mps", "webnn", "webgpu", "cpu"],
    "preferred_index": 0,
    "compatible_devices": ["cuda", "cpu"],
    "hw_compatibility": {
        "cuda": {"compatible": True, "memory_usage": {"peak": 1200}},
        "mps": {"compatible": False, "reason": "not fully supported"},
        "webgpu": {"compatible": True},
    },
    "force_device": False,
    "force_low_memory": False,
    "precision": "fp16",
    "model_family": "embedding",
    "subfamily": "web_deployment",
    "fallback_to_simulation": True,
    "browser_optimized": True,
    "description": "Web deployment optimized for embedding models",
}


def test_every_key_of_the_guides_is_understood():
    parsed = parse_preferences(GUIDE)
    assert parsed.device is None
    assert [str(device) for device in parsed.priority_list] == GUIDE["priority_list"]
    assert parsed.precision == "float16"
    assert parsed.hw_compatibility is not None
    assert parsed.hw_compatibility["cuda"].peak_mb == 1200
    assert not parsed.hw_compatibility["mps"].compatible
    assert parsed.fallback_to_simulation


@pytest.mark.parametrize("given_", [None, {}, {"device": "auto"}, {"precision": None}])
def test_nothing_in_particular_is_legal(given_):
    assert parse_preferences(given_) == Preferences()


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp16", "float16"), ("bf16", "bfloat16"), ("FP32", "float32"), ("int8", "int8")],
)
def test_precisions(precision, dtype):
    assert parse_preferences({"precision": precision}).precision == dtype


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"devise": "cpu"}, "did you mean 'device'"),
        ({"device": "cdua"}, "did you mean 'cuda'"),
        ({"device": "GPU:0"}, "a device is named by its kind, such as cuda"),
        ({"device": "cuda:x"}, "no valid index"),
        ({"device": "cuda:²"}, "no valid index"),
        ({"priority_list": "cuda"}, "must be a list"),
        ({"preferred_index": -1}, "whole number"),
        ({"preferred_index": True}, "whole number"),
        ({"force_device": "yes"}, "True or False"),
        ({"precision": "fp12"}, "did you mean"),
        ({"hw_compatibility": ["cuda"]}, "must be a dict"),
        ({"hw_compatibility": {"cuda": True}}, "must be a dict such as"),
        ({"hw_compatibility": {"cuda": {"memory_usage": {"peak": "a lot"}}}}, "number of MB"),
        ({"description": 3}, "must be a text"),
        (["device"], "must be a dict"),
    ],
)
def test_a_wrong_value_is_named(wrong, message):
    with pytest.raises(PreferenceError, match=message):
        parse_preferences(wrong)


@pytest.mark.parametrize("name", ["cuda", "cpu", "mps", "rocm", "openvino", "webnn", "webgpu"])
def test_device_names_of_the_guides(name):
    assert parse_device(name) == DeviceName(name)
    assert str(parse_device(f"{name}:1")) == f"{name}:1"


@pytest.mark.parametrize("write", [str, json.dumps])
def test_the_environment_holds_a_dict_as_literal_or_json(write, monkeypatch):
    wanted = {"priority_list": ["mps", "cuda", "cpu"], "preferred_index": 1, "force_device": False}
    monkeypatch.setenv("TEST_HARDWARE_PREFERENCES", write(wanted))
    assert preferences_from_environment({"device": "cpu"}) == wanted


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_environment_leaves_the_default(value, monkeypatch):
    monkeypatch.setenv("TEST_HARDWARE_PREFERENCES", value)
    assert preferences_from_environment({"device": "cpu"}) == {"device": "cpu"}


@pytest.mark.parametrize(
    "hostile", ["__import__('os').system('true')", "[1]", "{'device': open('x')}", "(" * 5000]
)
def test_the_environment_is_data_and_never_code(hostile, monkeypatch):
    monkeypatch.setenv("TEST_HARDWARE_PREFERENCES", hostile)
    with pytest.raises(PreferenceError, match="must hold a dictionary"):
        preferences_from_environment({})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GUIDE, "other"]), JUNK))
def test_junk_is_accepted_or_refused_and_never_a_crash(junk):
    try:
        parsed = parse_preferences(junk)
    except PreferenceError:
        return
    assert isinstance(parsed, Preferences)
