"""Model cards, remote code, diffusers pipelines, adapters, and the hub's answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_family_classifier import (
    FAMILIES,
    ClassificationInputError,
    classify_model,
    hub_metadata,
)
from model_family_classifier import hub as hub_module
from model_family_classifier.card import NO_CARD, Card, read_card


def make(folder: Path, files: Mapping[str, Any]) -> str:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return str(folder)


def card(**facts: Any) -> str:
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in facts.items())
    return f"---\n{lines}---\n# A model\n"


@pytest.mark.parametrize(
    ("config", "tag", "expected"),
    [
        ({"model_type": "new"}, "object-detection", ("vision", "object_detector")),
        ({"model_type": "bert"}, "token-classification", ("embedding", "token_classifier")),
        # A head in the config is what the checkpoint really has.
        (
            {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
            "text-classification",
            ("embedding", "masked_lm"),
        ),
        # A base model can be anything: the card knows.
        (
            {"model_type": "mpnet", "architectures": ["MPNetModel"]},
            "sentence-similarity",
            ("embedding", "sentence_transformer"),
        ),
    ],
)
def test_pipeline_tag(
    tmp_path: Path, config: dict[str, Any], tag: str, expected: tuple[str, str]
) -> None:
    folder = make(tmp_path, {"config.json": config, "README.md": card(pipeline_tag=tag)})
    result = classify_model(folder)
    assert (result["family"], result["subfamily"]) == expected
    assert "model_card" in result["analyses"]


@pytest.mark.parametrize(
    ("facts", "deployment"),
    [
        ({"library_name": "transformers.js"}, "web_deployment"),
        ({"tags": ["onnx", "transformers.js"]}, "web_deployment"),
        ({"tags": [["transformers.js"], {}, None]}, None),
        ({"library_name": "transformers"}, None),
    ],
)
def test_card_of_a_model_for_browsers(
    tmp_path: Path, facts: dict[str, Any], deployment: str | None
) -> None:
    folder = make(tmp_path, {"config.json": {"model_type": "bert"}, "README.md": card(**facts)})
    assert classify_model(folder)["deployment"] == deployment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no front matter",
        "---\npipeline_tag: fill-mask\n",
        "---\n[\n---\n",
        "---\n- a\n---\n",
        "---\npipeline_tag: !!python/name:os.system x\n---\n",
        "---\na: &a [*a]\n---\n",
        "---\n" + "[" * 5000 + "\n---\n",
        "---\npipeline_tag: 'a\x1b[31m'\n---\n",
        "---\npipeline_tag: 5\nlibrary_name: []\ntags: 3\n---\n",
    ],
)
def test_a_broken_card_says_nothing(tmp_path: Path, text: str) -> None:
    make(tmp_path, {"README.md": text})
    assert read_card(tmp_path) == NO_CARD


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_card_is_read_or_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "README.md").write_bytes(b"---\n" + content + b"\n---\n")
    assert isinstance(read_card(tmp_path), Card)


def test_remote_code_says_what_it_is_through_auto_map(tmp_path: Path) -> None:
    config = {
        "model_type": "remote",
        "architectures": ["RemoteThing"],
        "auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M", "not a class": "x"},
    }
    result = classify_model(make(tmp_path, {"config.json": config}))
    assert (result["family"], result["auto_class"]) == ("text_generation", "AutoModelForCausalLM")


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("StableDiffusionXLPipeline", ("diffusion", "text_to_image")),
        ("StableDiffusionInpaintPipeline", ("diffusion", "image_to_image")),
        ("CogVideoXPipeline", ("diffusion", "text_to_video")),
        ("StableVideoDiffusionPipeline", ("diffusion", "image_to_video")),
        ("AudioLDM2Pipeline", ("audio", "text_to_audio")),
        ("DDPMPipeline", ("diffusion", "image_generation")),
    ],
)
def test_diffusers_pipeline(tmp_path: Path, pipeline: str, expected: tuple[str, str]) -> None:
    result = classify_model(make(tmp_path, {"model_index.json": {"_class_name": pipeline}}))
    assert (result["family"], result["subfamily"]) == expected


@pytest.mark.parametrize("index", ["{", "[]", {}, {"_class_name": "a b"}, {"_class_name": 3}])
def test_malformed_pipeline(tmp_path: Path, index: Any) -> None:
    with pytest.raises(ClassificationInputError, match=r"model_index\.json"):
        classify_model(make(tmp_path, {"model_index.json": index}))


def test_adapter_is_what_its_base_model_is(tmp_path: Path) -> None:
    adapter = {"base_model_name_or_path": "meta-llama/Llama-3.1-8B-Instruct"}
    result = classify_model(make(tmp_path, {"adapter_config.json": adapter}))
    assert (result["family"], result["model_type"]) == ("text_generation", "llama")


@pytest.mark.parametrize("base", ["../../etc", 3, None, "a b"])
def test_adapter_without_a_usable_base_is_no_model_folder(tmp_path: Path, base: Any) -> None:
    folder = make(tmp_path, {"adapter_config.json": {"base_model_name_or_path": base}})
    with pytest.raises(ClassificationInputError, match=r"no config\.json"):
        classify_model(folder)


def test_the_hubs_answer_goes_over_the_name() -> None:
    asked = []

    def hub(name: str) -> dict[str, Any]:
        asked.append(name)
        config = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
        return {"config": config, "pipeline_tag": "image-classification", "tags": []}

    result = classify_model("acme/bert-like", hub=hub)
    assert (result["family"], result["subfamily"]) == ("vision", "image_classifier")
    assert result["evidence"][0]["source"] == "hub"
    assert asked == ["acme/bert-like"]


def test_the_hub_is_not_asked_for_a_folder(tmp_path: Path) -> None:
    def hub(name: str) -> dict[str, Any]:
        raise AssertionError(name)

    folder = make(tmp_path, {"config.json": {"model_type": "bert"}})
    assert classify_model(folder, hub=hub)["family"] == "embedding"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"error": "no network"},
        {"config": None, "pipeline_tag": None, "tags": None},
        {"config": [], "pipeline_tag": 5, "library_name": {}, "tags": [[], None]},
        {"config": {"model_type": "a\x1b", "architectures": ["import os", 5], "auto_map": []}},
        {"pipeline_tag": "juggling", "library_name": "nobody-knows"},
    ],
)
def test_whatever_the_hub_answers_the_name_still_counts(answer: dict[str, Any]) -> None:
    result = classify_model("gpt2", hub=lambda _: answer)
    assert result["family"] == "text_generation"
    assert "\x1b" not in json.dumps(result, ensure_ascii=False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_json_of_the_hub_gives_a_legal_answer(value: Any) -> None:
    answer = dict.fromkeys(("config", "pipeline_tag", "library_name", "tags"), value)
    assert classify_model("some/thing", hub=lambda _: answer)["family"] in FAMILIES


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_sends_nothing(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(hub_module, "_fetched", None)
    assert variable in hub_metadata("gpt2")["error"]


def fake_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def fetched(name: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer(name) if callable(answer) else answer

    monkeypatch.setattr(hub_module, "_timeouts", 0)
    monkeypatch.setattr(hub_module, "_fetched", fetched)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)


def test_a_hub_that_dribbles_is_given_up_and_after_twice_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, asked = threading.Event(), []

    def dribble(name: str) -> None:
        asked.append(name)
        done.wait()

    fake_hub(monkeypatch, dribble)
    monkeypatch.setattr(hub_module, "TIMEOUT_SECONDS", 0.05)
    try:
        said = [hub_metadata(f"a/{number}")["error"] for number in range(4)]
    finally:
        done.set()
    assert (
        said
        == ["the hub gave no answer in 0 s"] * 2
        + ["the hub is not asked: it did not answer 2 times"] * 2
    )
    assert asked == ["a/0", "a/1"]


def test_the_clients_own_timeout_counts_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, TimeoutError("The read operation timed out"))
    said = [hub_metadata("a/b")["error"] for _ in range(3)]
    assert ["gave no answer" in one for one in said] == [True, True, False]


class Hub(BaseHTTPRequestHandler):
    """A hub that answers nothing of use, and keeps what it was sent."""

    sent: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.sent.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_hub_is_sent_one_request_with_the_name_and_no_token() -> None:
    """In a process of its own: the client reads its settings when it is imported."""
    pytest.importorskip("huggingface_hub")
    handler = type("Keeping", (Hub,), {"sent": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        environ = {**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_secret"}
        environ |= {"NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
        code = "from model_family_classifier import hub_metadata as ask; print(ask('a/b')['error'])"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
        )
        server.shutdown()
    assert "gave no answer" in done.stdout, done.stderr
    ((path, headers),) = handler.sent
    assert path == (
        "/api/models/a/b?expand=config&expand=library_name&expand=pipeline_tag&expand=tags"
    )
    assert "authorization" not in headers
    assert "hf_secret" not in str(headers)


def test_online_the_client_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "vit"}
    fake_hub(monkeypatch, {"config": config, "pipeline_tag": "image-classification", "id": "x"})
    found = hub_metadata("acme/thing")
    assert found["config"] == {"model_type": "vit"}
    assert classify_model("acme/thing", hub=hub_metadata)["family"] == "vision"


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("odd\nlines"), []])
def test_a_failing_hub_is_reported_on_one_line(monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    fake_hub(monkeypatch, error)
    result = classify_model("gpt2", hub=hub_metadata)
    assert result["family"] == "text_generation"
    assert "gave no answer" in result["analyses"]["hub"]["detail"]
    assert "\n" not in result["analyses"]["hub"]["detail"]
