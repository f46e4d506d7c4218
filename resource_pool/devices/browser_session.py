"""One headless browser with one page of ours in it, which computes what it is asked to.

Playwright's objects belong to the thread that made them: each browser has a thread of its own,
which takes jobs from a queue. Whoever waits for a job has a deadline; at its end the browser is
killed, which also ends the job. So are crashes and lost devices an error, and never a hang.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, NamedTuple

from resource_pool.devices.loopback import LoopbackServer
from resource_pool.errors import ComputationTimeoutError, UnsupportedOperationError, first_line

#: Seconds for a start of the browser, and for one job in it: a large model on an emulated GPU
#: takes minutes.
START_SECONDS = 60.0
JOB_SECONDS = 300.0
_CLOSE_SECONDS = 5.0
_PAGE = Path(__file__).parent / "web"
# The most bytes that one answer may have.
_MOST_OUTPUT = 4 << 30


class Program(NamedTuple):
    """A browser to start: its executable, and the flags with which it was proved to compute."""

    path: str
    flags: tuple[str, ...]
    name: str = ""


class _Job(NamedTuple):
    function: str
    argument: Mapping[str, Any]
    done: Future[Any]


class BrowserSession:
    """A running browser; it ends with :meth:`close`, when nobody refers to it, and at exit.

    Args:
        program: what to start.
        runtime: the folder with onnxruntime-web's files.
        deadline: seconds for one job.
        page: what is served in the place of our page: name -> file or bytes; "page.html" opens.
        inline: the texts of the scripts in that page itself that may run.

    Raises:
        UnsupportedOperationError: it does not start, or its page does not load.
        ComputationTimeoutError: it takes too long to.
    """

    def __init__(
        self,
        program: Program,
        runtime: Path,
        deadline: float = JOB_SECONDS,
        *,
        page: Mapping[str, Path | bytes] | None = None,
        inline: Sequence[str] = (),
    ) -> None:
        self.program = program
        self._deadline = deadline
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._turn = threading.Lock()  # held for a job, so that its time begins when it does
        self._owner = os.getpid()
        self._folder = tempfile.TemporaryDirectory(prefix="rp-web-")
        ours = {file.name: file for file in (*_PAGE.iterdir(), *runtime.iterdir())}
        self._server = LoopbackServer(inline)
        for name, content in {**ours, **(page or {})}.items():
            self._server.offer(name, content)
        started: Future[str] = Future()
        running = _Running(self._jobs)
        arguments = (program, self._server, self._folder, self._jobs, started, running)
        running.thread = threading.Thread(target=_serve, args=arguments, daemon=True)
        self._running = running
        # Only a word to its thread: garbage is collected at any moment, under any lock.
        weakref.finalize(self, self._jobs.put, None)
        _all_running.add(running)
        running.thread.start()
        begun = time.monotonic()
        self.version = self._wait(started, 2 * START_SECONDS, "start")
        self.launch_seconds = time.monotonic() - begun

    @property
    def folder(self) -> Path:
        """A folder that is deleted with the session, for what it serves."""
        return Path(self._folder.name)

    def offer(self, name: str, content: Path | bytes) -> str:
        """Serve a file or bytes to the page; returns the address."""
        return self._server.offer(name, content)

    def withdraw(self, name: str) -> None:
        """Serve a name no more."""
        self._server.withdraw(name)

    def expect(self, name: str) -> str:
        """Let the page send one answer to a name; returns the address."""
        return self._server.expect(name, _MOST_OUTPUT)

    def take(self, name: str) -> bytes:
        """Return what the page has sent."""
        return self._server.take(name)

    def call(self, function: str, argument: Mapping[str, Any]) -> Any:
        """Run one of the page's functions and return its answer.

        Raises:
            UnsupportedOperationError: it failed there, its device was lost, or the browser ended.
            ComputationTimeoutError: no answer within the deadline; the browser was killed.
        """
        if os.getpid() != self._owner:
            raise UnsupportedOperationError(
                "The browser belongs to the process that placed the model; load it in this one."
            )
        job = _Job(function, argument, Future())
        with self._turn:
            self._jobs.put(job)
            if self._running.ended.is_set():
                _refuse(self._jobs)
            return self._wait(job.done, self._deadline, function)

    def memory(self) -> int:
        """Return the bytes of RAM that the browser's processes take now; 0 where unknown."""
        return sum(_private_bytes(process) for process in self._running.processes())

    def kill(self) -> None:
        """End the browser's processes at once."""
        self._running.kill()

    def close(self) -> None:
        """End the browser and delete what it was served."""
        self._running.close()

    def _wait(self, done: Future[Any], seconds: float, what: str) -> Any:
        try:
            return done.result(seconds)
        except FutureTimeoutError:
            self.kill()
            raise ComputationTimeoutError(
                f"The browser did not {what} within {seconds:.0f} s and was killed; "
                "load the model again, or on device='cpu'."
            ) from None
        except _JobError as error:
            raise UnsupportedOperationError(f"In the browser: {error}{self._remedy()}.") from None
        except BaseException:  # nobody waits for its answer any longer, and it may hang
            self.kill()
            raise

    def _remedy(self) -> str:
        if self._running.process is None or self._running.process.is_running():
            return ""
        return "; it has ended: clear() drops its models, move_model_to_device brings one back"


class _JobError(Exception):
    """What went wrong in the browser, in one line."""


class _Running:
    """What is left of a session when nobody refers to it: its thread, and the browser's process.

    psutil knows a process by its start, too: a number that was given anew is nobody's to kill.
    """

    def __init__(self, jobs: queue.SimpleQueue[_Job | None]) -> None:
        self._jobs = jobs
        self._owner = os.getpid()
        self.thread = threading.Thread()
        self.ended = threading.Event()  # its thread takes no more jobs
        self.process: Any = None

    def processes(self) -> Sequence[Any]:
        import psutil

        with contextlib.suppress(psutil.Error):
            if self.process is not None:
                return (*self.process.children(recursive=True), self.process)
        return ()

    def kill(self) -> None:
        import psutil

        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def close(self) -> None:
        if os.getpid() != self._owner:
            return
        self._jobs.put(None)
        if self.thread.is_alive():
            self.thread.join(_CLOSE_SECONDS)
        self.kill()


_all_running: weakref.WeakSet[_Running] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for running in list(_all_running):
        running.close()


def _serve(
    program: Program,
    server: LoopbackServer,
    folder: tempfile.TemporaryDirectory[str],
    jobs: queue.SimpleQueue[_Job | None],
    started: Future[str],
    running: _Running,
) -> None:
    """Start a browser and do the jobs, one after the other, until there is None."""
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=program.path,
                headless=True,
                args=list(program.flags),
                timeout=START_SECONDS * 1000,
            )
            running.process = _process_of(browser)
            page = _open(browser, server.url("page.html"))
            started.set_result(browser.version)
            _work(page, jobs)
            browser.close()
    except Exception as error:
        if not started.done():
            started.set_exception(_JobError(_told(error)))
    finally:
        server.close()
        folder.cleanup()
        # In this order: a job that comes after the refusal finds the event set.
        running.ended.set()
        _refuse(jobs)


def _work(page: Any, jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job.done.set_result(page.evaluate(f"rp.{job.function}", dict(job.argument)))
        except Exception as error:  # Playwright's, or what its own process died of
            job.done.set_exception(_JobError(_told(error)))


def _refuse(jobs: queue.SimpleQueue[_Job | None]) -> None:
    """Answer what came too late for the browser's thread."""
    with contextlib.suppress(queue.Empty):
        while True:
            job = jobs.get_nowait()
            if job is not None:
                job.done.set_exception(_JobError("it has ended"))


def _open(browser: Any, url: str) -> Any:
    """Return our page, its module loaded."""
    from playwright.sync_api import TimeoutError as NotYetError

    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            page.wait_for_function("globalThis.rp", timeout=1000)
        except NotYetError as error:
            if problems or time.monotonic() > deadline:
                raise _JobError("; ".join(problems) or _told(error)) from None
        else:
            return page


def _process_of(browser: Any) -> Any:
    """Return the browser's process, which Playwright does not tell, but the browser does."""
    import psutil

    told = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")
    (pid,) = (one["id"] for one in told["processInfo"] if one["type"] == "browser")
    return psutil.Process(pid)


def _told(error: Exception) -> str:
    return first_line(error).removeprefix("Page.evaluate: ").removeprefix("Error: ")[:300]


def _private_bytes(process: Any) -> int:
    """Return a process's memory, of which shared pages count in part where the system tells."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        full = process.memory_full_info()
        return int(getattr(full, "pss", None) or full.uss)
    return 0
