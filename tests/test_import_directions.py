"""Imports go one way, and no package pays for a heavy library when it is imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]

# Which of our packages a package may import.
ALLOWED = {
    "hardware_detection": set(),
    "model_family_classifier": set(),
    "resource_pool": {"hardware_detection", "model_family_classifier"},
    "rp_cli": {"hardware_detection", "model_family_classifier", "resource_pool"},
}
OURS = set(ALLOWED)


def imports(file: Path, *, everywhere: bool) -> Iterator[str]:
    """Yield the packages that a file imports: at module scope only, or in functions too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else module_scope(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def module_scope(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run on import: not function bodies, not `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from module_scope(node)


def files(package: str) -> list[Path]:
    return sorted((TOP / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_those_below_it(package):
    for file in files(package):
        found = set(imports(file, everywhere=True)) & OURS - {package}
        assert found <= ALLOWED[package], f"{file} imports {found - ALLOWED[package]}"


@pytest.mark.parametrize(
    "package", ["hardware_detection", "model_family_classifier", "resource_pool"]
)
def test_a_library_imports_no_third_party_package_at_module_scope(package):
    workers = {"proofs"}  # modules that run in a process of their own
    for file in files(package):
        if workers & set(file.parts):
            continue
        found = set(imports(file, everywhere=False)) - set(sys.stdlib_module_names) - OURS
        assert not found, f"{file} imports {found} when it is imported"


def test_workrooms_know_no_typer():
    for folder in ("codegen", "runner", "reporting", "checking", "modeldb"):
        for file in files(f"rp_cli/{folder}"):
            assert "typer" not in set(imports(file, everywhere=True)), file


def test_a_generated_test_imports_unittest_and_the_public_packages_only():
    allowed = {"resource_pool", *sys.stdlib_module_names}
    for file in sorted((TOP / "tests" / "golden").glob("*.py")):
        assert set(imports(file, everywhere=False)) <= allowed, file


def test_no_package_reads_pickles_or_trusts_remote_code():
    for package in ALLOWED:
        for file in files(package):
            text = file.read_text(encoding="utf-8")
            assert "trust_remote_code=True" not in text, file
            assert not {"pickle", "marshal", "shelve"} & set(imports(file, everywhere=True)), file
