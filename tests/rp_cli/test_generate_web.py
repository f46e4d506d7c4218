"""``rp generate --target transformers-js``: what is written, whatever a model is called."""

from __future__ import annotations

import ast
import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_schemas import assert_fits

from rp_cli.codegen.plan import make_plan
from rp_cli.codegen.render import is_unedited
from rp_cli.codegen.sandbox import json_in_script
from rp_cli.codegen.transformers_js import draft_web_tests, web_plan

WEB = ("generate", "--target", "transformers-js")


class Page(HTMLParser):
    """The scripts of a page as a browser sees them: attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def test_a_page_and_its_test_are_written_and_again_left_unchanged(rp, tmp_path):
    folder = tmp_path / "web_skills"
    done = rp(*WEB, "--model", "bert-base-uncased", "--output-dir", str(folder))
    assert done.code == 0
    assert "Device:    webgpu" in done.out
    assert sorted(file.name for file in folder.iterdir()) == [
        "test_tjs_bert_base_uncased.py",
        "tjs_bert_base_uncased.html",
    ]
    page = (folder / "tjs_bert_base_uncased.html").read_text()
    asked = json.loads(Page(page).scripts[1][1])
    assert (asked["task"], asked["device"]) == ("feature-extraction", "webgpu")
    assert "http" not in page  # nothing from a CDN
    assert all(is_unedited(file.read_text()) for file in folder.iterdir())
    again = rp(*WEB, "--model", "bert-base-uncased", "--output-dir", str(folder))
    assert again.out.startswith("Unchanged:")


@pytest.mark.parametrize("name", ["test_tjs_bert_base_uncased.py", "tjs_bert_base_uncased.html"])
def test_neither_an_edited_file_nor_a_strangers_is_written_over(rp, tmp_path, name):
    file = tmp_path / name
    file.write_text("mine")
    done = rp(*WEB, "--model", "bert-base-uncased", "--output-dir", str(tmp_path))
    assert (done.code, file.read_text()) == (2, "mine")
    assert "not written by rp" in done.err
    file.unlink()
    assert rp(*WEB, "--model", "bert-base-uncased", "--output-dir", str(tmp_path)).code == 0
    file.write_text(file.read_text() + "\n")
    done = rp(*WEB, "--model", "bert-base-uncased", "--output-dir", str(tmp_path))
    assert done.code == 2
    assert "was edited since rp wrote it" in done.err


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (("--model", "gpt2"), "a key-value cache"),
        (("--model", "openai/whisper-tiny"), "encoder and decoder apart"),
        (("--model", "openai/clip-vit-base-patch32"), "a file for each part"),
        (("--model", "bert-base-uncased", "--device", "cuda"), "not on cuda"),
        (("--model", "bert-base-uncased", "--style", "pytest"), "leave --style out"),
        (("--model", "bert-base-uncased", "--timeout", "3"), "leave --timeout out"),
        (("--model", "bert-base-uncased", "--template-dir", "."), "leave --template-dir out"),
    ],
)
def test_what_it_cannot_test_is_one_sentence_and_writes_nothing(rp, tmp_path, asked, reason):
    done = rp(*WEB, *asked, "--output-dir", str(tmp_path / "out"))
    assert (done.code, done.out) == (2, "")
    assert reason in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    [
        "</script><script>alert(1)</script>",
        "<!--<script>",
        '"""\nimport os; os.system("touch pwned")\n"""',
        "'; raise SystemExit #",
        "\\",
        "{{ 7 * 7 }}",
        "-->",
        "\u2028\u2029",
        "a" * 300,
    ],
)
def test_a_hostile_name_is_data_in_both_files_and_leaves_no_folder(tmp_path, name):
    classification = {
        "model_name": name,
        "model_type": "bert",
        "family": "embedding",
        "subfamily": None,
        "auto_class": "AutoModel",
        "confidence": 1.0,
        "hardware_priority": ["cpu"],
    }
    tests, pages = draft_web_tests([web_plan(make_plan(classification))], tmp_path)
    assert all(draft.path.parent == tmp_path for draft in (*tests, *pages))
    tree = ast.parse(tests[0].source)
    values = {
        node.targets[0].id: ast.literal_eval(node.value)  # type: ignore[attr-defined]
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    assert values["MODEL_NAME"] == name
    assert {type(node).__name__ for node in tree.body} == {
        "Expr", "Import", "ImportFrom", "Assign", "ClassDef", "FunctionDef", "If",
    }  # fmt: skip
    page = Page(pages[0].source)
    kinds = [attributes.get("type") for attributes, _ in page.scripts]
    assert kinds == ["importmap", "application/json", "module"]
    assert json.loads(page.scripts[1][1])["model_name"] == name


@given(st.text())
def test_json_in_a_script_is_the_value_and_never_the_scripts_end(text):
    written = json_in_script({"name": text})
    assert json.loads(written) == {"name": text}
    assert not set("<>&\u2028\u2029") & set(written)


def test_the_page_is_told_as_its_test_is(rp, tmp_path):
    asked = (*WEB, "--model", "bert-base-uncased", "--output-dir", str(tmp_path))
    test, page = tmp_path / "test_tjs_bert_base_uncased.py", tmp_path / "tjs_bert_base_uncased.html"
    assert rp(*asked).out.startswith(f"Wrote {test}\nWrote {page}\n  Family:")

    def told() -> tuple[str, str]:
        (result,) = rp(*asked, "--dry-run", "--json").json
        assert_fits([result], "generation")
        assert (result["path"], result["page"]["path"]) == (str(test), str(page))
        return result["status"], result["page"]["status"]

    assert told() == ("unchanged", "unchanged")
    page.write_text(page.read_text() + "\n")
    assert told() == ("unchanged", "edited")
    assert f"Unchanged: {test}\nEdited, needs --force: {page}\n" in rp(*asked, "--dry-run").out
    page.unlink()
    assert told() == ("unchanged", "new")


def test_of_many_models_each_page_has_a_line(rp, tmp_path):
    names = [word for number in range(20) for word in ("--model", f"org/bert-base-{number}")]
    done = rp(*WEB, *names, "--dry-run", "--output-dir", str(tmp_path))
    assert (len(done.out.splitlines()), done.out.count(".html\n")) == (40, 20)


def test_the_precision_that_is_told_is_the_pages(rp, tmp_path):
    done = rp(*WEB, "--model", "bert-base-uncased", "--output-dir", str(tmp_path))
    asked = json.loads(Page((tmp_path / "tjs_bert_base_uncased.html").read_text()).scripts[1][1])
    assert ("Precision: float32\n" in done.out, asked["dtype"]) == (True, "fp32")


def test_what_is_refused_clears_no_cache(rp, isolated_home):
    (isolated_home / "hardware.json").write_text("{}")
    assert rp(*WEB, "--model", "gpt2", "--clear-cache").code == 2
    assert (isolated_home / "hardware.json").exists()


def test_dry_run_and_diff_show_the_page_too_and_write_nothing(rp, tmp_path):
    out = ("--model", "bert-base-uncased", "--output-dir", str(tmp_path / "new"))
    assert rp(*WEB, *out, "--dry-run").code == 0
    done = rp(*WEB, *out, "--diff")
    assert '+<script type="module" src="pipeline.mjs"></script>' in done.out
    assert not (tmp_path / "new").exists()
