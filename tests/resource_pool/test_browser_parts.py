"""Models in browsers, as far as no browser is needed to test it."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection.testing import fake_report
from resource_pool import DeviceUnavailableError, UnsupportedOperationError
from resource_pool._planner import decide
from resource_pool._plans import Request, Snapshot, memory_place
from resource_pool._preferences import parse_preferences
from resource_pool.devices import (
    browser_runtime,
    web_engines,
    web_tensors,
)
from resource_pool.devices.onnx_export import Graph
from resource_pool.errors import WebSetupError

MIB = 2**20


# -- planning --------------------------------------------------------------------------------


def decided(preferences: dict, *, can_simulate: bool = True, failed=None, **here: bool):
    request = Request("m", parse_preferences(preferences), needed=lambda _: 10 * MIB)
    snapshot = Snapshot(
        fake_report(**here), {"cpu": 4096 * MIB}, failed=failed or {}, can_simulate=can_simulate
    )
    return decide(request, snapshot)


def test_a_browser_is_taken_where_it_was_proved_and_named():
    decision = decided({"device": "webgpu"}, webgpu=True)
    assert (decision.backend, decision.device, decision.dtype) == ("webgpu", "webgpu:0", "float32")
    # Its processes take RAM, however small the model.
    assert decision.needed > 500 * MIB
    assert memory_place("webgpu:0") == memory_place("webnn:simulation") == "cpu"


@pytest.mark.parametrize("preferences", [{}, {"device": "auto"}, {"fallback_to_simulation": True}])
def test_nothing_goes_to_a_browser_unasked(preferences: dict):
    assert decided(preferences, webgpu=True, webnn=True).device == "cpu"


def test_without_a_browser_it_is_simulated_only_where_that_is_allowed():
    allowed = {"device": "webnn", "fallback_to_simulation": True}
    decision = decided(allowed)
    assert (decision.backend, decision.device) == ("webnn", "webnn:simulation")
    assert decision.surprising
    assert "webnn is not used" in decision.notes[0]
    assert decided({"device": "webnn"}).device == "cpu"
    assert decided(allowed, webnn=True).device == "webnn:0"  # real first
    assert decided(allowed, can_simulate=False).device == "cpu"
    broken = decided(allowed, webnn=True, failed={"webnn:0": "it crashed"})
    assert broken.device == "webnn:simulation"
    assert "it crashed" in broken.notes[0]


def test_a_forced_browser_may_be_simulated_and_be_nothing_else():
    forced = {"device": "webgpu", "force_device": True}
    with pytest.raises(DeviceUnavailableError, match="forced"):
        decided(forced)
    both = {**forced, "fallback_to_simulation": True}
    assert decided(both).device == "webgpu:simulation"
    with pytest.raises(DeviceUnavailableError, match="onnxruntime"):
        decided(both, can_simulate=False)


def test_a_list_tries_each_browser_and_its_simulation_in_order():
    wish = {"priority_list": ["webgpu", "webnn"], "fallback_to_simulation": True}
    assert decided(wish, webnn=True).device == "webgpu:simulation"
    assert decided({**wish, "fallback_to_simulation": False}, webnn=True).device == "webnn:0"


def with_half(report: dict) -> dict:
    report["details"]["webgpu"]["devices"][0]["dtypes"] = ["fp32", "fp16"]
    return report


@pytest.mark.parametrize(
    ("wish", "half", "dtype"),
    [
        ({}, True, "float32"),
        ({"precision": "fp16"}, True, "float16"),
        ({"precision": "fp16"}, False, "float32"),
        ({"precision": "int8"}, False, "int8"),
        ({"precision": "fp32", "browser_optimized": True}, True, "float32"),
        ({"browser_optimized": True}, True, "float16"),
        ({"browser_optimized": True}, False, "int8"),
        ({"subfamily": "web_deployment"}, False, "int8"),
        ({"subfamily": "web_deployment", "browser_optimized": False}, True, "float32"),
    ],
)
def test_what_a_browser_is_given_is_as_small_as_was_asked_and_it_proved(wish, half, dtype):
    report = fake_report(webgpu=True)
    report["details"]["webgpu"]["devices"][0]["dtypes"] = ["fp32"]
    request = Request("m", parse_preferences({"device": "webgpu", **wish}))
    decision = decide(request, Snapshot(with_half(report) if half else report))
    assert (decision.device, decision.dtype) == ("webgpu:0", dtype)
    fell_back = wish == {"precision": "fp16"} and not half
    assert any("float16 does not work on webgpu" in note for note in decision.notes) == fell_back


def test_a_simulation_proves_no_float16():
    both = {"device": "webgpu", "fallback_to_simulation": True, "browser_optimized": True}
    assert decided(both).dtype == "int8"


def test_a_model_for_browsers_goes_to_the_familys_browser_first_and_then_on():
    def where(browsers=("webnn", "webgpu"), wish=None, barred=None, **here: object) -> str:
        preferences = parse_preferences({"subfamily": "web_deployment", **(wish or {})})
        request = Request("m", preferences, ("cuda", "cpu"), barred, browsers)
        return decide(request, Snapshot(fake_report(**here), can_simulate=True)).device

    assert where(webgpu=True, webnn=True, cuda=[{}]) == "webnn:0"
    assert where(("webgpu", "webnn"), webgpu=True, webnn=True) == "webgpu:0"
    assert where(webgpu=True, cuda=[{}]) == "webgpu:0"
    assert where(cuda=[{}]) == "cuda:0"
    assert where(wish={"fallback_to_simulation": True}, cuda=[{}]) == "webnn:simulation"
    assert where(wish={"device": "cpu"}, webgpu=True) == "cpu"
    assert where(barred={"webgpu": "no", "webnn": "no"}, webgpu=True, webnn=True) == "cpu"


def test_the_order_of_browsers_is_the_matrixs():
    from resource_pool._families import family_facts

    assert family_facts("embedding", "bert-base-uncased").browsers == ("webnn", "webgpu")
    assert family_facts("vision", "google/vit-base-patch16-224").browsers == ("webgpu", "webnn")
    assert family_facts("text_generation", "gpt2").browsers == ("webgpu", "webnn")


# -- the engine's files ----------------------------------------------------------------------


def npm_that(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program called npm on PATH, and nothing else."""
    npm = folder / "npm"
    npm.write_text(f"#!{sys.executable}\nimport sys, shutil\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def package(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def digest_of(path: Path) -> str:
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.mark.skipif(os.name == "nt", reason="the npm of this test is a script")
class TestSetup:
    def test_the_pinned_files_and_no_others_are_unpacked(self, tmp_path, monkeypatch):
        made = package(
            tmp_path / "p.tgz",
            **dict.fromkeys((*browser_runtime.ENGINE.files, "evil.js"), b"content"),
        )
        copy = f"shutil.copy({str(made)!r}, sys.argv[-1] + '/x.tgz')"
        npm_that(tmp_path, monkeypatch, copy)
        small = browser_runtime.ENGINE._replace(sha512=digest_of(made))
        folder = browser_runtime.install(small)
        assert sorted(one.name for one in folder.iterdir()) == sorted(browser_runtime.ENGINE.files)
        assert browser_runtime.require_runtime() == folder
        npm_that(tmp_path, monkeypatch, "sys.exit(1)")
        assert browser_runtime.install() == folder  # it is here: npm is not asked
        with pytest.raises(WebSetupError):
            browser_runtime.install(again=True)
        assert browser_runtime.require_runtime() == folder  # what was there stays

    def test_another_package_than_was_pinned_is_not_opened(self, tmp_path, monkeypatch):
        made = package(tmp_path / "p.tgz", **dict.fromkeys(browser_runtime.ENGINE.files, b"evil"))
        npm_that(tmp_path, monkeypatch, f"shutil.copy({str(made)!r}, sys.argv[-1] + '/x.tgz')")
        for one in browser_runtime.PACKAGES:
            with pytest.raises(WebSetupError, match=f"{one}.*sha512"):
                browser_runtime.install(one)
            assert not browser_runtime.runtime_folder(one).exists()

    def test_a_package_without_the_files_leaves_nothing(self, tmp_path, monkeypatch):
        made = package(tmp_path / "p.tgz", **{browser_runtime.ENGINE.files[0]: b"one"})
        npm_that(tmp_path, monkeypatch, f"shutil.copy({str(made)!r}, sys.argv[-1] + '/x.tgz')")
        small = browser_runtime.ENGINE._replace(sha512=digest_of(made))
        with pytest.raises(WebSetupError, match="has no"):
            browser_runtime.install(small)
        assert not browser_runtime.runtime_folder().exists()
        assert not [p for p in browser_runtime.runtime_folder().parent.iterdir() if p.is_dir()]

    def test_npm_that_fails_is_quoted(self, tmp_path, monkeypatch):
        npm_that(tmp_path, monkeypatch, "sys.exit('no network here')")
        with pytest.raises(WebSetupError, match="no network here"):
            browser_runtime.install()

    def test_without_npm_it_says_so(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(WebSetupError, match="npm is not installed"):
            browser_runtime.install()


def test_without_the_files_the_command_is_named():
    with pytest.raises(UnsupportedOperationError, match="rp web setup"):
        browser_runtime.require_runtime()


# -- tensors ---------------------------------------------------------------------------------

np = pytest.importorskip("numpy")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(web_tensors.DTYPES)),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=5,
    )
)
def test_what_is_packed_is_unpacked_the_same_and_aligned(kinds):
    arrays = {
        f"a{i}": (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(dtype)
        for i, (dtype, shape) in enumerate(kinds)
    }
    told, body = web_tensors.packed(arrays)
    assert all(one["offset"] % 8 == 0 for one in told)
    for got, expected in zip(web_tensors.unpacked(told, body), arrays.values(), strict=True):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert (got == expected).all()


def test_unknown_tensors_and_malformed_answers_are_errors():
    with pytest.raises(UnsupportedOperationError, match="complex64"):
        web_tensors.packed({"x": np.zeros(1, "complex64")})
    for told in (
        {"type": "float32", "dims": [9], "offset": 0},
        {"type": "nonsense", "dims": [1], "offset": 0},
    ):
        with pytest.raises(UnsupportedOperationError, match="malformed"):
            web_tensors.unpacked([told], b"1234")


def test_the_engines_log_tells_where_nodes_run():
    start = "2026-01-01 [V:onnxruntime:, session_state.cc:1385 VerifyEachNodeIsAssignedToAnEp] "
    log = [
        f"{start} Node placements",
        f"{start} Node(s) placed on [WebGpuExecutionProvider]. Number of nodes: 2",
        f"{start}  MatMul (/a/MatMul)",
        f"{start}  Add (/a/Add)",
        f"{start} Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1",
        f"{start}  Gather (/a/Gather)",
    ]
    found = web_engines.node_placements(log)
    assert found == {"nodes": {"WebGpu": 2, "CPU": 1}, "cpu_operators": {"Gather": 1}}
    assert web_engines.node_placements(["something else"]) == {}


class FakeSession:
    """A browser that answers as it is told."""

    version, launch_seconds, folder = "1", 0.1, Path()
    program = SimpleNamespace(name="Fake", flags=())

    def __init__(self, dispatches: int) -> None:
        self.dispatches = dispatches
        self.calls: list[tuple[str, dict]] = []

    def told(self, function: str) -> dict:
        """Return what it was told last."""
        return [argument for called, argument in self.calls if called == function][-1]

    def call(self, function: str, argument: dict) -> dict:
        self.calls.append((function, argument))
        if function == "describe":
            return {"adapter": None, "limits": {}}
        return {"ms": 1.0, "placements": [], "outputs": [], "dispatches": self.dispatches}

    def offer(self, name: str, content: object) -> str:
        return name

    expect = withdraw = lambda self, name: name

    def take(self, name: str) -> bytes:
        return b""


def test_a_run_that_reached_no_device_is_an_error():
    exported = SimpleNamespace(path=Path("m.onnx"))
    run = web_engines.BrowserEngine(FakeSession(3), "webgpu", "unknown").load(exported, {})
    assert run({}) == []
    run = web_engines.BrowserEngine(FakeSession(0), "webgpu", "unknown").load(exported, {})
    with pytest.raises(UnsupportedOperationError, match="Nothing of the model ran on WebGPU"):
        run({})


def test_what_is_let_go_is_released_with_the_next_file():
    session = FakeSession(3)
    engine = web_engines.BrowserEngine(session, "webgpu", "unknown")
    exported = SimpleNamespace(path=Path("m.onnx"))
    first, second = engine.load(exported, {}), engine.load(exported, {})
    assert session.told("load")["release"] == []
    number = session.told("load")["session"]
    del second
    engine.load(exported, {})
    assert session.told("load")["release"] == [number]
    assert first({}) == []


def test_documented_limits_bind_a_simulation():
    graph = Graph(frozenset(), {}, 200 * MIB, 129 * MIB)
    exported = SimpleNamespace(graph=graph, path=Path("m.onnx"))
    pytest.importorskip("onnxruntime")
    with pytest.raises(UnsupportedOperationError, match=r"129 MiB.*128 MiB"):
        web_engines.SimulatedEngine("webgpu").load(exported, {})
    # What a browser reports goes over what all of them guarantee.
    reported = {"maxStorageBufferBindingSize": 1024 * MIB}
    assert web_engines.too_large("webgpu", exported, reported) is None


def one_operator(name: str, folder: Path) -> SimpleNamespace:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kind = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(end, kind, ["n", 2]) for end in "xy"]
    node = onnx.helper.make_node(name, ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [ends[0]], [ends[1]])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "m.onnx")
    return SimpleNamespace(path=folder / "m.onnx", graph=Graph(frozenset("x"), {name: 1}, 0, 0))


def test_a_simulation_of_webnn_knows_the_operators_that_a_browser_reported(tmp_path):
    engine = web_engines.SimulatedEngine("webnn")
    engine.load(one_operator("Tanh", tmp_path), {"n": 3})
    facts = engine.facts()
    assert facts["absent_operators"] == {}
    assert facts["recorded_browser"].startswith("Chromium 147")
    with pytest.raises(UnsupportedOperationError, match=r"Nothing .* on WebNN: .* has no Sinh"):
        engine.load(one_operator("Sinh", tmp_path), {"n": 3})
    # WebGPU reports no operators, and nothing is made up.
    engine = web_engines.SimulatedEngine("webgpu")
    engine.load(one_operator("Sinh", tmp_path), {"n": 3})
    assert engine.facts()["absent_operators"] is None


def test_recorded_limits_bind_a_simulation_of_webnn():
    exported = SimpleNamespace(graph=Graph(frozenset(), {}, 0, 1 << 31), path=Path("m.onnx"))
    pytest.importorskip("onnxruntime")
    with pytest.raises(UnsupportedOperationError, match="2048 MiB"):
        web_engines.SimulatedEngine("webnn").load(exported, {})
