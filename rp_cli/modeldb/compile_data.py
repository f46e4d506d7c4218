"""Compiles what every classification reads into one JSON file: the YAML, and the backends.

Reading 70 KB of YAML takes longer than all the rest of ``rp classify``: importing PyYAML and
parsing take some 50 ms, the JSON 2 ms. The YAML files are the ones to edit. The backends are those
of hardware_detection, which the classifier does not import.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hardware_detection import HARDWARE_NAMES, torch_device_name
from hardware_detection.files import write_atomically
from hardware_detection.names import GPUS
from model_family_classifier.data import data_dir
from model_family_classifier.documents import load_trusted_yaml
from model_family_classifier.names import joined


def compile_data() -> dict[str, Any]:
    """Return names as they are looked up, backend -> PyTorch's device, exceptions by type, …"""
    folder = data_dir("model_db")
    names = load_trusted_yaml(folder / "names.yaml")
    return {
        "schema_version": 1,
        "names": {
            **{key: names[key] for key in ("purposes", "browsers", "patterns", "organisations")},
            "only_first": [joined(name) for name in names["only_first"]],
            "known": _known(names["names"]),
        },
        "backends": {name: _first_device(name) for name in HARDWARE_NAMES},
        "hardware_matrix": load_trusted_yaml(folder / "hardware_matrix.yaml"),
        "web_limits": load_trusted_yaml(folder / "web_limits.yaml"),
        "generated_tests": _exceptions(load_trusted_yaml(folder / "generated_tests.yaml")),
    }


def write_data(data: dict[str, Any], path: Path) -> None:
    """Write the compiled data, a part or a known name per line, so that a diff reads well."""
    write_atomically(path, render_data(data))


def render_data(data: dict[str, Any]) -> str:
    """Return the compiled data as JSON text."""
    known = data["names"]["known"]
    rows = ",\n".join(f"{json.dumps(word)}: {json.dumps(said)}" for word, said in known.items())
    rest = {**data, "names": {**data["names"], "known": None}}
    parts = ",\n".join(f"{json.dumps(part)}: {json.dumps(said)}" for part, said in rest.items())
    return "{" + parts.replace('"known": null', '"known": {\n' + rows + "\n}", 1) + "}\n"


def _first_device(name: str) -> str:
    """Return PyTorch's name of a backend's first device."""
    return torch_device_name(f"{name}:0" if name in GPUS else name)


def _known(groups: list[dict[str, Any]]) -> dict[str, list[str | None]]:
    """Return joined name -> [model type, family, subfamily, Auto class]."""
    known: dict[str, list[str | None]] = {}
    for group in groups:
        said = [group.get(key) for key in ("family", "subfamily", "auto_class")]
        for name, model_type in group["names"].items():
            known[joined(str(name))] = [model_type, *said]
    return known


def _exceptions(content: dict[str, Any]) -> dict[str, Any]:
    """Return generic_template {type: why} and left_out {type: {check: why}}."""
    left_out: dict[str, dict[str, str]] = {}
    for entry in content["left_out"]:
        for model_type in entry["types"]:
            checks = left_out.setdefault(model_type, {})
            checks.update(dict.fromkeys(entry["checks"], entry["because"]))
    return {"generic_template": content["generic_template"], "left_out": left_out}
