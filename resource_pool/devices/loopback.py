"""A web server for one page on this machine: names that were offered, and nothing else.

It listens on the loopback interface at a port of the system's choice. Every path begins with a
token that cannot be guessed, and is compared with the offered names as a whole: no path is ever
joined to a folder, so that none leads out of one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Python refuses to read numbers of thousands of digits.
_MOST_DIGITS = 18
_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".json": "application/json",
    ".mjs": "text/javascript", ".wasm": "application/wasm",
}  # fmt: skip
_HEADERS = {
    # Together they isolate the page, which is what shared memory is given for.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The page reaches this server only. (The engine compiles code, some of it from strings.)
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' blob: 'unsafe-eval'{inline}; "
        "worker-src 'self' blob:; connect-src 'self'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class LoopbackServer:
    """Serves what is offered to whoever knows the token, and takes what is expected.

    Args:
        inline: the texts of the scripts that stand in a page itself; no others of that sort run.
    """

    def __init__(self, inline: Sequence[str] = ()) -> None:
        allowed = "".join(f" 'sha256-{_digest(script)}'" for script in inline)
        self.headers = {name: text.replace("{inline}", allowed) for name, text in _HEADERS.items()}
        self._token = secrets.token_urlsafe(24)
        self._offered: dict[str, Path | bytes] = {}
        self._expected: dict[str, int] = {}
        self._received: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    @property
    def host(self) -> str:
        """Address and port, as a browser writes them into its Host header."""
        return f"127.0.0.1:{self._server.server_port}"

    def url(self, name: str) -> str:
        """Return the address of an offered or expected name."""
        return f"http://{self.host}/{self._token}/{name}"

    def offer(self, name: str, content: Path | bytes) -> str:
        """Serve a file or some bytes under a name; returns the address."""
        self._offered[name] = content
        return self.url(name)

    def withdraw(self, name: str) -> None:
        """Serve a name no more."""
        self._offered.pop(name, None)

    def expect(self, name: str, most: int) -> str:
        """Let one body of at most ``most`` bytes be sent to a name; returns the address."""
        self._expected[name] = most
        return self.url(name)

    def take(self, name: str) -> bytes:
        """Return what was sent to an expected name.

        Raises:
            KeyError: nothing was sent.
        """
        self._expected.pop(name, None)
        return self._received.pop(name)

    def close(self) -> None:
        """Serve nothing more."""
        self._server.shutdown()
        self._server.server_close()

    def found(self, path: str, host: str | None) -> str | None:
        """Return the name that a request's path means; None for a stranger's request."""
        _, token, name = [*path.split("/", 2), "", ""][:3]
        # Another host name that leads here is another site's attempt to talk to us.
        known = host == self.host and hmac.compare_digest(token.encode(), self._token.encode())
        return name if known else None

    def offered(self, name: str) -> Path | bytes | None:
        """Return what is served under a name."""
        return self._offered.get(name)

    def receive(self, name: str, length: int, read: Callable[[int], bytes]) -> bool:
        """Take a body that is expected and not too long; returns whether it was."""
        if not 0 <= length <= self._expected.get(name, -1):
            return False
        body = read(length)
        if len(body) == length:
            self._received[name] = body
        return len(body) == length


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _length(text: str) -> int:
    """Return a length as HTTP writes it; -1 for anything else, such as "²", or longer ones."""
    plain = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if plain else -1


def _handler(server: LoopbackServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        # Or the body waits until the header before it has been acknowledged, about 40 ms.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            name = server.found(self.path, self.headers.get("Host"))
            content = None if name is None else server.offered(name)
            if name is None or content is None:
                self._answer(404)
            elif isinstance(content, bytes):
                self._answer(200, name, len(content))
                self._write(content)
            else:
                self._send_file(name, content)

        def do_POST(self) -> None:
            name = server.found(self.path, self.headers.get("Host"))
            length = _length(self.headers.get("Content-Length", ""))
            taken = name is not None and server.receive(name, length, self.rfile.read)
            # A body that was not read would be taken for the next request.
            self.close_connection = not taken
            self._answer(204 if taken else 404)

        def _send_file(self, name: str, path: Path) -> None:
            try:
                stream = path.open("rb")
            except OSError:
                self._answer(404)
                return
            with stream:
                self._answer(200, name, path.stat().st_size)
                with contextlib.suppress(ConnectionError):
                    shutil.copyfileobj(stream, self.wfile, 1 << 20)

        def _answer(self, status: int, name: str = "", length: int = 0) -> None:
            self.send_response_only(status)
            for header, value in server.headers.items():
                self.send_header(header, value)
            if status != 204:
                kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(length))
            self.end_headers()

        def _write(self, content: bytes) -> None:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass  # nobody asked

    return Handler
