"""Coverage: a sample of model types; ``rp models coverage`` checks all of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from json_schemas import assert_fits

from rp_cli.coverage import coverage
from rp_cli.coverage.coverage import _versions, summary
from rp_cli.coverage.generated import check_generated, plan_of, write_tests
from rp_cli.coverage.results import append_result, read_results
from rp_cli.coverage.sweep import _check, known_types, sweep
from rp_cli.errors import BadInputError, ExitCode, OutputError

# Each stands for a way in which models are built or take their inputs.
SAMPLE = {
    "albert": "text",
    "blip-2": "image+text",
    "chinese_clip": "image+text",
    "clvp": "audio+text",
    "convnext": "image",
    "decision_transformer": None,
    "deepseek_v3": "text",
    "encodec": "audio",
    "gemma4": "image+audio+text",
    "granitemoehybrid": "text",
    "jamba": "text",
    "llava_next": "image+text",
    "mamba2": "text",
    "mask2former": "image",
    "musicgen": "text",
    "patchtst": "time series",
    "qwen2_5_vl": "image+text",
    "sam2": "image",
    "segformer": "image",
    "siglip2": "image+text",
    "speecht5": None,
    "timesformer": "image",
    "udop": "image+text",
    "vjepa2": "video",
    "wav2vec2-bert": "audio",
}


def test_a_sample_of_types_builds_and_runs_at_its_modality(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = coverage(list(SAMPLE), as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert_fits(document, "coverage")
    rows = document["types"]

    failures = {row["model_type"]: row["cause"] for row in rows if row["status"] != "passed"}
    assert failures == {}
    assert status is ExitCode.OK
    for row in rows:
        expected = SAMPLE[row["model_type"]]
        assert expected in {None, row["modality"]}, row["model_type"]
        assert row["megabytes"] < 60


# Each once failed its generated test as it is, for a cause of its own.
FORMER_FALSE_ALARMS = (
    "bert-generation",  # its default config is no decoder
    "bros",  # boxes that were all alike
    "canine",  # convolutions over text see padding
    "dac",  # a loss is a mean over the rows
    "d_fine",  # layers on the first dimension, as many as rows
    "eomt_dinov3",  # a probability of one, moved by the twin's jitter
    "gpt_neox",  # its head has another name in the file
)


def test_generated_tests_of_types_of_each_kind_pass(capsys: pytest.CaptureFixture[str]) -> None:
    status = coverage(FORMER_FALSE_ALARMS, generated=True, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert_fits(document, "coverage")
    rows = document["types"]

    assert {row["model_type"]: row["cause"] for row in rows if row["status"] != "passed"} == {}
    assert status is ExitCode.OK
    assert all(row["checks"]["passed"] >= 8 for row in rows)
    left_out = {row["model_type"]: set(row["left_out"]) for row in rows if row["left_out"]}
    assert left_out["canine"] == {"test_padding_does_not_change_a_row"}


def test_a_failing_check_is_told_with_what_it_said(tmp_path: Path) -> None:
    plans = {"bert": plan_of("bert")}
    (file,) = write_tests(plans, tmp_path).values()
    source = file.read_text()
    broken = source.replace("self.assertFalse(model.training)", "self.assertTrue(model.training)")
    assert broken != source
    file.write_text(broken)

    (found,) = sweep([("bert", "AutoModel", str(file))], check=check_generated)

    assert found["status"] == "failed"
    assert [*found["failures"]] == ["test_running_again_changes_nothing"]
    assert found["cause"].startswith("test_running_again_changes_nothing: AssertionError: False")


def test_a_type_without_a_twin_fails_its_generated_test_and_is_declared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert coverage(["layoutlmv2"], generated=True) is ExitCode.OK
    out = " ".join(capsys.readouterr().out.split())
    assert "declared" in out
    assert "0 of 1 passed" in out


def row(model_type: str, status: str, **facts: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "auto_class": "AutoModel",
        "status": status,
        "seconds": 1.0,
        **facts,
    }


def test_an_unknown_type_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInputError, match="did you mean bert"):
        coverage(["brt"])


def test_what_passed_before_is_not_checked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.jsonl"
    append_result(file, row("bert", "passed", modality="text", versions=_versions()))
    append_result(file, row("gpt2", "failed", cause="it rained", versions=_versions()))
    append_result(file, row("t5", "passed", versions={**_versions(), "torch": "1.0"}))
    checked: list[str] = []

    def fake(types: list[tuple[str, str]]) -> Any:
        for model_type, _ in types:
            checked.append(model_type)
            yield row(model_type, "passed")

    monkeypatch.setattr("rp_cli.coverage.sweep.sweep", fake)
    coverage(["bert", "gpt2", "t5"], results=file)
    coverage(["bert", "gpt2", "t5"], results=file)

    assert checked == ["gpt2", "t5"]
    assert {name: one["status"] for name, one in read_results(file).items()} == {
        "bert": "passed",
        "gpt2": "passed",
        "t5": "passed",
    }
    assert "3 of 3 passed (100.0 %)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model_type", "observed", "status", "code"),
    [
        ("bark", "ValueError: BarkModel only generates", "declared", ExitCode.OK),
        ("bark", "KeyError: 'speech'", "failed", ExitCode.FAILED),
        ("dinat", "ImportError: it requires the natten library", "declared", ExitCode.OK),
        ("dinat", "RuntimeError: the shapes differ", "failed", ExitCode.FAILED),
        ("bert", "no [forward]", "failed", ExitCode.FAILED),
    ],
)
def test_only_the_very_failure_that_is_declared_is_no_failure(
    model_type: str,
    observed: str,
    status: str,
    code: ExitCode,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = row(model_type, "failed", cause=observed)
    monkeypatch.setattr("rp_cli.coverage.sweep.sweep", lambda types: iter([failed]))

    assert coverage([model_type]) is code
    assert status in capsys.readouterr().out


def test_what_was_observed_stands_beside_what_was_declared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = "ValueError: BarkModel only generates"
    failed = row("bark", "failed", cause=seen)
    monkeypatch.setattr("rp_cli.coverage.sweep.sweep", lambda types: iter([failed]))
    coverage(["bark"], as_json=True)
    (told,) = json.loads(capsys.readouterr().out)["types"]
    assert told["cause"].startswith("no_forward: ")
    assert told["observed"] == seen


def test_a_type_that_takes_too_long_is_a_failure_and_not_the_end() -> None:
    (result,) = sweep([("bert", "AutoModel")], deadline=0.01)
    assert result["status"] == "failed"
    assert "no answer within" in result["cause"]


def test_a_type_that_cannot_be_built_says_the_cause() -> None:
    (result,) = sweep([("layoutlmv2", "AutoModel")])
    assert (result["status"], result["stage"]) == ("failed", "build")
    assert "detectron2" in result["cause"]


@pytest.mark.parametrize("kept", [3, 30])
def test_a_line_that_breaks_off_is_left_out_and_goes_on_as_no_other(
    kept: int, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    append_result(file, row("bert", "passed"))
    with file.open("a") as stream:
        stream.write(json.dumps(row("gpt2", "passed"))[:kept])
    assert [*read_results(file)] == ["bert"]
    append_result(file, row("t5", "passed"))
    assert [*read_results(file)] == ["bert", "t5"]


def test_a_limit_of_memory_below_the_sweeps_own_stays() -> None:
    import resource

    answers: list[bytes] = []
    limited: list[Any] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resource, "getrlimit", lambda _: (2**33, 2**33))
        patched.setattr(resource, "setrlimit", lambda _, limits: limited.append(limits))
        patched.setenv("RP_HOME", "")
        patched.setattr("torch.set_num_threads", lambda _: None)
        sender = SimpleNamespace(send_bytes=answers.append)
        _check(sender, lambda *_: {}, ("bert", "AutoModel"), "home")
    assert (limited, answers) == ([(2**33, 2**33)], [b"{}"])


@pytest.mark.parametrize("content", ["no json\n", "[1]\n", '{"model_type": "bert"}\n'])
def test_a_file_that_holds_something_else_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(content)
    with pytest.raises(BadInputError, match="holds no results"):
        coverage(["bert"], results=tmp_path / "other")


def test_results_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        append_result(tmp_path / "no folder" / "file", row("bert", "passed"))


def test_all_types_with_an_auto_class_are_known() -> None:
    types = known_types()
    assert len(types) > 600
    assert types["bert"] == "AutoModel"
    assert max(Counter(types.values()).values()) < len(types)


def test_the_summary_counts() -> None:
    rows = [row("a", "passed"), row("b", "passed"), row("c", "declared"), row("d", "failed")]
    assert summary(rows) == "2 of 4 passed (50.0 %), 1 declared, 1 failed"
