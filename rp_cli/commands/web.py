"""``rp web``: browsers as places for models."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from rp_cli.errors import ExitCode
from rp_cli.output import print_json, say, working
from rp_cli.runner.stopping import ended_cleanly

command = typer.Typer(
    name="web",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Provider(str, enum.Enum):
    """What a browser computes by."""

    WEBGPU = "webgpu"
    WEBNN = "webnn"


@command.callback()
def _web() -> None:
    """Run models in a browser: fetch what that needs, and try a model there."""


@command.command()
def setup(
    again: Annotated[
        bool, typer.Option("--again", help="Fetch them even if they are here.")
    ] = False,
) -> None:
    """Fetch onnxruntime-web and transformers.js with npm, as rp pins them, into rp's cache.

    Exit status: 0 they are here, 1 one could not be fetched or is not what was pinned.
    """
    from resource_pool.devices import browser_runtime

    for package in browser_runtime.PACKAGES:
        with working(f"Fetching {package.scope}{package} with npm"):
            folder = browser_runtime.install(package, again=again)
        say(f"{package.scope}{package} is in {folder}")


@command.command()
def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", show_default=False, help="A name of the hub, or a local model folder."
        ),
    ],
    provider: Annotated[
        Provider, typer.Option(help="What the browser computes by.")
    ] = Provider.WEBGPU,
    optimized: Annotated[
        bool,
        typer.Option(
            "--optimized", help="Try a smaller file: float16 where the browser has it, else int8."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Try whether a model runs in a browser as it does on PyTorch.

    It is exported, held against the limits of browsers, and run in the browser that is here.

    Exit status: 0 it runs, 1 it does not, 3 something that the run needs is not here.
    """
    from rp_cli.checking.web import FAILS, MISSING, check_model

    cleanly = ended_cleanly(ExitCode.TERMINATED)  # a browser, and what it was served, goes too
    with cleanly, working(f"Trying {model} on {provider.value}"):
        found = check_model(model, provider.value, optimized=optimized)
    if as_json:
        print_json(found)
    else:
        typer.echo("\n".join(_lines(found)))
    code = {FAILS: ExitCode.FAILED, MISSING: ExitCode.NOT_HERE}.get(found["verdict"])
    if code is not None:
        raise typer.Exit(code)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['model_name']} on {found['provider']} ({found['family']})"
    yield f"  Weights: {found['weights']['kind']}: {found['weights']['reason']}"
    if found["advice"]:
        yield f"  Advice: {found['advice']}"
    if found["export"]:
        yield from _export_lines(found["export"], found["provider"])
    if found["simulation"]:
        yield from _simulation_lines(found["simulation"])
    if found["run"]:
        yield from _run_lines(found["run"])
    yield from (f"  Missing: {sentence}" for sentence in found["missing"])
    yield _verdict(found)


def _export_lines(export: Mapping[str, Any], provider: str) -> Iterator[str]:
    from resource_pool.weights.hub import as_size

    nodes = sum(export["operators"].values())
    yield (
        f"  Export: {as_size(export['file_bytes'])}, opset {export['opset']}, {nodes} nodes of "
        f"{len(export['operators'])} operators"
    )
    sizes = (
        f"all weights {as_size(export['weights_bytes'])}, the largest tensor "
        f"{as_size(export['largest_tensor_bytes'])}"
    )
    if export["dtype"] != "float32":
        share = export["file_bytes"] / export["float32_file_bytes"]
        full = as_size(export["float32_file_bytes"])
        yield f"  Optimized: in {export['dtype']}, {share:.0%} of {full} in float32"
    fits = "within what every browser guarantees"
    if provider == Provider.WEBNN:
        fits = "within the engine's memory (of tensors, WebNN guarantees nothing)"
    yield f"  Limits: {export['too_large'] or f'{fits}: {sizes}'}"


def _simulation_lines(simulation: Mapping[str, Any]) -> Iterator[str]:
    yield f"  Simulated on the CPU: {_difference(simulation)}"
    absent = simulation["absent_operators"]
    if absent is not None:
        named = ", ".join(f"{name} {count}" for name, count in absent.items())
        told = f"computes on its CPU: {named}" if named else "has all operators"
        yield f"  Recorded: {simulation['recorded_browser']} {told}"


def _run_lines(run: Mapping[str, Any]) -> Iterator[str]:
    adapter = run["adapter"] or {}
    named = " ".join(adapter[key] for key in ("vendor", "architecture") if adapter.get(key))
    kind = f"{run['adapter_kind']} adapter" + (f": {named}" if named else "")
    yield f"  Run: {run['browser']} {run['browser_version']}, {kind}"
    placed = ", ".join(f"{count} on {name}" for name, count in run.get("nodes", {}).items())
    yield f"  Nodes: {placed or 'not told'}; {run['dispatches']} dispatches in a run"
    on_cpu = run.get("cpu_operators")
    if on_cpu:
        yield f"  On the CPU: {', '.join(f'{name} {count}' for name, count in on_cpu.items())}"
    yield (
        f"  Time: launch {run['launch_seconds']:.1f} s, load {run['load_ms']:.0f} ms, "
        f"first run {run['first_ms']:.0f} ms, median {run['median_ms']:.1f} ms"
    )
    yield f"  Compared with PyTorch: {_difference(run)}"


def _difference(facts: Mapping[str, Any]) -> str:
    allowed = f", {facts['tolerance']:g} passes" if facts["dtype"] != "float32" else ""
    return f"differs by {facts['difference']:.1e} of the greatest value{allowed}"


def _verdict(found: Mapping[str, Any]) -> str:
    if found["error"]:
        return f"It does not run: {found['error']}"
    if found["missing"]:
        return "It was not run in a browser."
    return "It runs in this browser as on PyTorch."
