"""Every parser of what nobody vouches for, as a function of bytes with errors of its own.

Anything else that comes out of one of these is a bug: a traceback where a user should get one
sentence, or a report that a broken file keeps from being made.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Parser(NamedTuple):
    """A parser, the errors that it may raise, and inputs that it takes."""

    parse: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _in_folder(name: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    """Return a parser that reads the bytes as a file of this name in an empty folder."""

    def parse(data: bytes) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, name).write_bytes(data)
            return read(Path(folder))

    return parse


def _preferences(data: bytes) -> Any:
    from resource_pool._preferences import ENVIRONMENT_VARIABLE, preferences_from_environment

    text = data.decode("utf-8", "surrogateescape").replace("\0", "")
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    os.environ[ENVIRONMENT_VARIABLE] = text
    try:
        return preferences_from_environment({})
    finally:
        del os.environ[ENVIRONMENT_VARIABLE]
        if before is not None:
            os.environ[ENVIRONMENT_VARIABLE] = before


def _proof(data: bytes) -> Any:
    from hardware_detection.answers import read_answer

    return read_answer(data.decode(errors="replace"))


def _vendor_texts(data: bytes) -> Any:
    from hardware_detection import parsing

    text = data.decode(errors="replace")
    return (
        parsing.parse_nvidia_smi(text),
        parsing.parse_nvidia_smi_list(text),
        parsing.parse_nvidia_driver(text),
        parsing.parse_refused_field(text),
        parsing.parse_rocminfo(text),
        parsing.parse_cpuinfo(text),
        parsing.parse_meminfo(text),
        parsing.parse_sockets(text),
        parsing.parse_torch_version(text),
        parsing.parse_visible_devices(text),
    )


def _requirement(data: bytes) -> Any:
    from hardware_detection.requirements import parse

    return parse(data.decode(errors="replace"))


def _browser_tensors(data: bytes) -> Any:
    """Read a page's answer: a line of JSON that says what is where, and the bytes."""
    from resource_pool.devices.web_tensors import unpacked

    told, _, body = data.partition(b"\n")
    try:
        return unpacked(json.loads(told), body)
    except (ValueError, RecursionError):  # the page speaks JSON: Playwright reads it
        return None


def _browser_proof(data: bytes) -> Any:
    from resource_pool.devices.web_engines import node_placements

    return node_placements(data.decode(errors="replace").splitlines())


def _config(folder: Path) -> Any:
    from model_family_classifier import classify_model

    return classify_model(str(folder))


def _card(folder: Path) -> Any:
    from model_family_classifier.card import read_card

    return read_card(folder)


def _name(data: bytes) -> Any:
    from model_family_classifier import classify_model

    return classify_model(data.decode(errors="replace"))


def _database(folder: Path) -> Any:
    from model_family_classifier.database import read_database

    (file,) = folder.iterdir()
    return read_database(file)


def _hardware_cache(folder: Path) -> Any:
    from hardware_detection import cache

    data = cache.read(folder / "hw.json")
    return None if data is None else cache.believe(data, {})


def _description(folder: Path) -> Any:
    from hardware_detection.described import load

    return load(folder / "machine.json")


def _weights(folder: Path) -> Any:
    from resource_pool._estimate import needed_bytes
    from resource_pool.prediction.files import header_bytes
    from resource_pool.weights.folders import is_whole

    file = folder / "model.safetensors"
    whole = is_whole(file)
    return whole, needed_bytes(str(folder), "", None), header_bytes(folder, "float16")


def _error_report(folder: Path) -> Any:
    from rp_cli.reporting.errors import error_reports

    return error_reports(folder, 5)


def _run_record(data: bytes) -> Any:
    from rp_cli.reporting.page import page
    from rp_cli.reporting.runs import tidy_check, tidy_run

    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):  # the store hands out objects only
        return None
    return tidy_run(record), tidy_check(record), page


def parsers() -> dict[str, Parser]:
    """Return every parser by name."""
    from hardware_detection.answers import ProofError
    from hardware_detection.errors import (
        HardwareCacheError,
        HardwareDescriptionError,
        RequirementError,
    )
    from model_family_classifier.errors import ClassificationInputError
    from resource_pool.errors import PreferenceError, UnsupportedOperationError

    bad_input = (ClassificationInputError,)
    database = {"m": {"family": "vision", "tasks": ["image-classification"], "model_type": "vit"}}
    config = {"model_type": "bert", "architectures": ["BertModel"], "text_config": {}}
    device = {"index": 0, "name": "GPU", "results": {"fp32": [0.0]}, "facts": {"uuid": "x"}}
    header = as_json({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})
    file = {"path": "test_a.py", "status": "failed", "seconds": 1.0, "tests": [], "pool": {}}
    told = [{"name": "x", "type": "float32", "dims": [2], "offset": 0}]
    smi = b"0, GPU-1, NVIDIA H200, 143771, 143156, 580.159.04, 9.0, Disabled\n"
    return {
        "hardware cache": Parser(
            _in_folder("hw.json", _hardware_cache),
            (HardwareCacheError,),
            (as_json({"schema_version": 1, "detections": [{"records": {}, "fingerprint": {}}]}),),
        ),
        "machine description": Parser(
            _in_folder("machine.json", _description),
            (HardwareDescriptionError,),
            (as_json({"schema_version": 1, "backends": {"cuda": {"devices": [{"count": 8}]}}}),),
        ),
        "model database, JSON": Parser(
            _in_folder("db.json", _database), bad_input, (as_json(database),)
        ),
        "model database, YAML": Parser(
            _in_folder("db.yaml", _database), bad_input, (b"m: {family: vision}\n",)
        ),
        "config": Parser(_in_folder("config.json", _config), bad_input, (as_json(config),)),
        "model card": Parser(
            _in_folder("README.md", _card), (), (b"---\npipeline_tag: fill-mask\n---\nwords",)
        ),
        "model name": Parser(_name, bad_input, (b"org/bert-base-uncased",)),
        "preferences": Parser(
            _preferences,
            (PreferenceError,),
            (as_json({"device": "cuda:1"}), b"{'priority_list': ['cuda', 'cpu']}"),
        ),
        "proof": Parser(_proof, (ProofError,), (as_json({"devices": [device], "facts": {}}),)),
        "vendors' texts": Parser(_vendor_texts, (), (smi, b"GPU 0: A100 (UUID: GPU-1)\n")),
        "requirement": Parser(_requirement, (RequirementError,), (b"cuda>=1,vram>=40GiB",)),
        "browser's tensors": Parser(
            _browser_tensors,
            (UnsupportedOperationError,),
            (as_json(told) + b"\n" + bytes(8),),
        ),
        "browser's log": Parser(
            _browser_proof, (), (b"Node placements\nAll nodes placed on [CPU] 3\n",)
        ),
        "safetensors": Parser(
            _in_folder("model.safetensors", _weights),
            (),
            (len(header).to_bytes(8, "little") + header + bytes(8),),
        ),
        "error report": Parser(
            _in_folder("error_report_1.json", _error_report),
            (),
            (as_json({"schema_version": 1, "model_name": "m", "error_type": "unknown"}),),
        ),
        "record of a run": Parser(
            _run_record, (), (as_json({"kind": "run", "files": [file], "seconds": 1}),)
        ),
    }
