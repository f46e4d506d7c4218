"""``rp generate --target transformers-js``: a page, and a test that runs it in a browser.

Names are untrusted: what goes into the test is a Python literal, what goes into the page is JSON
in which no character can end the script that it stands in.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from resource_pool.transformers_js.tasks import task_of, why_not
from rp_cli import __version__
from rp_cli.codegen.names import class_name, stem
from rp_cli.codegen.plan import DEFAULT_TIMEOUT, NO_DIGEST, STYLES, TestPlan
from rp_cli.codegen.render import environment, format_sources, is_unedited, signed
from rp_cli.codegen.write import Draft, read_text, refuse_clashes
from rp_cli.errors import BadInputError

TARGET = "transformers-js"
_DEVICE = "webgpu"
_PRECISION = "float32"
_DTYPE = "fp32"  # what transformers.js calls it
_PREFIX = "transformers_js"


def web_plan(plan: TestPlan, template_dir: Path | None = None) -> TestPlan:
    """Return the plan of the same model's test in a browser.

    Raises:
        BadInputError: other hardware, another style, an age or templates of the user's were asked
            for, or transformers.js has no pipeline for the model that rp can test.
    """
    if plan.device not in (None, _DEVICE):
        raise BadInputError(f"--target {TARGET} runs on {_DEVICE}, and not on {plan.device}.")
    if plan.style != STYLES[0]:
        raise BadInputError(f"--target {TARGET} writes unittest only; leave --style out.")
    if plan.timeout_minutes != DEFAULT_TIMEOUT:
        raise BadInputError(f"--target {TARGET} has no pool to clean up; leave --timeout out.")
    if template_dir is not None:
        raise BadInputError(f"--target {TARGET} has one template; leave --template-dir out.")
    reason = why_not(plan.auto_class, plan.family)
    if reason:
        raise BadInputError(f"{plan.model_name} has no test in transformers.js: {reason}.")
    return replace(plan, device=_DEVICE, precision=_PRECISION, template=f"{_PREFIX}_test.py")


def draft_web_tests(plans: Sequence[TestPlan], output_dir: Path) -> tuple[list[Draft], list[Draft]]:
    """Return the tests, one for each plan of ``web_plan``, and their pages; nothing is written.

    Raises:
        BadInputError: a file in the way is another model's or not of rp's making.
    """
    paths = [output_dir / f"test_{_stem(plan)}.py" for plan in plans]
    before = [read_text(path) for path in paths]
    refuse_clashes(plans, paths, before)
    sources = map(signed, format_sources([_test(plan) for plan in plans]))
    tests = [Draft(*one) for one in zip(paths, sources, before, strict=True)]
    return tests, [_page_draft(plan, output_dir) for plan in plans]


def _stem(plan: TestPlan) -> str:
    return f"tjs_{stem(plan.model_name)}"


def _task(plan: TestPlan) -> str:
    return str(task_of(plan.auto_class, plan.family))


def _test(plan: TestPlan) -> str:
    command = ["rp", "generate", "--model", plan.model_name, "--target", TARGET]
    return _rendered(
        "test.py.j2",
        plan=plan,
        task=_task(plan),
        page_name=f"{_stem(plan)}.html",
        names={"class_name": f"{class_name(plan.model_name)}InTransformersJs"},
        command=shlex.join([*command, *plan.options]),
    )


def _page_draft(plan: TestPlan, output_dir: Path) -> Draft:
    path = output_dir / f"{_stem(plan)}.html"
    before = read_text(path)
    if before is not None and not is_unedited(before) and "written by rp " not in before:
        raise BadInputError(
            f"{path} was not written by rp and is left as it is; move it away, or choose another "
            "folder with --output-dir."
        )
    asked = {
        "model_name": plan.model_name,
        "task": _task(plan),
        "device": _DEVICE,
        "dtype": _DTYPE,
        # All labels, and not the best five.
        "options": {"top_k": None} if _task(plan).endswith("classification") else {},
    }
    return Draft(path, signed(_rendered("page.html.j2", asked=asked)), before)


def _rendered(template: str, names: Mapping[str, str] | None = None, **values: Any) -> str:
    """Return what a template writes; ``names`` are of our making, and need no filter."""
    from rp_cli.codegen.sandbox import Code

    known = {"version": __version__, "digest": NO_DIGEST, **(names or {})}
    found = environment(None).get_template(f"{_PREFIX}_{template}")
    return found.render({name: Code(text) for name, text in known.items()}, **values)
