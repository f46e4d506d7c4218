"""Checks that an architecture breaks by design are declared as data, and their tests left out."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import pytest

from model_family_classifier import classify_model
from model_family_classifier.data import compiled_data, data_dir, template_of
from rp_cli.codegen.exceptions import leave_out
from rp_cli.codegen.plan import GENERIC_TEMPLATE, STYLES, make_plan
from rp_cli.codegen.render import is_unedited, render, render_all
from rp_cli.codegen.told import warning
from rp_cli.coverage.generated import plan_of
from rp_cli.coverage.sweep import known_types

DECLARED = compiled_data()["generated_tests"]
PLAN = make_plan(classify_model("nobody/knows-this"))
CHECK, OTHER = "test_output_is_finite", "test_no_input_is_ignored"


def checks_in(source: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return {node.name for node in nodes if node.name.startswith("test_")}


@pytest.mark.parametrize("style", STYLES)
def test_a_check_is_left_out_alone_and_the_header_says_why(style: str) -> None:
    plan = replace(PLAN, style=style)
    whole = render(plan)
    text = render(replace(plan, left_out={CHECK: "it divides by zero", "test_of_others": "no"}))

    assert checks_in(whole) - checks_in(text) == {CHECK}
    header = ast.get_docstring(ast.parse(text))
    assert f"Left out, because it divides by zero: {CHECK}." in header
    assert "test_of_others" not in text
    assert is_unedited(text)


def test_two_checks_of_one_reason_are_told_together() -> None:
    text = render(replace(PLAN, left_out={CHECK: "it rains", OTHER: "it rains"}))
    header = " ".join(ast.get_docstring(ast.parse(text)).split())
    assert f"Left out, because it rains: {CHECK}, {OTHER}." in header


def test_decorators_go_with_their_test() -> None:
    methods = "    @skip\n    def test_a(self):\n        x\n\n    def test_b(self):\n        y\n"
    source = f'"""Doc.\n\nDigest: 0;\n"""\n\n\nclass A:\n{methods}'
    assert "@skip" not in leave_out(source, {"test_a": "no"})
    assert "def test_b" in leave_out(source, {"test_a": "no"})


def test_nothing_is_declared_of_an_ordinary_type() -> None:
    assert not plan_of("bert").left_out
    assert plan_of("bert").template == "hf_embedding_template.py"


def test_every_declared_check_and_type_exists_and_every_reason_is_a_sentence() -> None:
    texts = [file.read_text() for file in data_dir("templates").glob("*.j2")]
    checks = {name for text in texts for name in re.findall(r"def (test_\w+)", text)}
    types = known_types()
    for model_type, left_out in DECLARED["left_out"].items():
        assert model_type in types
        assert left_out.keys() <= checks, model_type
        assert all(re.fullmatch(r"[a-z][^\n]{10,90}[^.]", why) for why in left_out.values())
    for model_type in DECLARED["generic_template"]:
        assert model_type in types


@pytest.mark.parametrize("model_type", sorted(DECLARED["generic_template"]))
def test_the_declared_reason_for_the_generic_template_is_told(model_type: str) -> None:
    plan = plan_of(model_type)
    reason = f"({model_type}: {DECLARED['generic_template'][model_type]})."
    assert plan.template == GENERIC_TEMPLATE
    assert warning(plan, template_of(plan.family), plan.auto_class).endswith(reason)


def test_every_declared_check_is_in_the_test_of_its_type() -> None:
    """What a type's template does not check needs no exception."""
    declared = DECLARED["left_out"]
    sources = render_all([replace(plan_of(model_type), left_out={}) for model_type in declared])
    for (model_type, left_out), source in zip(declared.items(), sources, strict=True):
        assert left_out.keys() <= checks_in(source), model_type
