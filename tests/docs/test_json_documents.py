"""Every JSON that rp prints has a version and a published schema, and fits it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from json_schemas import SCHEMAS, assert_fits, schema

from resource_pool.prediction import ladder
from rp_cli import app
from rp_cli.reporting.store import Store

# Documents that other tests hold against their schemas, since they cost a run.
ELSEWHERE = {
    "coverage": "tests/rp_cli/test_coverage.py",
    "detection": "tests/hardware_detection/test_detection_schema.py",
    "error-report": "tests/resource_pool/test_error_reports.py",
    "error-reports": "tests/rp_cli/reporting",
    "report": "tests/rp_cli/reporting",
    "run": "tests/rp_cli/test_run_command.py",
    "web-check": "tests/rp_cli/test_web_command.py",
}
TRACED = {
    "config_class": "GPT2Config", "architecture": "GPT2LMHeadModel", "weights_bytes": 2**20,
    "notes": [], "left_out": [], "seq": 128, "inputs": {"input_ids": [1, 128]},
    "peak_bytes": 2**18, "kv_cache_bytes": 2**10, "decode_peak_bytes": 2**18,
    "kv_bytes_per_token": 8,
}  # fmt: skip
COMMANDS = {
    "classification": ["classify", "gpt2", "someone/nobody-knows-this"],
    "generation": ["generate", "--model", "gpt2", "--device", "cuda", "--dry-run"],
    "prediction": ["predict", "gpt2"],
    "check": ["check", "--check-only"],
    "sample": ["detect", "--watch", "--count", "1"],
    "model-entry": ["models", "show", "gpt2"],
}


def run_record(seconds: float) -> dict:
    file = {
        "path": "test_a.py", "status": "passed", "seconds": seconds, "error": "", "tests": [],
        "model_name": None, "weights": [], "pool": None, "output": "", "ran_in": "fork",
    }  # fmt: skip
    return {
        "schema_version": 2, "kind": "run", "started_at": "2026-01-01T00:00:00+00:00",
        "rp_version": "1", "folder": "/f", "python": "3.11", "host": "h", "files": [file],
        "interrupted": False, "signal": None, "seconds": seconds, "jobs": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_prints_fits_its_schema(rp_says, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ladder, "traced", lambda request, deadline_s: TRACED)
    code, out, err = rp_says(*COMMANDS[name], "--json")
    assert code == 0, err
    assert_fits(json.loads(out), name)


def test_a_long_list_fits_its_schema(rp_says):
    code, out, _ = rp_says("classify", *(f"org/name-{number}" for number in range(21)), "--json")
    assert code == 0
    assert_fits(json.loads(out), "classification")


def test_a_comparison_fits_its_schema(rp_says):
    numbers = [Store().save(run_record(seconds)) for seconds in (1.0, 9.0)]
    code, out, err = rp_says("report", "--compare", *numbers, "--json")
    assert code == 0, err
    assert_fits(json.loads(out), "comparison")


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("*.json")), ids=lambda file: file.stem)
def test_each_schema_is_one_with_a_title_and_a_version(file):
    found = schema(file.stem)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["title"].endswith("--json") or file.stem == "error-report"
    versioned = found.get("items", found)
    number = versioned["properties"]["schema_version"]["const"]
    assert "schema_version" in versioned["required"]
    assert f"Version {number}" in found["description"]


def names(part: object) -> Iterator[str]:
    """Yield the names of all properties that a schema describes, however deep."""
    if isinstance(part, dict):
        yield from part.get("properties", {})
        for one in part.values():
            yield from names(one)
    elif isinstance(part, list):
        for one in part:
            yield from names(one)


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("*.json")), ids=lambda file: file.stem)
def test_a_models_name_is_called_model_name_everywhere(file):
    assert not {"model", "name_of_model", "model_id"} & set(names(schema(file.stem)))


def test_no_schema_is_left_untested():
    assert {file.stem for file in SCHEMAS.glob("*.json")} == {*COMMANDS, *ELSEWHERE, "comparison"}
    top = Path(__file__).parents[2]
    for name, where in ELSEWHERE.items():
        files = [top / where] if where.endswith(".py") else (top / where).glob("*.py")
        assert any(re.search(rf'"{name}"|{name}\.json', file.read_text()) for file in files), name


def test_no_command_prints_json_without_a_schema():
    told = " ".join(schema(file.stem)["title"] for file in SCHEMAS.glob("*.json"))
    told += " rp models list --json"  # your database, whose schema is in model_db/
    for command in json_commands():
        has_schema = f"{command} --json" in told or f"{command} --watch --json" in told
        assert has_schema, f"docs/schemas/ has no schema whose title ends with `{command} --json`"


def json_commands() -> list[str]:
    found = []
    for name in app.COMMANDS:
        built = app._build(name)
        parts = getattr(built, "commands", None) or {"": built}
        for part, one in parts.items():
            if any("--json" in option.opts for option in one.params):
                found.append(f"rp {name} {part}".strip())
    return [name for name in found if name != "rp check-integration"]
