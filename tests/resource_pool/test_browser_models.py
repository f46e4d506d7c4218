"""Models in a real headless browser, beside the same models on torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from hardware_detection.testing import use_report
from resource_pool import ComputationTimeoutError, ResourcePool, UnsupportedOperationError
from resource_pool.devices import browser, browser_session, forwards
from resource_pool.devices.browser_session import BrowserSession, Program
from resource_pool.weights import example_inputs, locate_weights

torch = pytest.importorskip("torch")

WEBGPU = {"device": "webgpu", "force_device": True}


def load(model_type: str, auto_class: str = "AutoModel"):
    import transformers

    path = locate_weights(
        f"a/{model_type}", auto_class=auto_class, model_type=model_type, mode="tiny"
    ).path
    return getattr(transformers, auto_class).from_pretrained(path).eval()


@pytest.fixture
def webgpu(chromium: Path, browser_report) -> Iterator[Path]:
    """A machine whose Chromium computes on WebGPU, as Debian's does with its flags."""
    with use_report(browser_report("webgpu", chromium)):
        yield chromium


def process_of(model) -> psutil.Process:
    return forwards.placement(model).engine._session._running.process


def assert_as_on_torch(model, alone, inputs) -> None:
    with torch.no_grad():
        got, expected = model(**inputs), alone(**inputs)
    assert type(got) is type(expected)
    assert got.keys() == expected.keys()
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=1e-4)


def test_a_bert_in_the_pool_computes_on_webgpu_and_goes_when_nobody_holds_it(webgpu):
    pool = ResourcePool()
    model = pool.get_model("embedding", "bert", lambda: load("bert"), WEBGPU)
    inputs = example_inputs(model, batch=2, seed=3)
    inputs["attention_mask"][1, 5:] = 0  # padding, which tracing did not see
    assert_as_on_torch(model, load("bert"), inputs)
    assert (model.backend, model.device) == ("webgpu", torch.device("cpu"))
    facts = forwards.placement(model).facts()
    assert facts["dispatches"] > 10
    assert facts["adapter"]["vendor"]
    assert facts["limits"]["maxBufferSize"] > 0
    assert not facts["simulated"]
    assert 0 < facts["difference"] < 1e-4
    ((key, known),) = pool.get_stats()["models"].items()
    assert key == "embedding:bert:webgpu:0:float32"
    assert (known["backend"], known["simulated"], known["weights"]) == ("webgpu", False, "tiny")
    # RAM is charged for the browser's processes, too.
    assert pool.get_stats()["devices"]["cpu"]["used_mb"] == known["memory_mb"] > 50
    process = process_of(model)
    assert process.is_running()
    pool.clear()
    del model
    gc.collect()
    process.wait(20)
    assert not process.is_running()


def test_real_weights_give_the_similarities_of_torch_on_webgpu(webgpu, minilm):
    expected = minilm.similarities(minilm.load())
    assert expected[0, 1] > expected[0, 2] + 0.3  # they know what the sentences mean
    pool = ResourcePool()
    model = pool.get_model("embedding", "all-MiniLM-L6-v2", minilm.load, WEBGPU)
    found = minilm.similarities(model)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    ((_, facts),) = pool.get_stats()["models"].items()
    assert (facts["device"], facts["simulated"]) == ("webgpu:0", False)
    forwards.placement(model).engine._session.close()


def test_a_vit_computes_on_webgpu_and_moves_back_to_torch(webgpu):
    model = load("vit")
    browser.place(model, "webgpu")
    inputs = example_inputs(model, batch=1, seed=3)
    assert_as_on_torch(model, load("vit"), inputs)
    process = process_of(model)
    forwards.remove(model)
    gc.collect()
    process.wait(20)
    assert not hasattr(model, "backend")
    assert type(model)(model.config).forward.__func__ is model.forward.__func__


def test_a_gpt2_and_a_whisper_encoder_compute_on_webgpu(webgpu):
    model = load("gpt2", "AutoModelForCausalLM")
    browser.place(model, "webgpu")
    inputs = example_inputs(model, batch=1, seed=3) | {"use_cache": False}
    assert_as_on_torch(model, load("gpt2", "AutoModelForCausalLM"), inputs)
    whisper = load("whisper")
    encoder = whisper.get_encoder()
    browser.place(encoder, "webgpu")
    features = example_inputs(encoder, batch=1, seed=3)
    assert_as_on_torch(encoder, load("whisper").get_encoder(), features)
    forwards.placement(model).engine._session.close()
    forwards.placement(encoder).engine._session.close()


def test_in_int8_too_lost_gpus_and_killed_browsers_are_errors_and_not_hangs(webgpu):
    model = load("bert")
    browser.place(model, "webgpu", "int8")
    placed = forwards.placement(model)
    assert (placed.dtype, placed.tolerance) == ("int8", 0.1)  # and did not fall back
    assert 1e-3 < placed.difference < placed.tolerance
    assert placed.facts()["dispatches"] > 10
    inputs = example_inputs(model, batch=1)
    (gpu,) = (
        process
        for process in process_of(model).children(recursive=True)
        if "--type=gpu-process" in process.cmdline()
    )
    gpu.kill()
    with pytest.raises(UnsupportedOperationError, match="browser"):
        model(**inputs)
    forwards.placement(model).engine._session.kill()
    with pytest.raises(UnsupportedOperationError, match=r"browser.*closed"):
        model(**inputs)
    forwards.placement(model).engine._session.close()
    with pytest.raises(UnsupportedOperationError, match="it has ended"):
        model(**inputs)
    assert torch.is_tensor(type(model).forward(model, **inputs)[0])  # torch still does


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of the test's own in the place of ours."""
    (tmp_path / "page.html").write_text('<script type="module" src="run.mjs"></script>')
    monkeypatch.setattr(browser_session, "_PAGE", tmp_path)
    return tmp_path


def start(chromium: Path, page: Path, script: str, deadline: float = 60) -> BrowserSession:
    (page / "run.mjs").write_text(script)
    flags = browser._program({"path": str(chromium), "flags": [], "name": "Chromium"}).flags
    runtime = page.parent / f"{page.name}-runtime"
    runtime.mkdir()
    return BrowserSession(Program(str(chromium), flags), runtime, deadline)


def test_a_hang_ends_at_the_deadline_with_the_browser(chromium, page):
    session = start(
        chromium,
        page,
        "globalThis.rp = { hang: () => { for (;;); },"
        " slow: () => new Promise((done) => setTimeout(() => done(1), 1500)),"
        " isolated: () => crossOriginIsolated,"
        " fail: () => { throw new Error('planted') },"
        " far: () => fetch('https://localhost:1/').catch((e) => String(e)) };",
    )
    assert session.call("isolated", {}) is True
    assert "Failed to fetch" in session.call("far", {})  # its page reaches this server only
    with pytest.raises(UnsupportedOperationError, match="planted"):
        session.call("fail", {})
    session._deadline = 3
    with ThreadPoolExecutor(3) as threads:  # each waits for the others, and has its own 3 s
        assert [*threads.map(lambda _: session.call("slow", {}), range(3))] == [1, 1, 1]
    session._deadline = 1
    with pytest.raises(ComputationTimeoutError, match="killed"):
        session.call("hang", {})
    session._running.process.wait(20)
    session.close()
    assert not session.folder.exists()


def test_a_page_that_does_not_load_says_why(chromium, page):
    with pytest.raises(UnsupportedOperationError, match="planted"):
        start(chromium, page, "throw new Error('planted');")


def test_a_browser_that_does_not_start_says_so(page):
    with pytest.raises(UnsupportedOperationError, match="nowhere"):
        start(Path("/nowhere/chromium"), page, "")


def test_webnn_computes_models_and_generates_as_torch_does(
    webnn_browser, browser_report, web_engine, isolated_home
):
    (isolated_home / "web").symlink_to(web_engine / "web")
    model = load("gpt2", "AutoModelForCausalLM")
    with use_report(browser_report("webnn", webnn_browser)):
        browser.place(model, "webnn")
    tokens = example_inputs(model, batch=1)["input_ids"]
    options = {"max_new_tokens": 3, "do_sample": False}
    got = model.generate(tokens, **options)
    assert torch.equal(got, load("gpt2", "AutoModelForCausalLM").generate(tokens, **options))
    facts = forwards.placement(model).facts()
    # What computes is not told, and is not guessed.
    assert (facts["device"], facts["adapter"], facts["adapter_kind"]) == (
        "webnn:0",
        None,
        "unknown",
    )
    assert facts["dispatches"] == 1
    forwards.placement(model).engine._session.close()
    model = load("bert")
    with use_report(browser_report("webnn", webnn_browser)):
        browser.place(model, "webnn", "float16")
    placed = forwards.placement(model)
    assert placed.dtype == "float16"  # and did not fall back
    assert 1e-6 < placed.difference < placed.tolerance
    placed.engine._session.close()
