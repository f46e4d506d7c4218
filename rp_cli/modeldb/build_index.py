"""Writes model_db/architectures.json from the installed transformers.

Run ``rp models index`` after an update of transformers, or of the rules in families.yaml. The
same transformers gives the same bytes.

The index is JSON where everything else in model_db is YAML: PyYAML takes over 100 ms to read
it, json 1-2 ms, and every classification reads it. Tasks are not repeated per model type: they
follow from the keys of ``architectures`` through ``auto_classes``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hardware_detection.files import write_atomically
from model_family_classifier.data import data_dir
from rp_cli.modeldb.rules import Facts, Head, decide

SCHEMA_VERSION = 2
_TABLES = ("auto_classes", "classes", "tasks", "model_types")
_NO_TASK = {"family": None, "subfamily": None, "auto_class": None, "hint": False}
# Different projects' words for the number of experts in a layer.
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class Rules(NamedTuple):
    """What families.yaml says."""

    heads: list[Head]
    exceptions: dict[str, dict[str, str]]
    classes: dict[str, dict[str, str]]
    tasks: dict[str, dict[str, Any]]


def build_index() -> dict[str, Any]:
    """Return the index: schema_version, transformers, auto_classes, classes, tasks, model_types."""
    import transformers

    # Building every default config warns about settings that play no part here.
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        return _build(transformers.__version__)
    finally:
        transformers.logging.set_verbosity(verbosity)


def _build(version: str) -> dict[str, Any]:
    rules = read_rules()
    tables = auto_tables()
    model_types = {}
    for facts in sorted(gather_facts(tables), key=lambda one: one.model_type):
        model_types[facts.model_type] = _entry(facts, rules)
    return {
        "schema_version": SCHEMA_VERSION,
        "transformers": version,
        "auto_classes": {
            head.auto_class: {
                "task": head.task,
                "family": head.family,
                "subfamily": head.subfamily,
                "loads": head.loads,
            }
            for head in rules.heads
        },
        "classes": rules.classes,
        "tasks": rules.tasks,
        "model_types": model_types,
    }


def read_rules() -> Rules:
    """Return what families.yaml says."""
    import yaml

    text = (data_dir("model_db") / "families.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return Rules(
        heads=[Head(**row) for row in content["heads"]],
        exceptions=content["exceptions"],
        classes=content["classes"],
        tasks={name: {**_NO_TASK, **row} for name, row in content["tasks"].items()},
    )


def auto_tables() -> dict[str, Mapping[str, Any]]:
    """Return {Auto class: {model type: class name or names}} of the installed transformers."""
    from transformers.models.auto import modeling_auto

    found = {}
    for name in sorted(dir(modeling_auto)):
        mapping = getattr(getattr(modeling_auto, name), "_model_mapping", None)
        # The lazy mappings answer, too, and would repeat each Auto class's table.
        if mapping is not None and name.startswith("Auto"):
            found[name] = mapping._model_mapping
    return found


def gather_facts(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[Facts]:
    """Yield the facts about each model type; imports every model class, which takes seconds."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    for model_type, config in CONFIG_MAPPING_NAMES.items():
        architectures = {
            auto: _names(table[model_type]) for auto, table in tables.items() if model_type in table
        }
        config_class = getattr(transformers, config, None)
        model_class = _model_class(architectures)
        yield Facts(
            model_type=model_type,
            config=config,
            architectures=architectures,
            main_input=getattr(model_class, "main_input_name", None),
            modalities=_modalities(model_class),
            sub_configs=frozenset(getattr(config_class, "sub_configs", None) or ()),
            experts=_experts(config_class),
        )


def write_index(index: Mapping[str, Any], path: Path) -> None:
    """Write the index with one model type per line, so that a diff reads well."""
    write_atomically(path, render(index))


def render(index: Mapping[str, Any]) -> str:
    """Return the index as JSON text with one entry per line."""
    parts = [f'"{key}": {json.dumps(index[key])}' for key in ("schema_version", "transformers")]
    parts += [f'"{key}": {_lines(index[key])}' for key in _TABLES]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(entries: Mapping[str, Any]) -> str:
    rows = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
    return "{\n" + ",\n".join(rows) + "\n}"


def _entry(facts: Facts, rules: Rules) -> dict[str, Any]:
    return {
        "config": facts.config,
        **decide(facts, rules.heads, rules.exceptions)._asdict(),
        "main_input": facts.main_input,
        "architectures": facts.architectures,
    }


def _names(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _model_class(architectures: Mapping[str, Sequence[str]]) -> Any:
    """Return the base model's class, else any; None where none can be imported here."""
    import transformers

    names = [*architectures.get("AutoModel", ()), *(n for ns in architectures.values() for n in ns)]
    for name in names:
        model_class = getattr(transformers, name, None)
        # A class whose optional package is missing is a placeholder that raises on any access.
        if isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel):
            return model_class
    return None


def _modalities(model_class: Any) -> frozenset[str]:
    # A class of its own states a tuple or list; the inherited default is the string "text".
    stated = getattr(model_class, "input_modalities", None)
    return frozenset() if stated is None or isinstance(stated, str) else frozenset(stated)


def _experts(config_class: Any) -> int:
    if config_class is None:
        return 0
    try:
        settings = config_class().to_dict()
    except Exception:
        # Composite configs cannot be built without their parts; none of them is a causal LM.
        return 0
    counts = (settings.get(key) for key in _EXPERT_COUNTS)
    return max((count for count in counts if isinstance(count, int)), default=0)
