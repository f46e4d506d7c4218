"""What a load no longer does by itself, and that what is said of it stays true."""

from __future__ import annotations

import gc
import json
import os
import struct
import weakref
from pathlib import Path

import pytest

import hardware_detection
from hardware_detection import service
from hardware_detection.testing import fake_report
from resource_pool import ResourcePool, _hardware
from resource_pool._estimate import needed_bytes
from resource_pool.prediction import files
from resource_pool.testing import MIB, FakeMachine
from resource_pool.weights import evidence

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    model = transformers.BertModel(config)
    for parameter in model.parameters():  # as trained ones: no vector holds one value
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture
def pool() -> ResourcePool:
    return ResourcePool(hardware=fake_report)


def loaded(pool: ResourcePool, folder: str):
    return pool.get_model(
        "embedding", folder, lambda: transformers.AutoModel.from_pretrained(folder)
    )


def weights(pool: ResourcePool) -> str:
    (facts,) = pool.get_stats()["models"].values()
    return facts["weights"]


# -- the origin of the weights ---------------------------------------------------------------


def test_the_origin_is_proven_once_and_only_where_somebody_asks(pool, folder, monkeypatch):
    proofs = []
    proof = evidence.provenance
    monkeypatch.setattr(
        "resource_pool.weights.provenance", lambda model: proofs.append(1) or proof(model)
    )
    loaded(pool, folder)
    assert proofs == []
    assert [weights(pool), weights(pool)] == ["pretrained"] * 2
    assert pool.events()[0].numbers["weights"] == "pretrained"
    assert next(iter(pool._stats.values()))["weights"] == "pretrained"
    assert proofs == [1]


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.add_(1e-9),
        lambda weight: setattr(weight, "data", weight.data.clone()),
    ],
    ids=["in place", "other data"],
)
def test_of_weights_that_changed_before_anybody_asked_nothing_is_known(pool, folder, change):
    model = loaded(pool, folder)
    with torch.no_grad():
        change(model.encoder.layer[0].output.dense.weight)
    assert weights(pool) == "unknown"


def test_files_that_were_written_after_the_load_prove_nothing(pool, folder):
    def load():
        model = transformers.AutoModel.from_pretrained(folder)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        return model

    model = pool.get_model("embedding", folder, load)
    model.save_pretrained(folder)
    assert weights(pool) == "unknown"


def test_what_was_proven_stays_told_of_the_load(pool, folder):
    model = loaded(pool, folder)
    assert weights(pool) == "pretrained"
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight.add_(1.0)
    assert weights(pool) == "pretrained"


def test_the_record_of_a_model_that_is_gone_still_names_its_weights(pool, folder):
    loaded(pool, folder)
    pool.clear()
    assert pool.events()[0].numbers["weights"] == "pretrained"
    json.dumps([dict(event.numbers) for event in pool.events()])


def test_a_model_that_is_changed_under_a_lease_was_proven_before(pool, folder):
    loaded(pool, folder)
    with pool.lease("embedding", folder) as model, torch.no_grad():
        model.encoder.layer[0].output.dense.weight.add_(1.0)
    assert pool.events()[0].numbers["weights"] == "pretrained"


def test_a_tensor_that_counts_no_versions_is_proven_at_once(pool, folder):
    def load():
        with torch.inference_mode():
            model = transformers.AutoModel.from_pretrained(folder)
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
        return model

    pool.get_model("embedding", folder, load)
    assert weights(pool) == "pretrained"


# -- the hardware ----------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """Count the reports of the detector, which answers as ``answers[0]``."""
    reports, answers = [], [fake_report()]

    def detector(*, web: bool):
        reports.append(web)
        return answers[0]

    monkeypatch.setattr(_hardware, "_detector", lambda: detector)
    return reports, answers


def test_a_report_serves_several_loads(asked):
    pool = ResourcePool(estimate=lambda *_: None)
    for name in "abc":
        pool.get_model("embedding", name, object)
    assert asked[0] == [False]


def test_a_change_of_what_the_report_depends_on_is_seen_at_once(asked, monkeypatch, tmp_path):
    pool = ResourcePool(estimate=lambda *_: None)
    pool.get_model("embedding", "a", object)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    pool.get_model("embedding", "b", object)
    described = tmp_path / "machine.json"
    described.write_text(json.dumps(fake_report()))
    with service.replaced_by(fake_report()):
        pool.get_model("embedding", "c", object)
    pool.get_model("embedding", "d", object)
    assert len(asked[0]) == 4


def test_a_report_with_a_gpu_holds_for_a_second_and_without_for_a_minute(asked, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(_hardware.time, "monotonic", lambda: now[0])
    pool = ResourcePool(estimate=lambda *_: None)
    reports, answers = asked

    def reports_after(seconds: float) -> int:
        now[0] += seconds
        pool.explain("embedding", "m")
        return len(reports)

    assert [reports_after(0), reports_after(59)] == [1, 1]
    answers[0] = fake_report(cuda=[{"memory_total_mb": 100.0, "memory_free_mb": 50.0}])
    assert reports_after(2) == 2
    assert [reports_after(0.9), reports_after(0.2)] == [2, 3]
    pool.get_stats()
    now[0] += 7
    (gpu,) = pool.get_stats()["cuda_memory"]["devices"]
    assert gpu["age_seconds"] == pytest.approx(7, abs=0.2)


def test_an_error_report_asks_for_the_hardware_of_its_moment(asked):
    pool = ResourcePool(estimate=lambda *_: None)
    for _ in range(2):
        pool.generate_error_report("m", "cuda", "CUDA out of memory")
    assert len(asked[0]) == 2


def test_detection_is_what_the_pool_asks(monkeypatch):
    assert _hardware._detector() is hardware_detection.detect_available_hardware


# -- what a model needs ----------------------------------------------------------------------


def test_headers_count_with_the_familys_headroom_and_records_without(folder):
    from resource_pool.prediction import record_use
    from resource_pool.prediction.margins import HEADROOM

    alone = needed_bytes(folder, "", None)
    for family in ("embedding", "audio"):
        assert needed_bytes(folder, "", None, family) == round(alone * (1 + HEADROOM[family]))
    assert needed_bytes(folder, "", None, "a word of my own") > alone
    record_use(folder, 3 * alone, revision="", dtype=None, backend="cpu")
    assert needed_bytes(folder, "", None, "audio") == 3 * alone


def test_what_rp_predict_found_out_counts_before_headers(folder):
    from resource_pool.prediction import predict

    alone = needed_bytes(folder, "", None)
    total = predict(folder).total_bytes
    assert total != round(1.05 * alone)
    assert needed_bytes(folder, "", None, "embedding") == max(total, alone)


def test_a_measured_peak_counts_before_what_was_predicted(folder):
    from resource_pool.prediction import predict, record_peak

    prediction = predict(folder)
    record_peak(prediction, 5 * prediction.total_bytes)
    assert needed_bytes(folder, "", None, "embedding") == 5 * prediction.total_bytes


def test_the_plan_takes_the_headroom_of_the_models_family(folder):
    machine = FakeMachine({"cpu": 1000})
    alone = needed_bytes(folder, "", None)
    pool = ResourcePool(hardware=machine.report, devices=machine.devices, system=machine.system)
    assert pool.explain("vision", folder).needed == round(1.3 * alone)
    assert pool.explain("vision", folder, needs=MIB).needed == MIB


def test_files_are_read_again_only_where_they_have_changed(folder, monkeypatch):
    read = []
    header_bytes = files.header_bytes
    monkeypatch.setattr(files, "header_bytes", lambda *a: read.append(a) or header_bytes(*a))
    first = needed_bytes(folder, "", "float16")
    assert needed_bytes(folder, "", "float16") == first
    assert len(read) == 1
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    file = Path(folder, "model.safetensors")
    file.unlink()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    os.utime(file, ns=(1, 1))
    assert needed_bytes(folder, "", "float16") == 8
    assert needed_bytes(folder, "", None) == 16


# -- the way out -----------------------------------------------------------------------------


def test_a_pool_goes_with_its_last_reference_and_its_models_with_it(machine):
    gc.collect()
    gc.disable()
    try:
        pool = machine.pool()
        model = weakref.ref(pool.get_model("embedding", "m", machine.loader(1)))
        with pool.lease("embedding", "m"):
            pool.get_stats()
        gone = weakref.ref(pool)
        del pool
        assert gone() is None
        assert model() is None
    finally:
        gc.enable()
