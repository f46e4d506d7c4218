"""The checks by name. Each returns lines; an exception in a check becomes a failed line."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from model_family_classifier.data import data_dir
from rp_cli import __version__
from rp_cli.text import one_line

logger = logging.getLogger("rp")

SCHEMA_VERSION = 1
EXAMPLE_MODEL = "bert-base-uncased"
DEADLINE_SECONDS = 600.0
MODELS_SHOWN = ("bert-base-uncased", "t5-small", "gpt2", "vit-base-patch16-224", "whisper-tiny")

REQUIRED = (
    "torch", "transformers", "typer", "rich", "jinja2", "psutil", "yaml", "filelock",
    "platformdirs", "PIL", "archspec", "ruff",
)  # fmt: skip
DATA = {
    "templates": (
        "hf_audio_template.py.j2",
        "hf_base_template.py.j2",
        "hf_embedding_template.py.j2",
        "hf_generic_template.py.j2",
        "hf_multimodal_template.py.j2",
        "hf_text_generation_template.py.j2",
        "hf_vision_template.py.j2",
        "shared_macros.j2",
        "transformers_js_page.html.j2",
        "transformers_js_test.py.j2",
    ),
    "model_db": (
        "architectures.json",
        "compiled.json",
        "confidence.json",
        "families.yaml",
        "generated_tests.yaml",
        "hardware_matrix.yaml",
        "model_database.schema.json",
        "names.yaml",
        "twins.yaml",
        "web_limits.yaml",
    ),
}
OPTIONAL = {
    "openvino": "OpenVINO is not probed; `pip install openvino` to use it",
    "pynvml": "GPU facts come from torch; `pip install rp-toolchain[nvidia]` for the driver's own",
}
_ADAPTERS = {
    "hardware": "real adapter",
    "software": "software adapter (the CPU, as an emulated GPU)",
    "unknown": "computes, the browser does not tell on what",
}
PARTS = ("hardware_detection", "model_family_classifier", "resource_pool", "rp_cli.codegen")


@dataclass(frozen=True)
class Line:
    """One result. ``status`` is ok, missing (optional, rp adapts) or failed."""

    name: str
    status: str
    detail: str
    remedy: str = ""


def new_record(names: Sequence[str]) -> dict[str, Any]:
    """Return the record of checks that have not begun; they count as interrupted until the end."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "check",
        "started_at": datetime.now(timezone.utc).isoformat(),
        "rp_version": __version__,
        "folder": str(Path.cwd()),
        "checks": list(names),
        "interrupted": True,
        "passed": False,
        "lines": [],
    }


def run_checks(record: dict[str, Any], on_line: Callable[[Line], None]) -> None:
    """Run the checks that ``record`` names, and fill it; each line is handed out as it comes."""
    for name in record["checks"]:
        for line in _lines_of(name):
            record["lines"].append(asdict(line))
            on_line(line)
    record["passed"] = all(line["status"] != "failed" for line in record["lines"])
    record["interrupted"] = False


def verdict(lines: Sequence[Mapping[str, Any]], *, only_files: bool = False) -> str:
    """Say in one sentence what the lines come to; ``only_files``: nothing was run for them."""
    failed = [line["name"] for line in lines if line["status"] == "failed"]
    if failed:
        word = "check" if len(failed) == 1 else "checks"
        return f"{len(failed)} {word} failed: {', '.join(failed)}."
    # "package openvino", "hardware openvino" and "openvino" are one thing to whoever lacks it.
    missing = dict.fromkeys(
        line["name"].split()[-1] for line in lines if line["status"] == "missing"
    )
    lacking = f"; optional and missing: {', '.join(missing)}" if missing else ""
    return f"All required {'files are there' if only_files else 'parts work'}{lacking}."


def _lines_of(name: str) -> Iterator[Line]:
    try:
        yield from CHECKS[name]()
    except Exception as error:
        logger.debug("check %s failed", name, exc_info=True)
        detail = one_line(f"{type(error).__name__}: {error}")
        yield Line(name, "failed", detail, f"run `rp check --test {name} --debug` for the trace")


def check_files() -> Iterator[Line]:
    """Are the parts, the data and the packages there? Nothing of them is run."""
    for part in PARTS:
        found = importlib.util.find_spec(part)
        yield _present(part, found is not None, "install rp again: pip install rp-toolchain")
    for folder, names in DATA.items():
        for name in names:
            there = (data_dir(folder) / name).is_file()
            yield _present(f"{folder} {name}", there, "install rp again: pip install rp-toolchain")
    for package in REQUIRED:
        there = importlib.util.find_spec(package) is not None
        yield _present(f"package {package}", there, f"pip install {package}")
    for package, remedy in OPTIONAL.items():
        there = importlib.util.find_spec(package) is not None
        status = ("ok", "installed", "") if there else ("missing", "optional", remedy)
        yield Line(f"package {package}", *status)


def check_hardware() -> Iterator[Line]:
    """What does the detector prove here?"""
    from hardware_detection import detect_hardware_with_comprehensive_checks

    report = detect_hardware_with_comprehensive_checks()
    for name, details in report["details"].items():
        if details.get("asked") is False:
            continue  # nothing is known of it here: the check "web" asks the browsers
        here = report["hardware"][name]
        broken = details["status"] in ("unusable", "error")
        status = "ok" if here else "missing"
        remedy = "see `rp detect --debug`" if broken else ""
        yield Line(f"hardware {name}", status, details["reason"] or details["status"], remedy)
    if not report["hardware"]["cpu"]:
        yield Line("hardware", "failed", "not even the CPU works", "see `rp detect --debug`")


def check_classification() -> Iterator[Line]:
    """Does the classifier know well-known models?"""
    from model_family_classifier import classify_model

    expected = ("embedding", "text_generation", "text_generation", "vision", "audio")
    for model, family in zip(MODELS_SHOWN, expected, strict=True):
        found = classify_model(model)["family"]
        status = "ok" if found == family else "failed"
        remedy = "" if status == "ok" else f"expected {family}; is model_db/ complete?"
        yield Line(f"classify {model}", status, found, remedy)


def check_pool() -> Iterator[Line]:
    """Does the pool load a model once and put it where it says?"""
    import transformers

    from resource_pool import ResourcePool
    from resource_pool.weights import locate_weights

    weights = locate_weights(EXAMPLE_MODEL, auto_class="AutoModel", mode="tiny")
    pool = ResourcePool()

    def load() -> Any:
        return transformers.AutoModel.from_pretrained(weights.path)

    first = pool.get_model("embedding", EXAMPLE_MODEL, constructor=load)
    again = pool.get_model("bert", EXAMPLE_MODEL, constructor=load)
    (key, facts), *others = pool.get_stats()["models"].items()
    once = first is again and not others
    yield Line(
        "pool",
        "ok" if once else "failed",
        f"{key}: {facts['weights']} weights, {facts['dtype']} on {facts['device']}, "
        + ("loaded once" if once else "loaded twice"),
        "" if once else "please report this as a bug",
    )


def check_generation() -> Iterator[Line]:
    """Is a test generated, and does it pass when it is run?"""
    from model_family_classifier import classify_model
    from rp_cli.codegen.plan import make_plan
    from rp_cli.codegen.write import write_tests
    from rp_cli.runner.run import run_one

    with tempfile.TemporaryDirectory(prefix="rp_check_") as folder:
        (path,) = write_tests([make_plan(classify_model(EXAMPLE_MODEL))], Path(folder))
        yield Line("generate", "ok", path.name)
        quiet = os.open(os.devnull, os.O_WRONLY)
        try:
            result = run_one(path, DEADLINE_SECONDS, {"RP_WEIGHTS": "tiny"}, quiet, quiet)
        finally:
            os.close(quiet)
    done = sum(test["status"] == "passed" for test in result["tests"])
    status = "ok" if result["status"] == "passed" else "failed"
    detail = f"{result['status']}, {done} of {len(result['tests'])} tests passed, tiny weights"
    remedy = "" if status == "ok" else f"generate and run {EXAMPLE_MODEL} to see the failure"
    yield Line("run the generated test", status, detail, remedy)


def check_backend(*names: str, web: bool = False) -> Callable[[], Iterator[Line]]:
    """Return a check of what the detector says about these backends; they are optional.

    With ``web``, the installed browsers are started for it.
    """

    def check() -> Iterator[Line]:
        from hardware_detection import detect_available_hardware

        report = detect_available_hardware(web=web)
        for name in names:
            details = report["details"][name]
            status = "ok" if report["hardware"][name] else "missing"
            yield Line(name, status, f"{_found(details)}: {details['reason']}")

    return check


def _found(details: Mapping[str, Any]) -> str:
    """Say in a few words what is behind a backend: what it really computes on, or nothing."""
    if details["status"] != "available":
        # A declared simulation is told apart from nothing, and is no more available than that.
        return "simulated, not hardware" if details.get("simulated") else str(details["status"])
    if "adapter" in details:
        return _ADAPTERS[details["adapter"]]
    return "computes on " + ", ".join(
        f"{row['openvino_device']} ({row['name']})" if "openvino_device" in row else row["name"]
        for row in details["devices"]
        if row["dtypes"]
    )


def _present(name: str, there: bool, remedy: str) -> Line:
    return Line(name, "ok", "present") if there else Line(name, "failed", "missing", remedy)


CHECKS: dict[str, Callable[[], Iterator[Line]]] = {
    "files": check_files,
    "hardware": check_hardware,
    "classification": check_classification,
    "pool": check_pool,
    "generation": check_generation,
    "web": check_backend("webnn", "webgpu", web=True),
    "openvino": check_backend("openvino"),
}
