"""The reference is what the code says, and says all that the code does."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hardware_detection.environment import RELEVANT
from model_family_classifier import FAMILIES
from model_family_classifier.data import template_of
from resource_pool import _preferences
from resource_pool._meanings import PREFERENCES, STATISTICS
from resource_pool.testing import FakeMachine
from rp_cli import app
from rp_cli.errors import MEANINGS, ExitCode, error_codes, exit_code_for
from rp_cli.settings import OF_LIBRARIES, SETTINGS

TOP = Path(__file__).parents[2]
PACKAGES = ("hardware_detection", "model_family_classifier", "resource_pool", "rp_cli")
OURS = re.compile(r"(RP|RESOURCE_POOL|TEST_HARDWARE)_[A-Z_]+|[A-Z]+_SIMULATION_ENABLED|RAY_ADDRESS")


@pytest.fixture(scope="module")
def reference() -> Any:
    """Return the module of the script, which is in no package."""
    path = TOP / "docs" / "generate_reference.py"
    sys.path.append(str(path.parent))  # as Python does for a script
    spec = importlib.util.spec_from_file_location("generate_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_up_to_date(reference):
    for page, text in reference.pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name}: run `make reference`"


def test_check_names_what_is_out_of_date_and_writes_nothing(reference, monkeypatch, capsys):
    page = TOP / "docs" / "reference" / "nowhere.md"
    monkeypatch.setattr(reference, "pages", lambda: {page: "text"})
    monkeypatch.setattr("sys.argv", ["generate_reference.py", "--check"])
    assert reference.main() == 1
    assert "nowhere.md is out of date" in capsys.readouterr().err
    assert not page.exists()


def rows(text: str) -> Iterator[dict[str, str]]:
    """Yield the rows of all tables of a page, each with the heads of its table."""
    head: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif not re.fullmatch(r"[|\s-]+", line):
            yield dict(zip(head, cells, strict=True))


def test_no_row_of_a_written_table_is_without_its_words(reference):
    pages = (page for page in reference.pages() if page.suffix == ".md")
    generated = re.compile(r"<!-- generated: .*?<!-- end -->", re.DOTALL)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        parts = [text] if page.parent.name == "reference" else generated.findall(text)
        found = [row for part in parts for row in rows(part)]
        assert found or page.name == "python.md"
        for row in found:
            empty = [name for name, cell in row.items() if not cell and name != "default"]
            assert not empty, f"{page.name}: {row}"


def test_every_public_name_is_on_the_page_of_python():
    page = (TOP / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    parts = re.split(r"^## `(.*)`$", page, flags=re.MULTILINE)
    told = dict(zip(parts[1::2], parts[2::2], strict=True))
    libraries = (TOP / package for package in PACKAGES if package != "rp_cli")
    for file in (file for library in libraries for file in library.rglob("__init__.py")):
        name = ".".join(file.parent.relative_to(TOP).parts)
        for public in getattr(importlib.import_module(name), "__all__", ()):
            assert re.search(rf"^(### |- )`{public}`", told[name], re.MULTILINE), f"{name}.{public}"


def test_every_preference_has_its_words():
    assert list(PREFERENCES) != []
    assert set(PREFERENCES) == set(_preferences._PARSERS)
    assert set(PREFERENCES) == set(vars(_preferences.Preferences()))


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of all keys; "*" stands for names that are data."""
    if isinstance(value, list):
        for one in value:
            yield from keys(one, f"{path}[]")
    elif isinstance(value, Mapping):
        for key, one in value.items():
            name = "*" if path in ("models", "devices") else key
            here = f"{path}.{name}" if path else name
            if name != "*":
                yield here
            yield from keys(one, here)


def test_every_statistic_has_its_words():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(60))
    # What only a Mac tells is not asked for here.
    found = set(keys(pool.get_stats())) - {"mps.allocated_mb"}
    # What only browsers tell: test_browser_simulation.py.
    assert found == {key for key in STATISTICS if not key.startswith("models.*.web")}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (TOP / package).rglob("*.py")
    yield from (TOP / "templates").glob("*")


def words(file: Path) -> set[str]:
    """Return the texts of a file that are nothing but a variable's name."""
    if file.suffix != ".py":
        return set(re.findall(r'"([A-Z_]+)"', file.read_text(encoding="utf-8")))
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {
        node.value for node in nodes if isinstance(node, ast.Constant) and type(node.value) is str
    }


def test_every_variable_that_rp_reads_is_in_the_reference_and_no_other():
    named = {one.name for one in SETTINGS}
    read = set().union(*(words(file) for file in sources() if file.name != "settings.py"))
    assert {word for word in read if OURS.fullmatch(word)} <= named
    assert named <= read


#: Read only to put it back: rp sets it for the moment of a load.
SET_AND_PUT_BACK = {"HF_DEACTIVATE_ASYNC_LOAD"}


def environ_reads(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what is asked of an environment: `environ.get(x)`, `environ[x]`, `x in environ`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            held, asked = node.comparators[0], node.left
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            held, asked = node.value, node.slice
        elif isinstance(node, ast.Call) and node.args:
            if ast.unparse(node.func) == "os.getenv":
                yield node.args[0]
            if not isinstance(node.func, ast.Attribute) or node.func.attr != "get":
                continue
            held, asked = node.func.value, node.args[0]
        else:
            continue
        if re.search(r"environ(ment)?$", ast.unparse(held)):
            yield asked


def texts(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def meant(name: ast.Name, tree: ast.AST, constants: Mapping[str, set[str]]) -> set[str]:
    """Return the texts that a name may stand for in a file, by its assignments and loops."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.For | ast.comprehension):
            targets, value = [node.target], node.iter
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == name.id for target in targets):
            parts = [part.id for part in ast.walk(value) if isinstance(part, ast.Name)]
            found |= texts(value).union(*(constants.get(part, set()) for part in parts))
    return found or constants.get(name.id, set())


def test_every_variable_that_is_asked_for_is_in_the_reference():
    files = [file for file in sources() if file.suffix == ".py"]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    constants = {
        target.id: texts(node.value)
        for tree in trees.values() for node in tree.body if isinstance(node, ast.Assign)
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip
    known = {one.name for one in SETTINGS} | set(RELEVANT)
    reads = 0
    for file, tree in trees.items():
        for asked in environ_reads(tree):
            found = meant(asked, tree, constants) if isinstance(asked, ast.Name) else texts(asked)
            names = {text for text in found if re.fullmatch(r"_?[A-Z][A-Z0-9_()]+", str(text))}
            where = f"{file.relative_to(TOP)}: {ast.unparse(asked)}"
            assert names, f"{where} is read, and this test does not see which variable that is"
            for name in names:
                ends = name.startswith("_")  # the end of an f-string
                told = any(one.endswith(name) if ends else one == name for one in known)
                assert told or name in SET_AND_PUT_BACK, f"{where}: {name}"
            reads += 1
    assert reads > 30


@pytest.mark.parametrize("one", OF_LIBRARIES, ids=lambda one: one.name)
def test_a_variable_of_a_library_is_read_by_it(one):
    source = importlib.util.find_spec(OF_LIBRARIES[one]).origin
    assert f'"{one.name}"' in Path(source).read_text(encoding="utf-8")


# Exit codes --------------------------------------------------------------------------------------

PROVOKED = {
    ExitCode.OK: ["classify", "gpt2"],
    ExitCode.FAILED: ["detect", "--require", "cuda>=1"],
    ExitCode.BAD_INPUT: ["classify", "no/such/name"],
    ExitCode.NOT_HERE: ["web", "check", "gpt2"],
    ExitCode.CANNOT_WRITE: ["detect", "--export", "/dev/null/machine.json"],
}
# A signal needs a process to be sent to.
BY_SIGNAL = "tests/rp_cli/test_run_stopped.py::test_a_signal_ends_the_run_and_its_child"
BY_PIPE = "tests/rp_cli/test_app.py::test_a_pipe_that_nobody_reads_ends_rp_quietly"


@pytest.mark.parametrize("code", PROVOKED, ids=lambda code: code.name)
def test_each_exit_code_can_be_provoked(rp_says, monkeypatch, code):
    monkeypatch.setenv("RP_WEIGHTS", "pretrained")
    found, _, err = rp_says(*PROVOKED[code])
    assert found == code, err
    if code is not ExitCode.OK:
        assert err.startswith("rp: ")
        assert len(err.strip().splitlines()) == 1


# The error that a command ends with -> the command. {tmp} is an empty folder but for bad.json.
ERRORS = {
    "WebSetupError": ["web", "setup"],
    "OutputError": ["detect", "--export", "/dev/null/machine.json"],
    "NotHereError": ["run", "{tmp}", "--engine", "ray"],
    "WeightsUnavailableError": ["web", "check", "gpt2"],
    "BadInputError": ["generate"],
    "ClassificationInputError": ["classify", "gpt2", "--model-db", "{tmp}/bad.json"],
    "HardwareCacheError": ["detect", "--cache", "{tmp}/bad.json"],
    "HardwareDescriptionError": ["--hardware", "{tmp}/bad.json", "classify", "gpt2"],
    "PredictionError": ["predict", "nobody/knows-this"],
    "PreferenceError": ["generate", "--model", "gpt2", "--device", "toaster"],
    "RequirementError": ["detect", "--require", "cuda>>1"],
    "SettingError": ["models", "list"],
}
# Libraries raise it; no command passes a device's name on to where it is raised.
IN_PYTHON_ONLY = {"UnknownHardwareError"}


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_of_the_reference_can_be_provoked(rp_says, monkeypatch, tmp_path, name):
    monkeypatch.setenv("RP_WEIGHTS", "pretrained")
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm is there
    if name == "SettingError":
        monkeypatch.setenv("RP_HOME", "~nobody-of-this-name/rp")
    here = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda one: here(one) if one != "ray" else None
    )
    (tmp_path / "bad.json").write_text("{")
    raised = []
    monkeypatch.setattr(
        app, "exit_code_for", lambda error: raised.append(error) or exit_code_for(error)
    )
    words = [word.format(tmp=tmp_path) for word in ERRORS[name]]
    # A faked detection reads no cache.
    code, _, err = rp_says(*words, detected=name != "HardwareCacheError")
    assert [type(error).__name__ for error in raised] == [name]
    assert code == next(int(found) for kinds, found in error_codes() if type(raised[0]) in kinds)
    assert err.startswith("rp: ")
    assert len(err.splitlines()) == 1


def test_no_error_of_the_reference_is_left_out():
    listed = {kind.__name__ for kinds, _ in error_codes() for kind in kinds}
    assert listed == {*ERRORS, *IN_PYTHON_ONLY}


def test_no_exit_code_is_left_out():
    signals = {ExitCode.HUNG_UP, ExitCode.INTERRUPTED, ExitCode.TERMINATED}
    assert set(ExitCode) == set(MEANINGS) == {*PROVOKED, *signals, ExitCode.READER_GONE}
    for test in (BY_SIGNAL, BY_PIPE):
        file, _, name = test.partition("::")
        assert f"def {name}" in (TOP / file).read_text(encoding="utf-8")


def test_the_table_of_families_has_each_family_and_its_template():
    table = (TOP / "docs" / "classification.md").read_text(encoding="utf-8")
    told = {
        family.strip(): f"hf_{row['template']}_template.py"
        for row in rows(table.partition("## Families")[2].partition("\n## ")[0])
        for family in row["family"].split(",")
    }
    assert told == {family: template_of(family) for family in FAMILIES}, (
        "by hand: the table of families in docs/classification.md"
    )


def test_the_page_of_generate_has_all_its_options():
    import typer

    from rp_cli.commands import generate

    alone = typer.Typer(add_completion=False)
    alone.command()(generate.command)
    options = typer.main.get_command(alone).params
    names = {one.opts[0] for one in options}
    table = re.findall(r"^\| (`--.*?) \| ", (TOP / "docs" / "generation.md").read_text(), re.M)
    told = set(re.findall(r"`(--[a-z-]+)", " ".join(table)))
    assert {name.replace("--use-", "--no-use-") for name in names} - {"--help"} == told
