"""What stands in a generated file: code of ours, and values that are inert whatever they hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_models import TEMPLATE_OF

from model_family_classifier import classify_model
from rp_cli.codegen.plan import STYLES, TestPlan, make_plan
from rp_cli.codegen.render import _source, render, render_all
from rp_cli.errors import BadInputError

KNOWN = classify_model("nobody/knows-this")
# The first and the last are also written for pytest here.
MODELS = tuple(TEMPLATE_OF)
# Text that ends a string, a docstring, a comment or a line, and anything else.
ESCAPES = ('"' * 3, "'" * 3, '"', "'", "\\", "\\N{", "\n", "\r", "{{ 1 }}", "#", "; x()")
HOSTILE = st.lists(st.one_of(st.sampled_from(ESCAPES), st.text()), min_size=1).map("".join)
# What a model database, and so anybody, can put into a plan, on top of a classification.
FIELDS = ("model_name", "model_type", "family", "subfamily", "auto_class", "hardware_priority")


def shape(source: str) -> str:
    """A module without its names of the model and the values of its constants: its code."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.Constant(str() | None):  # a model type is a text, or none
                node.value = ""
            case ast.ClassDef():
                node.name = "Test"
            case ast.Name(name) if name.startswith("Test"):
                node.id = "Test"
    return ast.dump(tree)


@settings(max_examples=60)
@given(st.sampled_from(FIELDS), HOSTILE)
def test_no_name_becomes_code(field, text):
    value = [text] if field == "hardware_priority" else text
    try:
        plan = make_plan({**KNOWN, field: value})
    except BadInputError:
        assert field not in ("model_name", "model_type")
        return
    source = _source(plan, None)
    plain = {**KNOWN, "hardware_priority": ["cpu"]} if field == "hardware_priority" else KNOWN
    assert shape(source) == shape(_source(make_plan(plain), None))
    if field == "model_name":
        assert f"MODEL_NAME = {text!r}\n" in source


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("auto_class", "AutoModel()\nimport os"),
        ("auto_class", "AutoModel\n"),
        ("auto_class", "eval"),
        ("family", "x" + '"' * 3 + "\nimport os"),
        ("family", ""),
        ("subfamily", "a b"),
        ("subfamily", "x" * 101),
        ("hardware_priority", ["cpu", "cuda\n"]),
    ],
)
def test_what_is_no_plain_name_is_refused(field, value):
    with pytest.raises(BadInputError, match="no plain name"):
        make_plan({**KNOWN, field: value})


LONG = st.builds(lambda text, size: (text * size)[:size], HOSTILE, st.sampled_from([9, 10_000]))
LOOKALIKES = st.sampled_from(
    ["gpt\u2010\u0662", "\uff42ert", "../../etc/passwd", "\u202egpt2", "\ud800"]
)


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=40)
@given(name=st.one_of(LONG, LOOKALIKES))
def test_whatever_the_name_the_file_parses_and_holds_it_as_a_literal(style, name):
    source = _source(make_plan({**KNOWN, "model_name": name}, style=style), None)
    (value,) = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "MODEL_NAME"
    ]
    assert ast.literal_eval(value) == name


@settings(max_examples=20)
@given(name=HOSTILE)
def test_nothing_runs_at_import_but_definitions(name):
    source = _source(make_plan({**KNOWN, "model_name": name}), None)
    for node in ast.parse(source).body[1:]:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef() | ast.If():
                continue
            case ast.Assign(value=value):
                ast.literal_eval(value)
            case _:
                pytest.fail(f"{ast.unparse(node)[:80]} runs at import")


def test_jinja_syntax_in_a_name_is_text():
    name = "{{ 7 * 7 }}{% raw %}{# x #}"
    source = render(make_plan({**KNOWN, "model_name": name}))
    assert f'MODEL_NAME = "{name}"\n' in source


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with a file of each template in each style."""
    folder = tmp_path_factory.mktemp("generated")
    for style in STYLES:
        plans = [make_plan(classify_model(model), style=style) for model in MODELS]
        (folder / style).mkdir()
        for plan, source in zip(plans, render_all(plans), strict=True):
            (folder / style / plan.file_name).write_text(source, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "command",
    [["format", "--check"], ["check", "--select=A,B,C4,D1,E4,E7,E9,F,I,N,PIE,RET,SIM,UP"]],
)
def test_ruff_has_nothing_to_say(written, command):
    options = ["--isolated", "--no-cache", "--line-length=100"]
    ruff = [sys.executable, "-m", "ruff", *command, *options, str(written)]
    done = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("style", STYLES)
def test_the_files_are_typed(written, style):
    files = sorted(map(str, (written / style).iterdir()))
    settings_file = Path(__file__).parents[2] / "pyproject.toml"
    options = [f"--config-file={settings_file}", f"--cache-dir={written}/cache"]
    mypy = [sys.executable, "-m", "mypy", *options, *files]
    done = subprocess.run(mypy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_in_the_style_of_pytest_no_unittest_is_left(written):
    for file in (written / "pytest").iterdir():
        source = file.read_text()
        assert "unittest" not in source
        assert "self.assertEqual" not in source
        assert "return pytest's exit code" in source  # and not "else 1": it has others
        assert "    assert " in source


def test_no_file_is_longer_than_a_person_reads(written):
    for file in written.glob("*/*.py"):
        assert len(file.read_text().splitlines()) <= 223, file


def test_the_same_plan_gives_the_same_bytes_alone_and_among_others():
    plans = [make_plan(classify_model(model)) for model in MODELS[:3]]
    assert render_all(plans) == [render(plan) for plan in plans]


def plan_of(model: str, **options) -> TestPlan:
    return make_plan(classify_model(model), **options)


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({}, "rp generate --model gpt2"),
        ({"device": "cuda:1"}, "rp generate --model gpt2 --device cuda:1"),
        ({"timeout_minutes": 60.0}, "rp generate --model gpt2 --timeout 60"),
        ({"timeout_minutes": 1234567.0}, "rp generate --model gpt2 --timeout 1234567"),
        ({"style": "pytest"}, "rp generate --model gpt2 --style pytest"),
        ({"use_model_family": False}, "rp generate --model gpt2 --no-use-model-family"),
        ({"options": ("--model-db", "my db")}, "rp generate --model gpt2 --model-db 'my db'"),
    ],
)
def test_the_header_says_which_command_made_the_file(options, command):
    assert f"\nMade by: {command}\n" in render(plan_of("gpt2", **options))


def test_a_forced_device_leaves_no_test_of_other_hardware():
    free, forced = render(plan_of("gpt2")), render(plan_of("gpt2", device="cuda"))
    assert '@measuring.also_on("cuda", "rocm", "xpu", "mps", "webnn", "webgpu")' in free
    assert "also_on" not in forced
    assert "elsewhere" not in forced
