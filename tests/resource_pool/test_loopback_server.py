"""The server for our page: what it gives, to whom, and what it refuses."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from resource_pool.devices.loopback import LoopbackServer


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer()
    yield server
    server.close()


def ask(
    server: LoopbackServer, path: str, method: str = "GET", body: bytes | None = None, **headers
) -> tuple[int, bytes, dict[str, str]]:
    """Send a path as it is: no client of ours may tidy it up."""
    connection = http.client.HTTPConnection(server.host, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


def path_of(url: str) -> str:
    return "/" + url.split("/", 3)[3]


def test_what_is_offered_comes_isolated_and_with_its_type(server, tmp_path: Path):
    file = tmp_path / "engine.wasm"
    file.write_bytes(b"\0asm")
    status, body, headers = ask(server, path_of(server.offer("engine.wasm", file)))
    assert (status, body, headers["content-type"]) == (200, b"\0asm", "application/wasm")
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert ask(server, path_of(server.offer("bytes", b"12")))[:2] == (200, b"12")


def test_it_listens_on_the_loopback_interface_only(server):
    assert server.host.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/page.html", "/x/page.html", "//page.html", "/{token}/", "/{token}",
        "/{token}/../secret", "/{token}/%2e%2e/secret", "/{token}/./page.html",
        "/{token}/page.html/..", "/{token}//page.html", "/{token}/page.html?x",
        "/{token}/%70age.html", "/{token}x/page.html", "http://other/{token}/page.html",
        "/{token}/{folder}/secret", "/{token}/..\\secret",
    ],
)  # fmt: skip
def test_nothing_but_the_offered_names_is_found(server, tmp_path: Path, path: str):
    page = tmp_path / "served" / "page.html"
    page.parent.mkdir()
    page.write_text("page")
    (tmp_path / "secret").write_text("secret")
    token = path_of(server.offer("page.html", page)).split("/")[1]
    status, body, _ = ask(server, path.format(token=token, folder=str(tmp_path)))
    assert (status, body) == (404, b"")


def test_another_host_name_that_leads_here_is_refused(server):
    path = path_of(server.offer("page.html", b"page"))
    assert ask(server, path, Host="rebound.example")[0] == 404
    assert ask(server, path, Host=server.host)[0] == 200


def test_a_withdrawn_name_and_a_lost_file_are_not_found(server, tmp_path: Path):
    path = path_of(server.offer("input", b"page"))
    server.withdraw("input")
    assert ask(server, path)[0] == 404
    assert ask(server, path_of(server.offer("gone", tmp_path / "gone")))[0] == 404


def test_it_takes_what_is_expected_once_and_not_more(server):
    path = path_of(server.expect("output", 4))
    assert ask(server, path, "POST", b"12345")[0] == 404
    assert ask(server, path, "POST")[0] == 404
    assert ask(server, path.replace("output", "other"), "POST", b"1")[0] == 404
    assert ask(server, path, "POST", b"1234")[0] == 204
    assert server.take("output") == b"1234"
    with pytest.raises(KeyError):
        server.take("output")
    assert ask(server, path, "POST", b"1")[0] == 404


@pytest.mark.parametrize("length", ["²", "³1", "9" * 5000, "+4", "-4", "0x4", "1_0", "four", ""])
def test_a_length_that_is_none_is_answered_and_not_a_bug(server, length: str):
    path = path_of(server.expect("output", 4))
    assert ask(server, path, "POST", **{"Content-Length": length})[0] == 404


def test_two_servers_have_two_tokens(server):
    other = LoopbackServer()
    try:
        theirs = path_of(other.offer("page.html", b"page"))
        server.offer("page.html", b"page")
        assert ask(server, theirs)[0] == 404
    finally:
        other.close()
