"""rp in pytest: the pool, the hardware and models as fixtures, a marker, a word at the end.

- ``resource_pool``: the pool of this process; ``hardware``: the detection report;
- ``model(name)`` and ``tokenizer(name)``: load through the pool, leased until the test ends;
- ``@pytest.mark.requires_hardware("cuda", vram="40GiB")``: skips with the reason elsewhere;
- the pool's statistics, and which test changed a shared model, in the terminal summary and as
  properties in JUnit XML;
- ``pytest -n N --dist loadgroup`` (pytest-xdist): tests of one model go to one worker.

pytest imports this at every start: everything of ours is imported where it is used.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from resource_pool import ResourcePool

_MARKER = "requires_hardware"
_STATISTICS = pytest.StashKey[dict[str, dict[str, Any]]]()
_CHANGED = pytest.StashKey[list[str]]()
_SEEN = pytest.StashKey[int]()

Factory = Callable[..., Any]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f'{_MARKER}(*names, **sizes): skip unless the machine has them, such as "cuda", '
        '"cuda>=2", vram="40GiB".',
    )
    config.stash[_STATISTICS] = {}
    config.stash[_CHANGED] = []


# -- fixtures --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def resource_pool() -> ResourcePool:
    """The pool of this process: each model is loaded once."""
    from resource_pool import get_global_resource_pool

    return get_global_resource_pool()


@pytest.fixture(scope="session")
def hardware() -> dict[str, Any]:
    """What this machine can compute on, as ``detect_available_hardware`` reports it."""
    from hardware_detection import detect_available_hardware

    return detect_available_hardware()


@pytest.fixture
def model(resource_pool: ResourcePool) -> Iterator[Factory]:
    """Load models: ``model(name, preferences=None, *, auto_class=None)``.

    Real weights where they are or may be fetched, else a tiny random twin (``RP_WEIGHTS``); on
    the hardware that suits, unless ``preferences`` or TEST_HARDWARE_PREFERENCES say otherwise.
    Each is leased until the test ends: nothing evicts it, and a test that changes it is named.
    """
    with contextlib.ExitStack() as leases:

        def load(name: str, preferences: Any = None, *, auto_class: str | None = None) -> Any:
            lease = _lease(resource_pool, name, preferences, auto_class)
            return leases.enter_context(lease)

        yield load


@pytest.fixture
def tokenizer(resource_pool: ResourcePool) -> Factory:
    """Load tokenizers: ``tokenizer(name)``, of the weights that ``model(name)`` has."""

    def load(name: str, *, auto_class: str = "AutoTokenizer") -> Any:
        family, weights, _ = _located(name, None)

        def construct() -> Any:
            import transformers

            loader = getattr(transformers, auto_class).from_pretrained
            return loader(str(weights.path), trust_remote_code=False)

        variant = f"{auto_class}-{weights.kind}"
        return resource_pool.get_tokenizer(family, name, construct, variant=variant)

    return load


def _lease(pool: ResourcePool, name: str, preferences: Any, auto_class: str | None) -> Any:
    from resource_pool import preferences_from_environment

    family, weights, auto_class = _located(name, auto_class)

    def construct() -> Any:
        import transformers

        loader = getattr(transformers, auto_class).from_pretrained
        return loader(str(weights.path), use_safetensors=True, trust_remote_code=False)

    return pool.lease(
        family,
        name,
        construct,
        preferences_from_environment(preferences or {}),
        variant=f"{auto_class}-{weights.kind}",
    )


def _located(name: str, auto_class: str | None) -> tuple[str, Any, str]:
    """Return a model's family, its weights, and the class of transformers that loads them."""
    from resource_pool.weights import locate_weights
    from rp_cli.modeldb.user_database import classified

    known = classified(name)
    chosen = auto_class or str(known["auto_class"])
    weights = locate_weights(name, auto_class=chosen, model_type=known["model_type"])
    return known["family"], weights, chosen


# -- the marker ------------------------------------------------------------------------------


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, with what is missing."""
    for mark in item.iter_markers(_MARKER):
        missing = _missing(mark)
        if missing:
            pytest.skip("; ".join(missing))


def _missing(mark: pytest.Mark) -> list[str]:
    from hardware_detection import RequirementError, detect_available_hardware
    from hardware_detection.requirements import parse, unmet

    sizes = (f"{name}>={value}" for name, value in mark.kwargs.items())
    try:
        clauses = [clause for text in (*mark.args, *sizes) for clause in parse(str(text))]
    except RequirementError as error:
        wrong = str(error)
    else:
        return unmet(tuple(clauses), detect_available_hardware())
    # Outside the except block, or pytest tells the cause too, which is the same sentence.
    pytest.fail(f"{_MARKER}: {wrong}", pytrace=False)


# -- one worker per model --------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let ``--dist loadgroup`` take the first model that a file names for the group of its tests.

    The scheduler reads it from the file, as the tests' own marks reach it through their ids
    alone. A test with a mark of its own (``xdist_group``) keeps that group.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]

    from rp_cli.runner.learning import first_model

    known: dict[str, str | None] = {}

    class ByModel(LoadGroupScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            group = str(super()._split_scope(nodeid))
            file = nodeid.partition("::")[0]
            if file not in known:
                known[file] = first_model(config.rootpath / file)
            return known[file] or group if group == nodeid else group

    return ByModel(config, log)


# -- what is told ----------------------------------------------------------------------------


def _pool() -> ResourcePool | None:
    """Return the pool of this process where one was used; it is not made for the question."""
    module = sys.modules.get("resource_pool._global")
    return getattr(module, "_global_pool", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note where the pool's events stood when the test began."""
    pool = _pool()
    item.stash[_SEEN] = len(pool.events()) if pool is not None else 0
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Note, for JUnit XML and the summary, where a test's models ran and which it changed."""
    try:
        return (yield)
    finally:
        for event in _new_events(item):
            if event.what == "place":
                where = f"{event.numbers.get('device')} {event.numbers.get('dtype')}"
                told = f"{event.key} on {where}, {event.numbers.get('weights')} weights"
                item.user_properties.append(("rp_model", told))
            elif event.what == "mutated":
                told = f"{event.key} ({event.reason})"
                item.user_properties.append(("rp_changed", told))
                item.config.stash[_CHANGED].append(f"{item.nodeid} changed {told}")


def _new_events(item: pytest.Item) -> list[Any]:
    pool = _pool()
    return pool.events()[item.stash.get(_SEEN, 0) :] if pool is not None else []


def _statistics(config: pytest.Config) -> dict[str, Any]:
    pool = _pool()
    if pool is None:
        return {}
    stats = pool.get_stats()
    if not stats["total_requests"]:
        return {}
    return {
        "hits": stats["hits"],
        "misses": stats["misses"],
        "models": stats["cached_models"],
        "memory_mb": round(stats["memory_usage_mb"], 1),
        "evictions": stats["management"]["evictions"],
        "changed": config.stash[_CHANGED],
    }


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep the statistics of this process; an xdist worker sends them to who asked.

    pytest writes its JUnit XML in this hook too, and later: the statistics are in it.
    """
    config = session.config
    statistics, output = _statistics(config), getattr(session.config, "workeroutput", None)
    if output is not None:
        output["rp_statistics"] = statistics
        return
    if statistics:
        config.stash[_STATISTICS]["pool"] = statistics
    for plugin in config.pluginmanager.get_plugins():
        if hasattr(plugin, "add_global_property"):
            for name, facts in config.stash[_STATISTICS].items():
                plugin.add_global_property(f"rp_{name.replace(' ', '_')}", _in_words(facts))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what an xdist worker sends at its end."""
    statistics = getattr(node, "workeroutput", {}).get("rp_statistics")
    if statistics:
        node.config.stash[_STATISTICS][f"pool of {node.gateway.id}"] = statistics


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what the pools did, and which models were changed by a test."""
    for name, facts in config.stash[_STATISTICS].items():
        terminalreporter.section(f"rp: {name}")
        terminalreporter.line(_in_words(facts))
        for change in facts["changed"]:
            terminalreporter.line(change, yellow=True)


def _in_words(facts: dict[str, Any]) -> str:
    return (
        f"{facts['hits']} hits, {facts['misses']} misses, {facts['models']} models cached, "
        f"{facts['memory_mb']} MB, {facts['evictions']} evictions"
    )
