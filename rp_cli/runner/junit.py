"""A run as JUnit XML, as far as CI systems agree about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

# What XML 1.0 has no way to write, escaped or not.
# As unittest names what goes wrong before the first test of a class.
_SET_UP = re.compile(r"(\w+) \(([\w.]+)\)")
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WORDS = {"failed": "failure", "error": "error", "skipped": "skipped"}


def junit_xml(record: Mapping[str, Any]) -> str:
    """Return one ``testsuite`` per file, one ``testcase`` per test.

    A file that broke (a crash, a deadline, an import that failed, no test) has a testcase of its
    own with an error, so that it is counted by whoever reads only tests, unless a test that ran
    then has that error; a file that was not run has one that is skipped.
    """
    suites = Element("testsuites", name="rp run", time=_seconds(record["seconds"]))
    for result in record["files"]:
        _add_suite(suites, result)
    for path in record["not_run"]:
        suite = SubElement(suites, "testsuite", name=_legal(path))
        _add_case(suite, path, {"name": "", "status": "skipped", "detail": "not run"})
        _count(suite)
    for counted in ("tests", "failures", "errors", "skipped"):
        suites.set(counted, str(sum(int(suite.get(counted, "0")) for suite in suites)))
    indent(suites)
    body = tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def _add_suite(suites: Element, result: Mapping[str, Any]) -> None:
    path = str(result["path"])
    suite = SubElement(suites, "testsuite", name=_legal(path), time=_seconds(result["seconds"]))
    properties = SubElement(suite, "properties")
    for name, value in _properties(result):
        SubElement(properties, "property", name=name, value=_legal(value))
    for test in result["tests"]:
        _add_case(suite, path, test)
    if _broke_by_itself(result):
        detail = result["error"] or "the file has no tests"
        broken = {"name": Path(path).name, "status": "error", "detail": detail}
        _add_case(suite, path, {**broken, "exception": result["exception"] or result["status"]})
    _count(suite)
    if result["output"]:
        SubElement(suite, "system-out").text = _legal(result["output"])


def _broke_by_itself(result: Mapping[str, Any]) -> bool:
    """Whether a file broke, and none of its tests is said to be the one that ran then."""
    broke = result["status"] in ("crashed", "timeout", "error", "no_tests")
    return broke and all(test.get("exception") != result["status"] for test in result["tests"])


def _add_case(suite: Element, path: str, test: Mapping[str, Any]) -> None:
    owner, name = _names(str(test["name"]), Path(path))
    case = SubElement(
        suite,
        "testcase",
        classname=_legal(owner),
        name=_legal(name),
        file=_legal(path),
        time=_seconds(test.get("seconds", 0.0)),
    )
    word = _WORDS.get(str(test["status"]))
    if word is not None:
        detail = str(test.get("detail", ""))
        last = (detail.strip().splitlines() or [""])[-1]
        outcome = SubElement(case, word, message=_legal(last))
        if word != "skipped":
            outcome.set("type", _legal(str(test.get("exception", ""))))
            outcome.text = _legal(detail)


def _names(test: str, file: Path) -> tuple[str, str]:
    """Return class and name of a test, of a class's set-up, or of a file that broke."""
    if test in ("", file.name):
        return file.stem, file.name
    set_up = _SET_UP.fullmatch(test)
    if set_up:
        return set_up[2], set_up[1]
    plain, bracket, parameters = test.partition("[")
    if "::" in plain:  # pytest's id
        module, *classes, name = plain.split("::")
        dotted = module.removesuffix(".py").replace("/", ".")
        return ".".join([dotted, *classes]), f"{name}{bracket}{parameters}"
    owner, _, name = plain.rpartition(".")
    return owner or file.stem, f"{name}{bracket}{parameters}"


def _count(suite: Element) -> None:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for plural, word in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(plural, str(sum(case.find(word) is not None for case in cases)))


def _properties(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "ran_in", str(result["ran_in"])
    if result["node"]:
        yield "node", str(result["node"])
    for model in result["pool"].get("models", []):
        for fact in ("device", "dtype", "weights"):
            if fact in model:
                yield f"{fact} of {model['key']}", str(model[fact])
    for name, value in result["resources"].items():
        if value is not None:
            yield name, f"{value:.3f}"


def _seconds(value: Any) -> str:
    return f"{value:.3f}"


def _legal(text: str) -> str:
    """Return the text with a replacement character for each that XML cannot hold."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
