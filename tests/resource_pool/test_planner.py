"""Where a model goes, decided on reports of hardware that is not here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection import HARDWARE_NAMES
from resource_pool import DeviceUnavailableError
from resource_pool._planner import decide
from resource_pool._plans import DEVICE_TYPES, Decision, Request, Snapshot, torch_devices
from resource_pool._preferences import parse_preferences


def report(**backends: list[float]) -> dict:
    """A report with these backends; a number is a device's free memory in MB."""
    found = {name: name == "cpu" or name in backends for name in HARDWARE_NAMES}
    details = {
        name: {
            "reason": "" if found[name] else f"no {name} here",
            "devices": [
                {
                    "index": i,
                    "memory_total_mb": 80_000,
                    "memory_free_mb": free,
                    "dtypes": ["fp32", "fp16"],
                }
                for i, free in enumerate([1000] if name == "cpu" else backends.get(name, []))
            ],
        }
        for name in HARDWARE_NAMES
    }
    return {"hardware": found, "details": details}


def decide_on(request: Request, hardware: dict, **snapshot) -> Decision:
    free = {name: memory.free for name, memory in torch_devices(hardware).items() if memory}
    return decide(request, Snapshot(hardware, **{"free": free, **snapshot}))


def choose(preferences: dict, hardware: dict, **known) -> str:
    return decide_on(Request("m", parse_preferences(preferences), **known), hardware).device


TWO_GPUS = report(cuda=[10_000, 20_000])
NEEDS_15_GB = {"cuda": {"memory_usage": {"peak": 15_000}}}


@pytest.mark.parametrize(
    ("preferences", "device"),
    [
        ({"device": "cuda:0"}, "cuda:0"),
        ({"device": "cuda:1"}, "cuda:1"),
        ({"device": "cuda"}, "cuda:1"),  # the most free memory
        ({"device": "cuda:7"}, "cuda:1"),  # out of range: the best other
        ({"device": "cpu"}, "cpu"),
        ({"priority_list": ["mps", "cuda", "cpu"], "preferred_index": 0}, "cuda:0"),
        ({"priority_list": ["cuda", "cpu"], "preferred_index": 5}, "cuda:1"),
        ({"priority_list": ["mps"]}, "cpu"),  # exhausted
        ({"priority_list": ["cuda"], "compatible_devices": ["cpu"]}, "cpu"),
        ({"priority_list": ["cuda"], "compatible_devices": ["cuda", "cpu"]}, "cuda:1"),
        ({"device": "cuda", "hw_compatibility": {"cuda": {"compatible": False}}}, "cpu"),
        ({"device": "cuda:0", "hw_compatibility": NEEDS_15_GB}, "cuda:1"),  # the other has room
        ({"device": "cuda:1", "hw_compatibility": NEEDS_15_GB}, "cuda:1"),
        ({"device": "tpu"}, "cpu"),
        ({"device": "openvino"}, "cpu"),
    ],
)  # fmt: skip
def test_a_device_is_chosen(preferences, device):
    assert choose(preferences, TWO_GPUS) == device


def test_rocm_is_torchs_cuda_and_mps_has_no_number():
    assert choose({"device": "rocm"}, report(rocm=[1000])) == "cuda:0"
    assert choose({"device": "mps"}, report(mps=[1000])) == "mps"


def test_without_a_wish_the_familys_order_decides_and_barred_hardware_is_passed_over():
    hardware = report(cuda=[1000], mps=[1000])
    order = ("mps", "cuda", "cpu")
    assert choose({}, hardware, family_priority=order) == "mps"
    assert choose({}, hardware, family_priority=order, barred={"mps": "slow"}) == "cuda:0"


def test_barred_hardware_that_is_asked_for_is_tried_with_a_warning():
    request = Request("m", parse_preferences({"device": "mps"}), barred={"mps": "never worked"})
    decision = decide_on(request, report(mps=[1000]))
    assert decision.device == "mps"
    assert any("never worked" in note for note in decision.notes)


@pytest.mark.parametrize(
    "preferences",
    [
        {"device": "mps", "force_device": True},
        {"device": "cuda:7", "force_device": True},
        {"priority_list": ["webgpu"], "force_device": True},
        {"device": "cuda:0", "precision": "bf16", "force_device": True},
        {"device": "cpu", "precision": "int8", "force_device": True},
    ],
)
def test_a_forced_device_or_precision_that_is_not_there_is_an_error(preferences):
    with pytest.raises(DeviceUnavailableError, match=r"^m: .* is forced and"):
        choose(preferences, TWO_GPUS)


def test_forcing_skips_the_compatibility_checks():
    preferences = {
        "device": "cuda:0",
        "force_device": True,
        "hw_compatibility": {"cuda": {"compatible": False}},
    }
    assert choose(preferences, TWO_GPUS) == "cuda:0"


def test_a_precision_that_is_not_proved_falls_back_with_a_note():
    request = Request("m", parse_preferences({"device": "cpu", "precision": "bf16"}))
    decision = decide_on(request, report())
    assert decision.dtype is None
    assert any("bfloat16 does not work on cpu" in note for note in decision.notes)


def test_each_fallback_says_why():
    decision = decide_on(
        Request("m", parse_preferences({"priority_list": ["tpu", "mps"]})), report()
    )
    assert decision.device == "cpu"
    assert decision.notes == ("tpu is not used: no tpu here", "mps is not used: no mps here")


def test_a_choice_as_asked_has_no_notes():
    assert decide_on(Request("m", parse_preferences({"device": "cuda:0"})), TWO_GPUS).notes == ()


NAMES = st.sampled_from(HARDWARE_NAMES)
FREE = st.lists(st.integers(0, 80_000), min_size=1, max_size=3)


@given(st.dictionaries(NAMES, FREE), st.lists(NAMES), st.none() | st.integers(0, 5))
def test_the_choice_is_always_a_device_that_is_there(backends, wishes, index):
    hardware = report(**backends)
    preferences = parse_preferences({"priority_list": wishes, "preferred_index": index})
    decision = decide_on(Request("m", preferences), hardware)
    assert hardware["hardware"][decision.backend]
    kind, _, number = decision.device.partition(":")
    assert kind == DEVICE_TYPES[decision.backend]
    assert not number or int(number) < len(backends[decision.backend])


def test_a_gpu_that_was_seen_and_does_not_compute_is_never_chosen():
    hardware = report(cuda=[1_000, 80_000])
    hardware["details"]["cuda"]["devices"][1]["dtypes"] = []
    assert choose({"device": "cuda"}, hardware) == "cuda:0"
    assert choose({"device": "cuda:1"}, hardware) == "cuda:0"


def test_the_precision_is_that_of_the_chosen_device():
    hardware = report(cuda=[1_000, 80_000])
    hardware["details"]["cuda"]["devices"][0]["dtypes"] = ["fp32", "bf16"]
    for device, dtype in (("cuda:0", "bfloat16"), ("cuda:1", None)):
        request = Request("m", parse_preferences({"device": device, "precision": "bf16"}))
        assert decide_on(request, hardware).dtype == dtype


def test_a_smaller_dtype_is_one_that_the_very_devices_proved():
    from resource_pool._ladder import Ladder

    gpus = [{"index": 0, "dtypes": ["fp32", "fp16"]}, {"index": 1, "dtypes": ["fp32", "bf16"]}]
    devices = {"cuda": {"devices": gpus}, "mps": {"devices": gpus[:1]}}
    ladder = Ladder(None, None, None, lambda: {"details": devices})
    request = Request("m", parse_preferences({}))
    found = [
        ladder._smaller_dtype(
            request, Decision(name.partition(":")[0], name, "float32", spread=spread)
        )
        for name, spread in (
            ("cuda:0", None),
            ("cuda:1", None),
            ("cuda:0+cuda:1", {"cuda:0": 1, "cuda:1": 1}),
            ("mps", None),
        )
    ]
    assert found == ["float16", "bfloat16", None, "float16"]
