"""Models in browsers, as far as no browser is needed to test it."""

from __future__ import annotations

import io
import logging
import math
import os
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hardware_detection.testing import fake_report, use_report
from resource_pool import DeviceUnavailableError, ResourcePool, UnsupportedOperationError
from resource_pool._meanings import STATISTICS
from resource_pool._planner import decide
from resource_pool._plans import Request, Snapshot, memory_place
from resource_pool._preferences import parse_preferences
from resource_pool.devices import (
    browser,
    browser_runtime,
    forwards,
    onnx_precision,
    web_engines,
    web_tensors,
)
from resource_pool.devices.onnx_export import Graph
from resource_pool.errors import WebSetupError
from resource_pool.weights import example_inputs, locate_weights

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


# -- simulated models ------------------------------------------------------------------------


def load(model_type: str, auto_class: str = "AutoModel"):
    import transformers

    path = locate_weights(
        f"a/{model_type}", auto_class=auto_class, model_type=model_type, mode="tiny"
    ).path
    return getattr(transformers, auto_class).from_pretrained(path).eval()


def simulation(model, dtype: str) -> browser.WebForward:
    device = "webgpu:simulation"
    return browser.WebForward(model, browser.engine_for(device), device, dtype)


@pytest.fixture
def torch():
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    return pytest.importorskip("torch")


def test_a_simulation_is_called_one_everywhere(torch, caplog):
    pool = ResourcePool(hardware=fake_report)
    wish = {"device": "webgpu", "fallback_to_simulation": True}
    with caplog.at_level(logging.INFO, "resource_pool"):
        model = pool.get_model("embedding", "bert", lambda: load("bert"), wish)
    assert "webgpu:simulation" in caplog.text
    ((key, facts),) = pool.get_stats()["models"].items()
    assert key == "embedding:bert:webgpu:simulation:float32"
    assert (facts["simulated"], facts["weights"]) == (True, "tiny")
    assert model.backend == "webgpu:simulation"
    assert forwards.placement(model).facts()["simulated"] is True
    inputs = example_inputs(model, batch=3)
    inputs["attention_mask"][1, 5:] = 0
    shorter = {name: value[:, :7] for name, value in inputs.items()}
    for one in (inputs, shorter):
        got, expected = model(**one), load("bert")(**one)
        torch.testing.assert_close(got.pooler_output, expected.pooler_output, rtol=0, atol=1e-4)


def test_of_many_sizes_the_ones_used_last_are_kept(torch, monkeypatch):
    monkeypatch.setattr(forwards, "MOST_CONVERTED", 3)
    model = load("bert")
    browser.place(model, "webnn:simulation")  # whose files are built for the very sizes
    inputs = example_inputs(model)
    engine = forwards.placement(model).engine
    loads = []
    real = engine.load
    monkeypatch.setattr(engine, "load", lambda *args: loads.append(args) or real(*args))

    def run(length: int) -> int:
        """Return how many files were loaded for it."""
        before = len(loads)
        model(**{name: value[:, :length] for name, value in inputs.items()})
        return len(loads) - before

    assert [run(3), run(4), run(5), run(3), run(6)] == [1, 1, 1, 0, 1]
    assert len(engine._sizes) == 3
    assert [run(3), run(6), run(4)] == [0, 0, 1]


def test_generation_agrees_with_torch_token_by_token(torch):
    model = load("gpt2", "AutoModelForCausalLM")
    browser.place(model, "webgpu:simulation")
    tokens = example_inputs(model, batch=2)["input_ids"]
    options = {"max_new_tokens": 4, "do_sample": False}
    expected = load("gpt2", "AutoModelForCausalLM").generate(tokens, **options)
    assert torch.equal(model.generate(tokens, **options), expected)
    with pytest.raises(UnsupportedOperationError, match="use_cache=False"):
        model(tokens, use_cache=True)


def test_another_answer_than_torchs_is_refused_at_placement_and_at_new_sizes(torch, monkeypatch):
    model = load("bert")
    browser.place(model, "webgpu:simulation")
    real = web_engines.SimulatedEngine._run

    def wrong(self, *args):
        return [array + 0.5 for array in real(self, *args)]

    monkeypatch.setattr(web_engines.SimulatedEngine, "_run", wrong)
    with pytest.raises(UnsupportedOperationError, match="something else than torch"):
        browser.place(load("bert"), "webgpu:simulation")
    inputs = {name: value[:, :5] for name, value in example_inputs(model).items()}
    with pytest.raises(UnsupportedOperationError, match="something else than torch"):
        model(**inputs)


@pytest.mark.parametrize(
    ("device", "told"), [("webgpu:1", "webgpu:1"), ("webgpu", "webgpu:0"), ("webnn:2", "webnn:2")]
)
def test_of_several_browsers_the_one_that_computes_is_told(torch, monkeypatch, device, told):
    """No machine here has two: a simulation that does not call itself one is the second."""
    provider = device.partition(":")[0]
    engine = web_engines.SimulatedEngine(provider)
    engine.simulated = False
    monkeypatch.setattr(browser, "engine_for", lambda name, **_: engine)
    model = load("bert")
    browser.place(model, device)
    placed = forwards.placement(model)
    assert placed.device == placed.facts()["device"] == told
    assert placed.for_part(model).device == told
    assert model.backend == provider


OPTIMIZED = {
    "priority_list": ["webgpu"], "fallback_to_simulation": True, "browser_optimized": True,
}  # fmt: skip


def test_an_optimized_model_is_smaller_by_measure_and_differs_by_measure(torch, caplog):
    pool = ResourcePool(hardware=fake_report)
    with caplog.at_level(logging.INFO, "resource_pool"):
        model = pool.get_model("embedding", "bert", lambda: load("bert"), OPTIMIZED)
    plain = pool.get_model(
        "embedding", "bert", lambda: load("bert"), {**OPTIMIZED, "browser_optimized": False}
    )
    assert plain is not model
    assert [*pool.models] == [f"embedding:bert:webgpu:simulation:{t}" for t in ("int8", "float32")]
    small, full = (row["web"] for row in pool.get_stats()["models"].values())
    assert {f"models.*.web.{key}" for key in small} == {
        key for key in STATISTICS if key.startswith("models.*.web.")
    }
    assert pool.events()[0].numbers["web"] == small
    assert small["download_bytes"] < 0.4 * small["float32_download_bytes"]
    assert full["download_bytes"] == full["float32_download_bytes"]
    assert 1e-3 < small["difference"] <= small["tolerance"] == 1e-1
    assert full["difference"] < full["tolerance"] == 1e-3
    assert "its file is in int8: " in caplog.text
    assert "0.1 passes" in caplog.text


def test_an_optimized_model_moves_to_torch_in_float32(torch):
    pool = ResourcePool(hardware=fake_report)
    pool.get_model("embedding", "bert", lambda: load("bert"), OPTIMIZED)
    pool.move_model_to_device("embedding", "bert", "cpu")
    assert [*pool.models] == ["embedding:bert:cpu:float32"]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_files_keep_their_inputs_and_what_they_compute(torch, tmp_path, dtype):
    onnx = pytest.importorskip("onnx")
    from resource_pool.devices.flat import Inputs
    from resource_pool.devices.onnx_export import Exported

    model = load("gpt2", "AutoModelForCausalLM")
    forward = simulation(model, dtype)
    given = example_inputs(model, batch=2)
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    given["attention_mask"][0, :3] = 0
    forward(**given)  # which compares
    measured = forward.measured()
    share = {"float16": 0.55, "int8": 0.35}[dtype]
    assert measured["download_bytes"] < share * measured["float32_download_bytes"]
    (exported,) = forward.exports.values()
    full = Exported(model, Inputs({**given, "use_cache": False}, ""), tmp_path / "full.onnx")
    kinds = [
        [(one.name, one.type.tensor_type.elem_type) for one in onnx.load(str(path)).graph.output]
        for path in (exported.path, full.path)
    ]
    assert kinds[0] == kinds[1]


def test_real_weights_in_int8_keep_the_similarities(torch, minilm):
    expected = minilm.similarities(minilm.load())
    model = minilm.load()
    browser.place(model, "webgpu:simulation", "int8")
    found = minilm.similarities(model)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2)
    measured = forwards.placement(model).measured()
    assert measured["download_bytes"] < 0.3 * measured["float32_download_bytes"]
    assert forwards.placement(model).dtype == "int8"


def test_small_outputs_are_compared_by_their_own_greatest_value(torch):
    from resource_pool.devices.flat import difference

    probabilities = {"scores": torch.full((1, 5000), 2e-4), "large": torch.full((1, 2), 50.0)}
    zeros = {**probabilities, "scores": torch.zeros(1, 5000)}
    assert difference(probabilities, zeros) == pytest.approx(1)
    assert difference(zeros, zeros) == 0
    assert difference(zeros, {**zeros, "scores": torch.full((1, 5000), 1e-9)}) < 1e-4
    unknown = {**zeros, "scores": torch.full((1, 5000), math.nan)}
    assert difference(zeros, unknown) == math.inf  # though what comes after it is right


def test_values_that_changed_places_do_not_correlate(torch):
    from resource_pool.devices.flat import correlation

    logits = torch.tensor([[0.11, 0.1], [0.1, 0.11]])
    assert correlation([logits], [logits + 1e-4]) == pytest.approx(1)
    assert correlation([logits, logits], [logits, logits.flip(1)]) == pytest.approx(-1)
    assert correlation([logits], [torch.zeros(2, 2)]) == 0
    assert correlation([torch.ones(3)], [torch.rand(3)]) == 1  # of nothing, nothing is known


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("kind", ["zeros", "swapped"])
def test_a_classifiers_wrong_labels_do_not_pass_in_less_than_float32(
    torch, monkeypatch, dtype, kind
):
    """Its logits are small: a tolerance must not be more than they are."""
    wrong = {"zeros": np.zeros_like, "swapped": lambda array: array[:, ::-1].copy()}[kind]
    real = web_engines.SimulatedEngine._run
    model = load("bert", "AutoModelForSequenceClassification")
    inputs = example_inputs(model, batch=2)
    simulation(model, dtype)(**inputs)  # the right ones do
    monkeypatch.setattr(
        web_engines.SimulatedEngine, "_run", lambda *args: [*map(wrong, real(*args))]
    )
    with pytest.raises(UnsupportedOperationError, match="something else than torch"):
        simulation(model, dtype)(**inputs)


def test_only_positions_that_the_mask_leaves_out_are_not_compared(torch):
    from resource_pool.devices.flat import without_masked

    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    output = {
        "states": torch.ones(2, 3, 4), "pooled": torch.ones(2, 4), "scores": torch.ones(2, 3),
        "labels": torch.ones(2, 3),
    }  # fmt: skip
    left = without_masked(output, {"attention_mask": mask}, {0, 2})
    assert torch.equal(left["states"][..., 0], mask.float())
    assert torch.equal(left["scores"], mask.float())
    assert torch.equal(left["pooled"], output["pooled"])
    assert torch.equal(left["labels"], output["labels"])  # as many as tokens, by chance
    assert torch.equal(without_masked(output, {}, {0, 2})["states"], output["states"])


def test_the_encoders_mask_leaves_out_nothing_of_the_decoder(torch):
    from resource_pool.devices.flat import without_masked

    given = {
        "attention_mask": torch.tensor([[1, 0, 0]]),
        "decoder_input_ids": torch.tensor([[1, 2, 3]]),
    }
    output = {"logits": torch.ones(1, 3, 9), "encoder_last_hidden_state": torch.ones(1, 3, 4)}
    left = without_masked(output, given, set())
    assert torch.equal(left["logits"], output["logits"])
    assert left["encoder_last_hidden_state"].sum() == 4
    given["decoder_attention_mask"] = torch.tensor([[1, 1, 0]])
    assert without_masked(output, given, set())["logits"].sum() == 18


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_labels_are_compared_though_there_are_as_many_as_tokens(torch, dtype):
    model = load("bert", "AutoModelForSequenceClassification")
    labels = model.config.num_labels
    given = {name: value[:, :labels] for name, value in example_inputs(model, batch=2).items()}
    given["attention_mask"][1, 1:] = 0
    forward = simulation(model, dtype)
    forward(**given)
    (exported,) = forward.exports.values()
    assert exported.graph.changing == frozenset()
    (computation,) = forward._converted.values()
    forward._compared.clear()
    real = computation._run

    def other_second_label(arrays):
        (logits,) = real(arrays)
        logits[1, 1] += 1
        return [logits]

    computation._run = other_second_label
    with pytest.raises(UnsupportedOperationError, match="something else than torch"):
        forward(**given)


def test_an_export_that_fails_prints_nothing(torch, capfd, monkeypatch, tmp_path):
    from resource_pool.devices.flat import Inputs
    from resource_pool.devices.onnx_export import Exported

    model = load("bert")
    monkeypatch.setattr(type(model), "forward", lambda _, input_ids: torch.special.bessel_j0(
        input_ids.float()
    ))  # fmt: skip
    inputs = Inputs({"input_ids": torch.ones(1, 3, dtype=torch.long)}, "")
    with pytest.raises(UnsupportedOperationError, match="bessel"):
        Exported(model, inputs, tmp_path / "m.onnx")
    assert "graph(" not in "".join(capfd.readouterr())


def test_what_onnxruntime_refuses_is_an_error_of_ours(torch, tmp_path, monkeypatch):
    import onnxruntime

    def refuse(*_, **__):
        raise NotImplementedError("could not find an implementation for NonMaxSuppression(11)")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    model = load("bert")
    with pytest.raises(UnsupportedOperationError, match="onnxruntime cannot run the file"):
        browser.place(model, "webgpu:simulation")
    assert browser.forwards.placement(model) is None


def test_what_cannot_be_converted_to_less_goes_there_in_float32(torch, monkeypatch, caplog):
    monkeypatch.setitem(onnx_precision._CONVERSIONS, "int8", lambda _: 1 / 0)
    model = load("bert")
    browser.place(model, "webgpu:simulation", "int8")
    assert browser.forwards.placement(model).dtype == "float32"
    assert "cannot be converted to int8" in caplog.text


def test_of_two_browsers_of_one_name_the_one_that_computed_is_started(monkeypatch):
    stable, unstable = (
        {"name": "Chrome", "path": f"/opt/{name}", "flags": []} for name in ("stable", "unstable")
    )
    device = {
        "index": 0, "dtypes": ["fp32"], "adapter": "hardware", "browser": "Chrome", "flags": [],
        "browser_path": "/opt/unstable",
    }  # fmt: skip
    details = {"webgpu": {"devices": [device], "browsers": [stable, unstable]}}
    monkeypatch.setattr(browser, "detect", lambda **_: {"details": details})
    program, kind = browser.proved("webgpu", 0)
    assert (program.path, kind) == ("/opt/unstable", "hardware")


def test_scores_of_tokens_are_known_from_the_file(torch, tmp_path):
    from resource_pool.devices.flat import Inputs
    from resource_pool.devices.onnx_export import Exported

    model = load("bert", "AutoModelForQuestionAnswering")
    inputs = Inputs(example_inputs(model, batch=2), "")
    exported = Exported(model, inputs, tmp_path / "m.onnx", "int8")
    assert exported.graph.changing == {0, 1}  # where the answer starts and ends


@given(
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, -1]),
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=25, max_size=25),
)  # fmt: skip
@example(1, 1, 0, [1e-45] * 25)  # a step of which is zero
def test_weights_in_int8_are_off_by_half_a_step_of_their_channel_at_most(
    rows, columns, axis, drawn
):
    from resource_pool.devices.onnx_precision import _quantised

    values = np.array(drawn[: rows * columns], "float32").reshape(rows, columns)
    whole, scales = _quantised(values, axis)
    assert whole.dtype == np.int8
    scale = scales.reshape((-1, 1) if axis == 0 else (1, -1))
    assert (abs(whole * scale - values) <= scale * 0.501 + 1e-6).all()


def test_a_browser_that_cannot_compute_in_less_computes_in_float32_and_says_so(
    torch, monkeypatch, caplog
):
    real = web_engines.SimulatedEngine.load

    def refuse(self, exported, dimensions):
        if exported.path.stat().st_size != exported.float32_bytes:
            raise UnsupportedOperationError("no kernel for DequantizeLinear.")
        return real(self, exported, dimensions)

    monkeypatch.setattr(web_engines.SimulatedEngine, "load", refuse)
    pool = ResourcePool(hardware=fake_report)
    model = pool.get_model("embedding", "bert", lambda: load("bert"), OPTIMIZED)
    told = [r for r in caplog.records if "no kernel for DequantizeLinear" in r.getMessage()]
    assert len(told) == 1
    ((key, facts),) = pool.get_stats()["models"].items()
    assert key == "embedding:bert:webgpu:simulation:float32"
    assert (facts["dtype"], facts["web"]["tolerance"]) == ("float32", 1e-3)
    assert pool.get_model("embedding", "bert", None, OPTIMIZED) is model
    forced = {
        "device": "webgpu", "fallback_to_simulation": True, "force_device": True,
        "precision": "int8",
    }  # fmt: skip
    with pytest.raises(DeviceUnavailableError, match="int8 is forced"):
        pool.get_model("embedding", "other", lambda: load("bert"), forced)


def test_half_precision_comes_to_float32_and_an_encoder_decoder_goes_with_its_encoder(torch):
    model = load("t5", "AutoModelForSeq2SeqLM").half()
    browser.place(model, "webgpu:simulation")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    whole, part = forwards.placement(model), forwards.placement(model.get_encoder())
    assert part is not whole
    assert part.engine is whole.engine


def test_an_export_that_fails_names_the_operation_and_goes_on_on_the_cpu(torch):
    class Bessel(torch.nn.Module):
        def forward(self, states):
            return torch.special.bessel_j0(states[:, 0])

    def make():
        model = load("bert")
        model.pooler = Bessel()
        return model

    pool = ResourcePool(hardware=fake_report)
    wish = {"priority_list": ["webgpu", "cpu"], "fallback_to_simulation": True}
    assert pool.get_model("embedding", "bert", make, wish).device == torch.device("cpu")
    fallback, placed = pool.events()
    assert (fallback.what, placed.what) == ("fallback", "place")
    report = fallback.numbers
    assert (report["error_type"], report["operation"], report["hardware_type"]) == (
        "unsupported_operation",
        "aten::special_bessel_j0",
        "webgpu:simulation",
    )
    assert report["recommendations"][0] == "`rp web check` says what does not work there."


def test_no_model_of_transformers_and_no_proved_browser_are_one_sentence(torch):
    with pytest.raises(UnsupportedOperationError, match="transformers"):
        browser.place(torch.nn.Linear(2, 2), "webgpu:simulation")
    folder = browser_runtime.runtime_folder()
    folder.mkdir(parents=True)
    for name in browser_runtime.ENGINE.files:
        (folder / name).touch()
    with use_report(fake_report()), pytest.raises(UnsupportedOperationError, match="No browser"):
        browser.place(load("bert"), "webgpu")
