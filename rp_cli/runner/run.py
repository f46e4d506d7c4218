"""A run of test files: which, how, and the record of it."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from rp_cli import __version__
from rp_cli.errors import BadInputError, OutputError
from rp_cli.runner.history import Past
from rp_cli.runner.learning import read_facts
from rp_cli.runner.process import run_child
from rp_cli.runner.results import Ending, FileResult, Watcher, file_result, is_failure
from rp_cli.runner.stopping import StopSignals
from rp_cli.runner.wishes import Wishes

SCHEMA_VERSION = 2
_BUILT = ("build", "dist", "node_modules", "venv")

Record = dict[str, Any]


def find_tests(paths: Sequence[Path]) -> list[Path]:
    """Return the test files named, and those (``test_*.py``) in and below the folders named.

    A file that is named twice is there once; those of a folder come before those below it.

    Raises:
        BadInputError: a path does not exist or is no Python file, or there is no test at all.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            advice = "-k picks tests by name" if "::" in str(path) else "`rp generate` writes tests"
            raise BadInputError(f"{path} does not exist; {advice}.")
        if not path.is_dir() and not (path.suffix == ".py" and path.is_file()):
            raise BadInputError(f"{path} is no Python file; name test files or their folder.")
        for file in _tests_in(path) if path.is_dir() else [path]:
            found.setdefault(file.resolve(), file)
    if not found:
        raise BadInputError(
            f"No test_*.py in {', '.join(map(str, paths))}; generate some with `rp generate`."
        )
    return list(found.values())


def _tests_in(top: Path) -> Iterator[Path]:
    """Yield the tests in a folder and below it, but for those of others: pytest leaves out such."""
    for here, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not _is_left_out(Path(here, name)))
        files = (Path(here, name) for name in sorted(names) if fnmatch(name, "test_*.py"))
        yield from (file for file in files if file.is_file())


def _is_left_out(folder: Path) -> bool:
    """Whether a folder holds what was built or installed, or is hidden."""
    built = folder.name.startswith((".", "__")) or folder.name in _BUILT
    return built or (folder / "pyvenv.cfg").is_file()


def new_record(files: Sequence[Path]) -> Record:
    """Return the record of a run that has not begun; it counts as interrupted until its end."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "run",
        "started_at": datetime.now(timezone.utc).isoformat(),
        "rp_version": __version__,
        "folder": str(Path.cwd()),
        "python": platform.python_version(),
        "host": platform.node(),
        "file_count": len(files),
        "interrupted": True,
        "signal": None,
        "files": [],
        "seconds": 0.0,
        "jobs": 1,
        "shared_models": 0,
        "stopped_early": False,
        "not_run": [],
        "notes": [],
        "error_reports": [],
    }


def run_tests(
    files: Sequence[Path],
    record: Record,
    *,
    timeout_seconds: float,
    environment: Mapping[str, str],
    jobs: int | None = None,
    selection: str = "",
    fail_fast: bool = False,
    history: Mapping[str, Past] | None = None,
    watcher: Watcher | None = None,
    cluster: str = "",
) -> None:
    """Run each file in a process of its own, and write into ``record``, file by file.

    Args:
        record: as ``new_record`` gives it.
        timeout_seconds: the deadline of each file; it is killed then with all that it started.
        environment: variables on top of this process's own.
        jobs: how many files run at once; None: as many as there are cores for.
        selection: which tests are meant, as ``parse_selection`` reads it.
        fail_fast: end the run at the first file that fails.
        history: what earlier runs say, as ``read_history`` gives it.
        watcher: is told what happens.
        cluster: the Ray cluster on which they run, as ``cluster_address`` gives it; "": here.

    Ctrl-C, SIGTERM and SIGHUP end the run: the record stays "interrupted", names the signal
    and holds the files that were done.

    Raises:
        OutputError: there is no folder for temporary files.
        BadInputError: the cluster cannot be used.
    """
    watcher = _Keeper(record, watcher or Watcher())
    with StopSignals() as stop, _temporary_folder() as folder:
        try:
            if _has_fork_server():
                wishes = Wishes(
                    folder, {**os.environ, **environment}, timeout_seconds, jobs, selection,
                    fail_fast, history or {},
                )  # fmt: skip
                _engine(cluster)(files, wishes, record, stop.__bool__, watcher)
            else:
                wishes = Wishes(Path(), environment, timeout_seconds, 1, selection, fail_fast)
                _one_by_one(files, record, wishes, stop, watcher)
            record["interrupted"] = False
        except KeyboardInterrupt:
            record["signal"] = stop.noted
    watcher.note_time()


def _engine(cluster: str) -> Callable[..., None]:
    """Return what runs files side by side, here or on a cluster."""
    if cluster:
        from rp_cli.runner.on_ray.engine import run_on_ray

        return partial(run_on_ray, address=cluster)
    from rp_cli.runner.planning import run_side_by_side

    return run_side_by_side


class _Keeper(Watcher):
    """Writes results into the record before somebody else is told."""

    def __init__(self, record: Record, other: Watcher) -> None:
        self._record, self._other, self._started = record, other, time.perf_counter()
        self.started, self.output = other.started, other.output  # type: ignore[method-assign]

    def note_time(self) -> None:
        self._record["seconds"] = time.perf_counter() - self._started

    def finished(self, result: FileResult) -> None:
        self._record["files"].append(result)
        self.note_time()
        self._other.finished(result)


def _has_fork_server() -> bool:
    """Whether workers can be driven over sockets with open files in messages: not on Windows."""
    return sys.platform != "win32"


def _temporary_folder() -> Any:
    try:
        return _Folder(prefix="rp_run_", ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(
            f"There is no folder for temporary files ({error}); name one with TMPDIR."
        ) from error


class _Folder(tempfile.TemporaryDirectory[str]):
    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def _one_by_one(
    files: Sequence[Path], record: Record, wishes: Wishes, stop: StopSignals, watcher: Watcher
) -> None:
    """Run the files one after the other, where workers cannot be driven."""
    for place, file in enumerate(files):
        record["not_run"] = list(map(str, files[place:]))
        result = run_one(
            file,
            wishes.timeout_seconds,
            wishes.environment,
            stop=stop.__bool__,
            options=(read_facts(file).style, wishes.selection),
        )
        watcher.finished(result)
        record["not_run"] = list(map(str, files[place + 1 :]))
        if wishes.fail_fast and is_failure(result):
            record["stopped_early"] = True
            return


def run_one(
    file: Path,
    timeout_seconds: float,
    environment: Mapping[str, str],
    output: int | None = None,
    errors: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    options: Sequence[str] = (),
) -> FileResult:
    """Run one file and return its result; a crash or a hang is a result too.

    ``output`` and ``errors`` are file descriptors for the child's stdout and stderr; None
    lets it share ours. ``options`` are style and selection, as ``child.main`` takes them.

    Raises:
        KeyboardInterrupt: ``stop``, which is asked all the time, said so.
    """
    with tempfile.TemporaryDirectory(prefix="rp_run_") as folder:
        result_file = Path(folder) / "result.json"
        outcome = run_child(
            file,
            result_file,
            deadline_seconds=timeout_seconds,
            environment={**os.environ, **environment},
            output=output,
            errors=errors,
            stop=stop,
            options=options,
        )
        late = f"timeout: not done after {timeout_seconds:g} s and killed"
        killed = late if outcome.kind == "timeout" else ""
        return file_result(
            file, result_file, Ending(outcome.returncode, outcome.seconds, killed=killed)
        )
