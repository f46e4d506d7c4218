"""What is read from a test file without executing it."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_files import write

from rp_cli.runner.constructing import Located
from rp_cli.runner.learning import first_model, read_facts

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.py")), ids=lambda file: file.stem)
def test_the_model_of_a_generated_file_is_understood(file):
    """A template whose way to load is no longer understood would silently share nothing."""
    facts = read_facts(file)
    assert facts.style == "unittest"
    assert facts.imports[:3] == ("torch", "transformers", "resource_pool")
    assert "resource_pool.weights.locate_weights" in facts.imports
    (plan, *_) = facts.models
    assert plan.path == Located.PATH
    assert plan.located is not None
    assert plan.located["model_name"] == plan.name == first_model(file)
    assert plan.auto_class in facts.classes
    assert plan.variant is not None
    assert plan.from_environment
    assert plan.preferences == facts.preferences
    if file.stem != "test_hf_nobody_knows_this":
        assert facts.types


USES = """\
import unittest
from transformers import AutoModel, BertModel
from resource_pool import get_global_resource_pool
NAME = "org/m"
FOLDER = f"/models/{NAME}"
class T(unittest.TestCase):
    def test_a(self):
        pool = get_global_resource_pool()
        CALL
"""


@pytest.mark.parametrize(
    ("call", "path"),
    [
        ("pool.get_model('bert', NAME, lambda: AutoModel.from_pretrained(NAME))", "org/m"),
        (
            (
                "pool.get_model('bert', NAME, constructor=lambda: "
                "BertModel.from_pretrained(FOLDER, local_files_only=True).eval())"
            ),
            "/models/org/m",
        ),
        (
            (
                "pool.lease(model_type='bert', model_name=NAME, hardware_preferences={}, "
                "constructor=lambda: AutoModel.from_pretrained(str(NAME)))"
            ),
            "org/m",
        ),
        (
            (
                "def from_folder(folder, **options):\n"
                "            return AutoModel.from_pretrained(folder, **options)\n"
                "        pool.get_model('bert', NAME, lambda: from_folder(FOLDER))"
            ),
            "/models/org/m",
        ),
        (
            (
                "def load():\n            'Load it.'\n            import torch\n"
                "            return AutoModel.from_pretrained(NAME)\n"
                "        pool.get_model('bert', NAME, load)"
            ),
            "org/m",
        ),
    ],
)
def test_plain_ways_to_load_are_understood(tmp_path, call, path):
    (plan,) = read_facts(write(tmp_path, USES.replace("CALL", call))).models
    assert (plan.family, plan.name, plan.path) == ("bert", "org/m", path)


@pytest.mark.parametrize(
    "call",
    [
        (
            "pool.get_model('bert', NAME, lambda: AutoModel.from_pretrained(NAME, "
            "trust_remote_code=True))"
        ),
        "pool.get_model('bert', NAME, lambda: AutoModel.from_pretrained(NAME, **options))",
        "pool.get_model('bert', NAME, lambda: AutoModel.from_pretrained(self.name))",
        "pool.get_model('bert', NAME, lambda: Own.from_pretrained(NAME))",
        "pool.get_model('bert', NAME, lambda: change(AutoModel.from_pretrained(NAME)))",
        "pool.get_model('bert', NAME, lambda: AutoModel.from_pretrained(NAME).half())",
        "pool.get_model(*arguments)",
        "pool.get_model('bert', NAME)",
        "pool.get_model('bert', NAME, 7)",
        "pool.get_model('bert', NAME, load)\n    def load():\n        x = 1\n        return x",
        (
            "def load():\n            count(); return AutoModel.from_pretrained(NAME)\n        "
            "pool.get_model('bert', NAME, load)"
        ),
        "pool.get_model('bert', variable, lambda: AutoModel.from_pretrained(NAME))",
    ],
)
def test_what_is_not_plain_is_left_to_the_file(tmp_path, call):
    facts = read_facts(write(tmp_path, USES.replace("CALL", call)))
    assert facts.models == ()
    assert facts.classes == ("AutoModel", "BertModel")


def test_a_name_that_is_assigned_twice_is_no_constant(tmp_path):
    call = "pool.get_model('bert', NAME, lambda: AutoModel.from_pretrained(NAME))"
    source = USES.replace("CALL", call).replace("FOLDER =", "NAME =")
    assert read_facts(write(tmp_path, source)).models == ()


@pytest.mark.parametrize(
    ("source", "style"),
    [
        ("import unittest\nclass TestA(unittest.TestCase): pass\n", "unittest"),
        ("def test_a(): pass\n", "pytest"),
        ("class TestA:\n    def test_a(self): pass\n", "pytest"),
        ("import pytest, unittest\nclass TestA(unittest.TestCase): pass\n", "pytest"),
        ("from pytest import mark\n", "pytest"),
        ("x = 1\n", "unittest"),
        ("class TestA(object):\n    def test_a(self): pass\n", "pytest"),
        ("class Checks: pass\nclass More(Checks): pass\nclass TestA(More): pass\n", "pytest"),
        ("if True:\n    class Checks: pass\nclass TestA(Checks): pass\n", "pytest"),
        ("if 0: pass\nelif 1: pass\nelse:\n    def test_a(): pass\n", "pytest"),
        ("try: import x\nexcept ImportError:\n    def test_a(): pass\n", "pytest"),
        ("try: pass\nfinally:\n    async def test_a(): pass\n", "pytest"),
        ("class Checks: pass\nclass TestA(Checks, unittest.TestCase): pass\n", "unittest"),
        ("class B: pass\nfrom x import A\nclass B(A): pass\nclass TestA(B): pass", "unittest"),
        ("def help():\n    def test_a(): pass\n", "unittest"),
    ],
)
def test_the_style_is_seen(tmp_path, source, style):
    assert read_facts(write(tmp_path, source)).style == style


def test_pytest_files_with_plugins_get_a_process_of_their_own(tmp_path):
    assert read_facts(write(tmp_path, "def test_a(): pass\n")).alone == ""
    assert read_facts(write(tmp_path, "pytest_plugins = 'x'\ndef test_a(): pass\n")).alone
    (tmp_path / "conftest.py").touch()
    assert "conftest.py" in read_facts(write(tmp_path, "def test_a(): pass\n")).alone
    assert read_facts(write(tmp_path, "import unittest\n")).alone == ""


@pytest.mark.parametrize(
    "source", [b"def broken(:\n", b"\xff\xfe\x00", b"x = 1\0", b"(" * 5000, b"-" * 100_000 + b"1"]
)
def test_what_cannot_be_parsed_says_nothing(tmp_path, source):
    path = tmp_path / "test_it.py"
    path.write_bytes(source)
    assert read_facts(path).models == ()
    assert first_model(path) is None


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("MODEL_NAME = 'org/m'\n", "org/m"),
        ("def test_a(model): model('org/m', {'device': 'cpu'})\n", "org/m"),
        ("NAME = 'org/m'\ndef test_a(pool): pool.get_model('bert', NAME)\n", "org/m"),
        ("def test_a(pool, name): pool.get_model('bert', name)\n", None),
    ],
)
def test_the_first_model_of_a_file_is_found(tmp_path, source, name):
    assert first_model(write(tmp_path, source)) == name
