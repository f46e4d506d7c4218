"""The wheel works outside the checkout: templates and model_db travel inside it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from model_family_classifier.data import data_dir

TOP = Path(__file__).parents[1]


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", folder, TOP, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_code_data_and_types_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    packages = {"hardware_detection", "model_family_classifier", "resource_pool", "rp_cli"}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    for folder in ("templates", "model_db"):
        ours = {path.name for path in (TOP / folder).iterdir() if path.is_file()}
        prefix = f"model_family_classifier/_data/{folder}/"
        assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} == ours
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert {
        f"resource_pool/devices/web/{name}" for name in ("page.html", "run.mjs", "watch.mjs")
    } <= set(names)


def test_the_sdist_holds_what_contributing_speaks_of(tmp_path):
    run("-m", "build", "--no-isolation", "--sdist", "--outdir", tmp_path, TOP, cwd=tmp_path)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    scripts = {f".ci/{name}" for name in ("run", "weekly", "versions", "lowest.py")}
    assert {"Makefile", "CONTRIBUTING.md", "tests/conftest.py", *scripts} <= names


def test_an_installed_wheel_classifies_and_generates_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site)
    run(*pip, wheel, cwd=tmp_path)
    (site / "templates").mkdir()  # somebody else's folder, which must not be taken for ours
    script = "import sys; from rp_cli.app import main; sys.argv[0] = 'rp'; main()"
    where = run("-c", "import rp_cli; print(rp_cli.__file__)", cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site)
    out = run("-c", script, "generate", "--model", "gpt2", cwd=tmp_path, PYTHONPATH=str(site))
    assert "skills/test_hf_gpt2.py" in out
    assert (tmp_path / "skills" / "test_hf_gpt2.py").is_file()


def test_in_a_checkout_the_data_of_the_checkout_is_used():
    assert data_dir("templates") == TOP / "templates"
    assert data_dir("model_db") == TOP / "model_db"
