"""What WebGPU and WebNN have in common: they live in a browser.

A browser is started only when somebody asks for it (``machine.web``). Each is asked twice, as
users have it and with the flags that open the interfaces on systems for which it does not yet
vouch; each start is a child process with a deadline.

"Available" has the meaning that it has everywhere: a computation ran there and its result was
checked. It may have run on the CPU: the fact ``adapter`` tells "hardware" from "software" (an
emulated GPU) and from "unknown" (WebNN does not tell what computes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hardware_detection.answers import Answer, ProofError, ask
from hardware_detection.browsers import BROWSER_VARIABLE, Browser, find_browsers
from hardware_detection.environment import is_on
from hardware_detection.machine import Machine
from hardware_detection.names import WEBGPU
from hardware_detection.proofs.browser_devices import EXPERIMENTAL_FLAGS
from hardware_detection.record import ADAPTERS, Device, ProbeResult, Status

_TITLES = {"webgpu": "WebGPU", "webnn": "WebNN"}
_MODES = ("plain", "flags")
# Renderers that compute on the CPU, by the names that they give themselves.
_SOFTWARE = re.compile(
    r"swiftshader|llvmpipe|lavapipe|softpipe|basic render|\bwarp\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Trial:
    """One start of one browser: its checked answer, or why there is none."""

    browser: Browser
    mode: str
    answer: Answer | None
    problem: str = ""


def probe_browsers(machine: Machine, name: str) -> ProbeResult:
    """Return the record of WEBGPU or WEBNN."""
    variable = f"{name.upper()}_SIMULATION_ENABLED"
    simulated = is_on(machine.environ.get(variable))
    facts = {"simulated": simulated, "asked": machine.web}
    sources = {"simulated": variable, "asked": "the caller"}
    result = _probe(machine, name)
    note = f"; {variable} declares a simulation, which is not hardware" if simulated else ""
    return replace(
        result,
        reason=result.reason + note,
        facts={**result.facts, **facts},
        sources={**result.sources, **sources},
    )


def _probe(machine: Machine, name: str) -> ProbeResult:
    title = _TITLES[name]
    if not machine.web:
        reason = f"{title} needs a browser, and none was asked: unknown, counted as absent"
        return ProbeResult(name, "absent", f"{reason}; `rp detect --web` asks")
    if not machine.has_package("playwright"):
        reason = "playwright is not installed; run `pip install 'rp-toolchain[web]'`"
        return ProbeResult(name, "absent", reason)
    browsers = find_browsers(machine)
    if not browsers:
        return ProbeResult(name, "absent", _why_none(machine.environ.get(BROWSER_VARIABLE)))
    return judge(name, list(_trials(machine, name, browsers)))


def _why_none(chosen: str | None) -> str:
    if chosen:
        return f"{BROWSER_VARIABLE} names {chosen}, which is not there; correct or unset it"
    return (
        f"no Chromium, Chrome, Edge or Brave is installed; install one, or set {BROWSER_VARIABLE}"
    )


def _trials(machine: Machine, name: str, browsers: Sequence[Browser]) -> Iterator[Trial]:
    for browser in browsers:
        for mode in _MODES:
            try:
                answer = ask(machine, "browser", name, browser.path, mode)
            except ProofError as error:
                yield Trial(browser, mode, None, str(error))
                break  # a browser that crashes or hangs would only do so again
            yield Trial(browser, mode, answer)


def judge(name: str, trials: Sequence[Trial]) -> ProbeResult:
    """Return the record that the trials justify; the best device first."""
    devices = _devices(name, trials)
    adapters = [device.facts["adapter"] for device in devices if device.dtypes]
    facts = {
        "adapter": adapters[0] if adapters else None,
        "browsers": [
            {
                "name": trial.browser.name,
                "path": trial.browser.path,
                "flags": _flags(trial),
                "outcome": _outcome(name, trial),
                **(trial.answer.facts if trial.answer else {}),
            }
            for trial in trials
        ],
    }
    status, reason = _verdict(name, trials, devices)
    sources = dict.fromkeys(facts, "playwright")
    retry = any(trial.problem for trial in trials) or any(device.problem for device in devices)
    return ProbeResult(name, status, reason, devices, facts, sources, retry)


def _devices(name: str, trials: Sequence[Trial]) -> tuple[Device, ...]:
    """Return one device per browser, and without flags where it computes without them."""
    best: dict[Browser, Device] = {}
    for trial in trials:
        for device in trial.answer.devices if trial.answer else ():
            known = best.get(trial.browser)
            if known is None or not known.dtypes:
                best[trial.browser] = _described(name, trial, device)
    found = sorted(
        best.values(), key=lambda row: (not row.dtypes, ADAPTERS.index(row.facts["adapter"]))
    )
    return tuple(replace(device, index=index) for index, device in enumerate(found))


def _described(name: str, trial: Trial, device: Device) -> Device:
    version = trial.answer.facts.get("browser_version") if trial.answer else None
    facts = {
        "browser": trial.browser.name,
        "browser_path": trial.browser.path,
        "browser_version": version,
        "flags": _flags(trial),
        "adapter": adapter_kind(name, device),
    }
    title = f"{device.name} in {trial.browser.name} {version}"
    return replace(device, name=title, facts={**device.facts, **facts})


def adapter_kind(name: str, device: Device) -> str:
    """Return what computed: "hardware", "software" (the CPU, as a GPU), or "unknown".

    WebNN takes wishes ("gpu") and does not tell what became of them.
    """
    if name != WEBGPU:
        return "unknown"
    names = f"{device.name} {device.facts.get('architecture')}"
    if device.facts.get("is_fallback_adapter") or _SOFTWARE.search(names):
        return "software"
    return "hardware"


def _verdict(name: str, trials: Sequence[Trial], devices: Sequence[Device]) -> tuple[Status, str]:
    if any(device.dtypes for device in devices):
        return "available", _praise(devices[0])
    if devices:
        problem = devices[0].problem or "nothing could be computed"
        return "unusable", f"{problem}; update the browser and the GPU's driver"
    answered = [trial for trial in trials if trial.answer]
    if not answered:
        return "error", f"{trials[0].browser.name}: {trials[0].problem}; try it by hand"
    told = "; ".join(dict.fromkeys(_outcome(name, trial) for trial in answered))
    offered = any(trial.answer and trial.answer.facts.get("api") for trial in answered)
    return "unusable" if offered else "absent", f"{told}; try a newer browser or another one"


def _praise(device: Device) -> str:
    kinds = {
        "hardware": "on a GPU",
        "software": "on a software fallback, which is the CPU",
        "unknown": "on a device that it does not tell",
    }
    flags = "with experimental flags" if device.facts["flags"] else "as installed"
    return (
        f"{device.facts['browser']} {device.facts['browser_version']}, {flags}, computed a test"
        f" product correctly in {', '.join(device.dtypes)} {kinds[device.facts['adapter']]}"
    )


def _outcome(name: str, trial: Trial) -> str:
    how = "with flags" if trial.mode == "flags" else "without flags"
    if trial.answer is None:
        return trial.problem
    if trial.answer.proved:
        return f"computed {how}"
    if trial.answer.devices:
        return trial.answer.devices[0].problem
    if not trial.answer.facts.get("api"):
        return f"{trial.browser.name} has no {_TITLES[name]} {how}"
    missing = "adapter" if name == WEBGPU else "context"
    return f"{trial.browser.name} has {_TITLES[name]} {how}, but gives no {missing}"


def _flags(trial: Trial) -> list[str]:
    return list(EXPERIMENTAL_FLAGS) if trial.mode == "flags" else []
