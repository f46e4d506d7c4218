"""What detection says of a real GPU, beside what PyTorch and nvidia-smi say of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hardware_detection import HardwareDetector
from hardware_detection.parsing import NVIDIA_SMI_FIELDS, parse_nvidia_smi
from hardware_detection.requirements import parse, unmet

pytestmark = pytest.mark.cuda

MIB = 2**20
DETECT = "import json, hardware_detection as h; print(json.dumps(h.detect_available_hardware()))"


def detected(home: Path, **environment: str) -> dict[str, Any]:
    """Detect in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", DETECT],
        env={**os.environ, "RP_HOME": str(home), **environment},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found["details"]["cuda"]


def test_each_gpu_computed_in_the_formats_of_its_generation(report):
    for row in report["details"]["cuda"]["devices"]:
        assert {"fp32", "fp16"} <= set(row["dtypes"]), row
        capability = tuple(map(int, row["compute_capability"].split(".")))
        assert ("bf16" in row["dtypes"]) >= (capability >= (8, 0)), row
        assert ("fp8" in row["dtypes"]) >= (capability >= (8, 9)), row
        assert row["tensor_cores"] is (capability >= (7, 0))


def test_facts_are_those_of_pytorch(report):
    import torch

    rows = report["details"]["cuda"]["devices"]
    assert report["details"]["cuda"]["device_count"] == torch.cuda.device_count() == len(rows)
    for row in rows:
        seen = torch.cuda.get_device_properties(row["index"])
        assert row["name"] == seen.name
        assert row["compute_capability"] == f"{seen.major}.{seen.minor}"
        assert row["memory_total_mb"] == pytest.approx(seen.total_memory / MIB, rel=0.01)
        assert row["uuid"].endswith(str(seen.uuid))
    assert report["torch_device"] == "cuda:0"
    assert report["best_available"] == "cuda"


def test_facts_are_those_of_nvidia_smi(report):
    program = shutil.which("nvidia-smi")
    if program is None:
        pytest.skip("nvidia-smi is not here")
    query = [program, f"--query-gpu={','.join(NVIDIA_SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    told, driver = parse_nvidia_smi(subprocess.check_output(query, text=True))
    assert report["details"]["cuda"]["driver"] == driver
    known = {one.facts["uuid"]: one for one in told}
    for row in report["details"]["cuda"]["devices"]:
        smi = known[row["uuid"]]
        assert row["name"] == smi.name
        assert row["compute_capability"] == smi.facts["compute_capability"]
        # nvidia-smi counts what the driver keeps for itself.
        assert row["memory_total_mb"] == pytest.approx(smi.memory_total_mb, rel=0.03)


def test_a_hidden_gpu_is_not_available_and_the_reason_names_the_variable(tmp_path):
    found = detected(tmp_path, CUDA_VISIBLE_DEVICES="")
    assert found["status"] != "available"
    assert "CUDA_VISIBLE_DEVICES" in found["reason"]


def test_a_gpu_is_found_by_its_uuid(report, tmp_path):
    uuid = report["details"]["cuda"]["devices"][-1]["uuid"]
    found = detected(tmp_path, CUDA_VISIBLE_DEVICES=uuid)
    assert [row["uuid"] for row in found["devices"]] == [uuid]


def test_requirements_are_judged_on_the_real_memory(report):
    total = report["details"]["cuda"]["devices"][0]["memory_total_mb"]
    assert not unmet(parse(f"cuda>=1,vram>={total - 1:.0f}MiB"), report)
    assert unmet(parse("vram>=100TiB"), report)


def test_the_cache_of_one_process_serves_another_and_memory_is_fresh(tmp_path):
    import torch

    pytest.importorskip("pynvml", reason="free memory is told through nvidia-ml-py")
    file = tmp_path / "hw.json"
    first = HardwareDetector(cache_file=file).get_hardware_details()["cuda"]["devices"][0]
    taken = torch.empty(2**30, dtype=torch.uint8, device="cuda:0")
    second = HardwareDetector(cache_file=file).get_hardware_details()["cuda"]["devices"][0]
    assert second["uuid"] == first["uuid"]
    assert first["memory_free_mb"] - second["memory_free_mb"] >= taken.numel() / MIB
