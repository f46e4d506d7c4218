"""``rp generate --template-dir``: templates of the user's, and what is wrong with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rp_cli.codegen.plan import STYLES
from rp_cli.errors import ExitCode

FILE = "test_hf_gpt2.py"


def with_templates(rp, tmp_path, model: str = "gpt2", *, style: str = "unittest", **templates: str):
    folder = tmp_path / "templates"
    folder.mkdir()
    for name, text in templates.items():
        (folder / f"hf_{name}_template.py.j2").write_text(text, "utf-8", "surrogateescape")
    arguments = (
        "--style",
        style,
        "--template-dir",
        folder,
        "--output-dir",
        tmp_path / "out",
        "--json",
    )
    return rp("generate", "--model", model, *arguments)


def test_a_block_of_a_template_is_overridden(rp, tmp_path):
    override = (
        '{% extends "rp/hf_text_generation_template.py.j2" %}\n'
        "{% block constants %}{{ super() }}OWN = {{ plan.family | py }}\n{% endblock %}\n"
    )
    done = with_templates(rp, tmp_path, text_generation=override)
    assert done.code == 0, done.err
    source = (tmp_path / "out" / FILE).read_text()
    assert 'NEW_TOKENS = 5\nOWN = "text_generation"\n' in source
    assert "--template-dir" in source


def test_the_base_is_overridden_for_every_family(rp, tmp_path):
    override = (
        '{% extends "rp/hf_base_template.py.j2" %}\n'
        "{% block tests %}\n    OWN = 1\n{% endblock %}\n"
    )
    done = with_templates(rp, tmp_path, base=override)
    assert done.code == 0, done.err
    assert "    NEW_TOKENS" not in (tmp_path / "out" / FILE).read_text()


def test_a_template_for_a_family_that_rp_has_none_for(rp, tmp_path):
    done = with_templates(
        rp, tmp_path, "MCG-NJU/videomae-base", video="NAME = {{ plan.model_name | py }}\n"
    )
    assert json.loads(done.out)[0]["template"] == "hf_video_template.py"
    source = (tmp_path / "out" / "test_hf_mcg_nju_videomae_base.py").read_text()
    assert source == 'NAME = "MCG-NJU/videomae-base"\n'


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ plan.nonsense }}", "plan has no 'nonsense'; it has auto_class, class_name"),
        ("{{ plan.model_nam | py }}", "did you mean 'model_name'?"),
        ("{{ plan.model_nam | json }}", "did you mean 'model_name'?"),
        ("{{ shared.exampl_inputs() }}", "did you mean 'example_inputs'?"),
        ("{{ nonsense }}", "'nonsense' is undefined; every template has plan and shared"),
        ("\n{% if %}", "line 2"),
        ('{% extends "absent.j2" %}', "absent.j2"),
        (
            '{% extends "rp/hf_embeding_template.py.j2" %}',
            "no template 'rp/hf_embeding_template.py.j2' (did you mean 'rp/hf_embedding_",
        ),
        ("not python (", "was never closed, in the line 'not python ('."),
        ("def f(self):\nX = 1", "in the line 'X = 1'."),
        ("X = 'a", "unterminated string literal, in the line"),
        ("{{ plan.model_name + 1 }}", "str"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("\n\n{{ [1].index(3) }}", "hf_text_generation_template.py.j2, line 3 is wrong"),
        ("\n{{ plan.family.absent.more }}", "line 2"),
        ('{% extends "hf_text_generation_template.py.j2" %}', 'extends "rp/'),
        ('{% include "hf_text_generation_template.py.j2" %}', "without end"),
        ("\udcff", "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("style", STYLES)
def test_a_wrong_template_is_one_sentence_and_no_file(rp, tmp_path, style, template, words):
    done = with_templates(rp, tmp_path, style=style, text_generation=template)
    assert "Traceback" not in done.err
    assert done.code == ExitCode.BAD_INPUT
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_pytest_has_no_form_for_is_refused_and_not_written(rp, tmp_path):
    template = "class Test:\n    def test(self):\n        self.assertRaises(ValueError, int, '')\n"
    done = with_templates(rp, tmp_path, style="pytest", text_generation=template)
    assert done.code == ExitCode.BAD_INPUT
    assert "self.assertRaises(ValueError, int, '')" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["text_generaton", "text-generation", "embeding"])
def test_a_template_under_nearly_the_name_of_another_is_told(rp, tmp_path, name):
    done = with_templates(rp, tmp_path, **{name: "X = 1\n"})
    assert done.code == ExitCode.BAD_INPUT
    assert f"hf_{name}_template.py.j2" in done.err
    assert "rename it" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", [".py", ".j2", ".jinja", ".py.jinja2"])
def test_a_template_whose_name_ends_otherwise_is_told(rp, tmp_path, ending):
    (tmp_path / f"hf_embedding_template{ending}").write_text("X = 1\n")
    out = tmp_path / "out"
    done = rp("generate", "--model", "gpt2", "--template-dir", tmp_path, "--output-dir", out)
    assert done.code == ExitCode.BAD_INPUT
    assert "must end as hf_embedding_template.py.j2" in done.err
    assert len(done.err.splitlines()) == 1
    assert not out.exists()


def test_copies_beside_a_template_are_no_slips(rp, tmp_path):
    for ending in (".py.j2", ".jinja", ".py.j2.orig"):
        (tmp_path / f"hf_text_generation_template{ending}").write_text("X = 1\n")
    out = tmp_path / "out"
    done = rp("generate", "--model", "gpt2", "--template-dir", tmp_path, "--output-dir", out)
    assert done.code == 0


def test_templates_of_other_families_and_parts_of_templates_are_no_slips(rp, tmp_path):
    parts = {
        "video": "X = 1\n",  # is asked for by other models
        "text_generation": '{% include "hf_text_generations_template.py.j2" %}',
        "text_generations": "X = 1\n",
    }
    assert with_templates(rp, tmp_path, **parts).code == 0


def test_a_template_folder_that_is_not_there(rp, tmp_path):
    done = rp("generate", "--model", "gpt2", "--template-dir", tmp_path / "absent")
    assert done.code == ExitCode.BAD_INPUT
    assert "is no folder" in done.err


def test_an_empty_template_folder_is_told(rp, tmp_path):
    done = with_templates(rp, tmp_path)
    assert done.code == ExitCode.BAD_INPUT
    assert "has no template" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_template_of_the_users_for_a_family_without_one_is_taken_without_a_notice(rp, tmp_path):
    model = "google/timesfm-2.0-500m-pytorch"
    done = with_templates(rp, tmp_path, model, time_series="X = 1\n")
    assert json.loads(done.out)[0]["template"] == "hf_time_series_template.py"
    assert done.err == ""


# Blocks ------------------------------------------------------------------------------------------

GENERIC = '{% extends "rp/hf_generic_template.py.j2" %}\n'
A_TEST = "\n    def test_it(self) -> None:\n        pass\n"


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ("{% block test %}X{% endblock %}", "line 2 is wrong: what it extends has no block 'test'"),
        ("{% block test %}X{% endblock %}", "did you mean 'tests'?"),
        ("\n\n{% block zzz %}X{% endblock %}", "line 4"),
        ("{% block zzz %}X{% endblock %}", "there is constants, inputs, processor, tests."),
        ("{% if plan.device %}{% block input %}X{% endblock %}{% endif %}", "'inputs'"),
    ],
)
def test_a_misspelt_block_is_told(rp, tmp_path, blocks, words):
    done = with_templates(rp, tmp_path, text_generation=GENERIC + blocks)
    assert done.code == ExitCode.BAD_INPUT
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "template",
    [
        GENERIC + "{% block tests %}{% block own %}" + A_TEST + "{% endblock %}{% endblock %}",
        "{% block anything %}X = 1\n{% endblock %}",
        GENERIC + "{% block own %}" + A_TEST + "{% endblock %}"
        "{% block tests %}{{ self.own() }}{% endblock %}",
        '{% extends "rp/" ~ "hf_generic_template.py.j2" %}{% block tests %}{% endblock %}',
    ],
    ids=["inside another", "extends nothing", "called", "computed"],
)  # fmt: skip
def test_blocks_that_somebody_asks_for_are_no_slips(rp, tmp_path, template):
    done = with_templates(rp, tmp_path, text_generation=template)
    assert done.code == 0, done.err


def test_a_block_of_a_template_between_is_known(rp, tmp_path):
    between = GENERIC + "{% block tests %}{% block own %}{% endblock %}{% endblock %}"
    own = '{% extends "hf_middle_template.py.j2" %}{% block own %}' + A_TEST + "{% endblock %}"
    done = with_templates(rp, tmp_path, middle=between, text_generation=own)
    assert done.code == 0, done.err
    assert "test_it" in (tmp_path / "out" / FILE).read_text()


def test_the_shared_macros_need_no_import(rp, tmp_path):
    own = GENERIC + "{% block inputs %}{{ shared.example_inputs() }}{% endblock %}"
    done = with_templates(rp, tmp_path, text_generation=own)
    assert done.code == 0, done.err
    assert "def make_inputs" in (tmp_path / "out" / FILE).read_text()


def test_the_page_lists_the_shared_macros():
    top = Path(__file__).parents[2]
    macros = re.findall(r"{% macro (.*?) %}", (top / "templates" / "shared_macros.j2").read_text())
    page = (top / "docs" / "generation.md").read_text(encoding="utf-8")
    assert macros
    for macro in macros:
        assert f"`{macro}`" in page


# Values that would become code --------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "X = {{ plan.model_name }}",
        "X = '{{ plan.family | upper }}'",
        "X = {{ 'a' ~ plan.model_name }}",
        "X = {{ 'a' + plan.model_name }}",
        "X = {{ plan.model_name.upper() }}",
        "X = {{ plan.model_name[1:] }}",
        "X = {{ '%s' | format(plan.model_name) }}",
        "X = {{ '{}'.format(plan.model_name) }}",
        "X = {{ ', '.join(plan.priority) }}",
        "X = {{ plan.priority | join(', ') }}",
        "X = {{ plan.preferences }}",
        "X = {{ plan.model_name | safe }}",
        "{% set name = plan.model_name %}X = {{ name }}",
        "{% for one in plan.priority %}{{ one }} = 1\n{% endfor %}",
        "{% macro made(name) %}X = {{ name }}{% endmacro %}{{ made(plan.model_name) }}",
    ],
)
def test_a_value_that_passes_no_filter_is_told(rp, tmp_path, template):
    done = with_templates(rp, tmp_path, text_generation="\n" + template)
    assert done.code == ExitCode.BAD_INPUT
    assert "passes none of the filters py, doc and json" in done.err
    assert "hf_text_generation_template.py.j2, line 2" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("X = {{ plan.model_name | py }}", 'X = "gpt2"'),
        ("X = {{ plan.model_name | json }}", 'X = "gpt2"'),
        ("X = '{{ plan.model_name | upper | doc }}'", 'X = "GPT2"'),
        ("X = {{ plan.priority | map('py') | join(', ') }}", "X = "),
        ("X = {{ plan.class_name }}, {{ plan.auto_class }}", "X = TestGpt2, AutoModelForCausalLM"),
        ("X = {{ 1 + 1 }}, {{ plan.timeout_minutes }}, {{ none }}", "X = 2, 0.1, None"),
        ("X = {{ 'a' if plan.device else 'b' ~ 'c' | upper }}", "X = bC"),
        ("X = {{ ('a' ~ 1) | py }}", 'X = "a1"'),
        ("X = {{ '{}{}'.format('a', 1) }}", "X = a1"),
        ("{% for one in ['A', 'B'] %}{{ one }} = {{ loop.index }}\n{% endfor %}", "B = 2"),
        ("{% for one in 'A B'.split() %}{{ one }} = 1\n{% endfor %}", "B = 1"),
        ("{% set made %}X = {{ plan.family | py }}{% endset %}{{ made }}", "text_generation"),
        ("{% macro made(n) %}X = {{ n }}{% endmacro %}{{ made('one') | indent(4) }}", "X = one"),
        ("{% filter upper %}x = {{ plan.family | py }}{% endfilter %}", 'X = "TEXT_GENERATION"'),
    ],
)
def test_what_passes_a_filter_or_is_the_templates_own_is_written(rp, tmp_path, template, written):
    done = with_templates(rp, tmp_path, text_generation=template + "\n")
    assert done.code == 0, done.err
    assert written in (tmp_path / "out" / FILE).read_text()
