"""``rp web``: what it finds out, and what it says where something is not here."""

from __future__ import annotations

import re

import pytest
from json_schemas import assert_fits

from hardware_detection.testing import use_report
from resource_pool.devices import browser_runtime
from resource_pool.errors import WebSetupError
from rp_cli.checking.web import check_model
from rp_cli.commands.web import _lines

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_WEIGHTS", "tiny")


def test_without_engine_and_browser_it_exports_simulates_and_names_what_is_missing(rp):
    done = rp("web", "check", "bert-base-uncased")
    assert done.code == 3
    for words in ("Export: ", "Limits: within", "Simulated on the CPU", "rp web setup", "not run"):
        assert words in done.out


def test_as_json(rp):
    done = rp("web", "check", "gpt2", "--provider", "webnn", "--json")
    found = done.json
    assert_fits(found, "web-check")
    assert (done.code, found["verdict"], found["run"]) == (3, "not_run", None)
    assert found["simulation"]["simulated"] is True
    assert found["export"]["operators"]["MatMul"] > 0
    assert found["weights"]["kind"] == "tiny"
    assert len(found["missing"]) == 2


def test_what_the_database_says_of_a_model_is_what_it_is(rp):
    done = rp("models", "add", "acme/x", "--family", "embedding", "--model-type", "bert")
    assert done.code == 0
    found = rp("web", "check", "acme/x", "--json").json
    assert (found["family"], found["weights"]["kind"]) == ("embedding", "tiny")


def test_an_optimized_file_tells_what_it_saves_and_costs(rp):
    done = rp("web", "check", "bert-base-uncased", "--optimized")
    assert done.code == 3
    assert re.search(r"Optimized: in int8, \d\d% of 1\.4 MiB in float32", done.out)
    assert re.search(
        r"Simulated on the CPU: differs by \S+ of the greatest value, 0\.1 passes", done.out
    )
    found = rp("web", "check", "bert-base-uncased", "--optimized", "--json").json
    assert found["export"]["dtype"] == found["simulation"]["dtype"] == "int8"
    assert found["export"]["file_bytes"] < 0.4 * found["export"]["float32_file_bytes"]
    assert 1e-3 < found["simulation"]["difference"] < found["simulation"]["tolerance"]


def test_a_wrong_answer_is_a_failure(rp, monkeypatch):
    from resource_pool.devices import web_engines

    def wrong(self, session, arrays):
        return [array + 1 for array in session.run(None, dict(arrays))]

    monkeypatch.setattr(web_engines.SimulatedEngine, "_run", wrong)
    done = rp("web", "check", "bert-base-uncased")
    assert done.code == 1
    assert "It does not run: webgpu:simulation computes something else than torch" in done.out


def test_in_a_real_browser(chromium, browser_report):
    with use_report(browser_report("webgpu", chromium)):
        found = check_model("bert-base-uncased", "webgpu")
    text = "\n".join(_lines(found))
    assert found["verdict"] == "runs", text
    assert "It runs in this browser as on PyTorch." in text
    assert " on WebGpu, " in text
    assert found["run"]["dispatches"] > 10
    assert found["run"]["difference"] < 1e-4


def test_setup_says_where_it_is_and_why_it_failed(rp, monkeypatch):
    folders = []
    for package in browser_runtime.PACKAGES:
        folders.append(browser_runtime.runtime_folder(package))
        folders[-1].mkdir(parents=True)
        for name in package.files:
            (folders[-1] / name).touch()
    done = rp("web", "setup")
    assert (done.code, done.out) == (0, "")
    assert "@huggingface/transformers 4" in done.err
    assert all(str(folder) in done.err.replace("\n", "") for folder in folders)

    def fail(package: object, *, again: bool) -> None:
        raise WebSetupError("npm is not installed.")

    monkeypatch.setattr(browser_runtime, "install", fail)
    done = rp("web", "setup")
    assert (done.code, done.err) == (1, "rp: npm is not installed.\n")
