"""How often the classifier is right, how sure it may be, and how fast it is.

    python benchmarks/classify.py [--part PART] [--misses] [--calibrate] [--json FILE]

The labels are those in tests/model_family_classifier/labelled; how they were made stands at the
top of each file. There are four sets, and each is printed apart:

- model_types.txt: a random sample of the loadable model types, judged by type and by config.
- hub_names.txt: names by the author of the table of names. A digest of the name splits them:
  half for tuning, a quarter for the confidences, a quarter held out.
- blind_names.yaml: names by somebody who had not seen the rules. Half A has been looked at; half
  B is only measured, and is the figure to believe.
- The checkpoints that the installed transformers names in its own documentation, with the family
  of the model type under which it names them, as they are and with documented_corrections.yaml.
  Its misses have been looked at.

--calibrate measures the confidences on the calibration part, on half A and on the documented
names (what mended.txt lists counts as missed), and writes model_db/confidence.json; half B tests
them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hardware_detection.files import write_atomically
from model_family_classifier import FAMILIES, classify_model
from model_family_classifier.data import data_dir
from model_family_classifier.documents import load_trusted_yaml
from model_family_classifier.index import entry_of, judge_suffix, judge_type
from model_family_classifier.names import judge_name

LABELLED = Path(__file__).parents[1] / "tests" / "model_family_classifier" / "labelled"
GOALS = {"by config": 0.99, "by model type": 0.97, "by hub name": 0.95}
PARTS = ("held-out", "calibration", "tuning", "all")
HALVES = ("A", "B")
ENOUGH = 10  # cases of one kind of evidence, below which its confidence stays assumed


class Label(NamedTuple):
    """One labelled name or model type; subfamily None: not judged."""

    name: str
    family: str
    subfamily: str | None
    architecture: str | None = None
    disputed: bool = False


class Answer(NamedTuple):
    """What the classifier said about a labelled case."""

    label: Label
    family: str
    subfamily: str | None
    confidence: float
    subfamily_confidence: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the family is right."""
        return self.family == self.label.family


def read_labels(file: str) -> list[Label]:
    """Return the rows of a labelled set."""
    text = (LABELLED / file).read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return [
        Label(row[0], row[1], None if row[2] == "-" else row[2], row[3] if row[3:] else None)
        for row in rows
    ]


def part_of(name: str) -> str:
    """Return the part that a name belongs to: "tuning", "calibration" or "held-out"."""
    digit = int(hashlib.sha256(name.lower().encode()).hexdigest()[0], 16)
    if digit % 2:
        return "tuning"
    return "calibration" if digit % 4 == 0 else "held-out"


def read_blind_labels(half: str) -> list[Label]:
    """Return one half of the names that were labelled blind, disputed ones included."""
    rows = load_trusted_yaml(LABELLED / "blind_names.yaml")
    return [
        Label(name, row["family"], row["subfamily"], disputed="disputed" in row)
        for name, row in rows.items()
        if half_of(name) == half
    ]


def half_of(name: str) -> str:
    """Return the half of the blind names that a name belongs to: "A" (looked at) or "B"."""
    return HALVES[int(hashlib.sha256(name.lower().encode()).hexdigest()[1], 16) % 2]


def in_part(labels: Iterable[Label], part: str) -> list[Label]:
    """Return the labels of one part, or "all"."""
    return [one for one in labels if part in ("all", part_of(one.name))]


def by_name(label: Label) -> Answer:
    """Classify by the name alone."""
    found = classify_model(label.name)
    sure = (found["confidence"], found["subfamily_confidence"])
    return Answer(label, found["family"], found["subfamily"], *sure)


def by_type(label: Label) -> Answer:
    """Classify by the model type alone."""
    verdict = judge_type(label.name)
    return Answer(label, verdict.family or "unknown", verdict.subfamily, verdict.confidence)


def by_config(label: Label) -> Answer:
    """Classify a folder that holds nothing but a config.json, and whose name says nothing."""
    with tempfile.TemporaryDirectory(prefix="q") as folder:
        config = {"model_type": label.name, "architectures": [label.architecture]}
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        found = classify_model(folder)
    return Answer(label, found["family"], found["subfamily"], found["confidence"])


def documented_checkpoints() -> list[Label]:
    """Return the names in the documentation of transformers, with the families of their types."""
    import transformers

    found = {}
    for file in sorted(Path(transformers.__file__).parent.glob("models/*/configuration_*.py")):
        text = file.read_text(encoding="utf-8")
        types = re.findall(r'^    model_type(?:: \w+)? = "([^"]+)"', text, re.MULTILINE)
        names = set(re.findall(r'checkpoint="([\w.-]+/[\w.-]+)"', text))
        # A file of several types names the checkpoint of the whole model for each of its parts.
        kinds = {judge_type(one).family for one in types if entry_of(one)}
        if len(names) == 1 and len(kinds) == 1 and None not in kinds:
            found[names.pop()] = kinds.pop()
    return [Label(name, family or "unknown", None) for name, family in found.items()]


def corrected(labels: Iterable[Label]) -> list[Label]:
    """Return the documented labels with those that were found to be wrong put right."""
    right = load_trusted_yaml(LABELLED / "documented_corrections.yaml")
    return [
        one._replace(family=right[one.name]["family"]) if one.name in right else one
        for one in labels
    ]


def report(title: str, answers: Sequence[Answer], *, misses: bool) -> float:
    """Print one table and return the share of right families."""
    share = sum(one.right for one in answers) / len(answers)
    judged = [one for one in answers if one.label.subfamily]
    exact = sum(one.subfamily == one.label.subfamily and one.right for one in judged)
    unknown = sum(one.family == "unknown" != one.label.family for one in answers)
    goal = GOALS.get(title.partition(",")[0])
    print(f"\n{title}: {len(answers)} cases")
    print(f"  family right     {share:7.1%}" + (f"  (goal {goal:.0%})" if goal else ""))
    if judged:
        print(f"  subfamily right  {exact / len(judged):7.1%}  of {len(judged)} judged")
    print(f"  said unknown     {unknown / len(answers):7.1%}")
    confusion(answers)
    for one in answers if misses else ():
        if not one.right or (one.label.subfamily and one.subfamily != one.label.subfamily):
            print(f"    {one.label.name}: {one.label[1:3]}, said {one[1:]}")
    return share


def confusion(answers: Sequence[Answer]) -> None:
    """Print per family how many are right, and what the others were taken for."""
    for family in FAMILIES:
        rows = [one for one in answers if one.label.family == family]
        if rows:
            wrong = Counter(one.family for one in rows if not one.right)
            taken = ", ".join(f"{name} {count}" for name, count in wrong.most_common())
            right = len(rows) - wrong.total()
            print(f"  {family:16}{right:4} of {len(rows):4}  {taken}")


def reliability(answers: Sequence[Answer]) -> None:
    """Print for each confidence that is said how often it is right."""
    said = [one for one in answers if one.family != "unknown"]
    for low, high in ((0.0, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 1.01)):
        rows = [one for one in said if low <= one.confidence < high]
        if rows:
            mean = sum(one.confidence for one in rows) / len(rows)
            right = sum(one.right for one in rows) / len(rows)
            span = f"{low:.2f} to {min(high, 1):.2f}"
            print(f"  said {span}: {len(rows):4}, mean {mean:.2f}, {right:.1%} right")


def measured_bases() -> dict[str, dict[str, list[int]]]:
    """Count on what was not tuned on how often each kind of evidence is right."""
    counts: dict[str, dict[str, list[int]]] = defaultdict(
        lambda: {"family": [0, 0], "subfamily": [0, 0]}
    )
    mended = mended_names()
    for label, basis, family, subfamily in _said_on_calibration_parts():
        if family is not None:
            _count(counts[basis]["family"], family == label.family and label.name not in mended)
        if subfamily is not None and label.subfamily:
            _count(counts[basis]["subfamily"], subfamily == label.subfamily)
    return {
        basis: {what: pair for what, pair in sorted(both.items()) if pair[1] >= ENOUGH}
        for basis, both in sorted(counts.items())
        if both["family"][1] >= ENOUGH
    }


def mended_names() -> set[str]:
    """Return the names that were wrong before their misses were looked at."""
    lines = (LABELLED / "mended.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if not line.startswith("#")}


def _said_on_calibration_parts() -> Iterator[tuple[Label, str, str | None, str | None]]:
    labels = in_part(read_labels("hub_names.txt"), "calibration")
    blind = [one for one in read_blind_labels("A") if not one.disputed]
    unique = {one.name.lower(): one for one in (*corrected(documented_checkpoints()), *blind)}
    for label in {**unique, **{one.name.lower(): one for one in labels}}.values():
        found = judge_name(label.name)
        if found:
            verdict = found.verdict
            yield label, verdict.basis, verdict.family, verdict.subfamily
    for label in in_part(read_labels("model_types.txt"), "calibration"):
        of_type, of_suffix = judge_type(label.name), judge_suffix(label.architecture or "")
        for verdict in (of_type, of_suffix):
            yield label, verdict.basis, verdict.family, verdict.subfamily


def _count(pair: list[int], right: bool) -> None:
    pair[0] += right
    pair[1] += 1


def calibrate() -> None:
    """Write what is measured to model_db/confidence.json."""
    measured = measured_bases()
    content = {"schema_version": 1, "measured": measured}
    path = data_dir("model_db") / "confidence.json"
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
    print(f"{path}: {', '.join(measured)}")


def seconds_per_name(names: Sequence[str], classify: Callable[[str], object]) -> float:
    """Return the mean time of classifying a name, after a first one."""
    classify(names[0])
    started = time.perf_counter()
    for name in names:
        classify(name)
    return (time.perf_counter() - started) / len(names)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, default="held-out")
    parser.add_argument("--misses", action="store_true", help="print each wrong answer")
    parser.add_argument("--calibrate", action="store_true", help="write model_db/confidence.json")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        os.environ["HF_HUB_CACHE"] = empty  # nothing that lies on this machine may help
        if options.calibrate:
            calibrate()
            return
        figures = measure(options.part, misses=options.misses)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(part: str, *, misses: bool) -> dict[str, float]:
    """Print all tables and return the figures."""
    types = in_part(read_labels("model_types.txt"), "all")
    figures = {
        "by config": report("by config", [by_config(one) for one in types], misses=misses),
        "by model type": report("by model type", [by_type(one) for one in types], misses=misses),
    }
    for key, labels in {
        f"by hub name, {part} part": in_part(read_labels("hub_names.txt"), part),
        **blind_sets(),
        **documented_sets(),
    }.items():
        answers = [by_name(one) for one in labels]
        # The misses of half B are not to be looked at.
        figures[key] = report(key, answers, misses=misses and "half B" not in key)
        reliability(answers)
    figures.update(speed())
    return figures


def blind_sets() -> dict[str, list[Label]]:
    """Return the halves of the blind names: as labelled, without disputed labels, only new."""
    seen = {one.name.lower() for one in read_labels("hub_names.txt")}
    with contextlib.suppress(ImportError):
        seen |= {one.name.lower() for one in documented_checkpoints()}
    sets = {}
    for half in HALVES:
        labels = read_blind_labels(half)
        undisputed = [one for one in labels if not one.disputed]
        title = f"by hub name, blind half {half}"
        sets[f"{title}, as labelled"] = labels
        sets[f"{title}, without disputed labels"] = undisputed
        sets[f"{title}, and in no other set"] = [
            o for o in undisputed if o.name.lower() not in seen
        ]
    return sets


def documented_sets() -> dict[str, list[Label]]:
    """Return the names in the documentation of transformers; nothing without transformers."""
    with contextlib.suppress(ImportError):
        labels = documented_checkpoints()
        title = "by hub name, documentation of transformers"
        return {f"{title}, as it is": labels, f"{title}, corrected": corrected(labels)}
    return {}


def speed() -> dict[str, float]:
    """Print and return the time per name, and for 10,000 names as a library."""
    names = [one.name for one in read_labels("hub_names.txt")]
    each = seconds_per_name(names, classify_model)
    many = [f"{name}-{number}" for number in range(10_000 // len(names) + 1) for name in names]
    started = time.perf_counter()
    for name in many[:10_000]:
        classify_model(name)
    whole = time.perf_counter() - started
    print(f"\n{1e6 * each:.0f} us per name; 10,000 different names take {whole:.2f} s")
    return {"microseconds per name": round(1e6 * each, 1), "seconds for 10,000": round(whole, 2)}


if __name__ == "__main__":
    main()
