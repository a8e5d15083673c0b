"""Clients that do what no client should: the server answers clearly, stays small, and goes on serving others."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx2
import openai
import psutil
import pytest

from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.models import load
from qiskit_qattn.serving.settings import Settings

from .servers import Serve, Served, commanded, serving, until

LONG = {"model": "verse", "prompt": "the", "max_tokens": 100_000, "stream": True}
ROOM = {"max_tokens": 100_000}


@pytest.fixture(scope="module")
def lasting(finished_run: Path) -> Iterator[Served]:
    with serving({"verse": Engine(load(str(finished_run)))}, Settings(port=0, log_level="critical")) as found:
        yield found


def works(served: Served) -> bool:
    """Return whether the server answers somebody else, within ten seconds."""
    body = {"model": "verse", "prompt": "the", "max_tokens": 2}
    answer = httpx2.post(f"{served.url}/v1/completions", json=body, timeout=10)
    return answer.status_code == 200 and len(answer.json()["choices"][0]["text"]) == 2


def connect(served: Served, data: bytes = b"", seconds: float = 10.0) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", served.port), seconds)
    connection.sendall(data)
    return connection


def head(length: int, path: str = "/v1/completions") -> bytes:
    fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode()


def ended(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection."""
    found = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            found += data
    return found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"[" * 200_000,
        b"1" * 10_000,
        b'{"model": "verse", "prompt": "a", "temperature": NaN}',
        b'{"model": "verse", "prompt": "a", "temperature": 1e999}',
        b'{"model": "verse", "prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"model": "verse", "prompt": "\\ud800"}',
        b'{"model": "verse", "prompt": "a", "\\udfff": 1}',
        b'{"model": "verse", "prompt": "a", "stop": "\\udfff"}',
        b'{"model": "verse", "prompt": "\xff"}',
        b'{"model": "verse", "prompt": {"a": 1}}',
        b'{"model": "verse", "prompt": [[1], "a"]}',
        b'{"model": "verse", "prompt": [1.5]}',
        b'{"model": "verse", "prompt": [-1]}',
        b'{"model": "verse", "prompt": "a", "stream": "yes"}',
        b'{"model": "verse", "prompt": "a", "logit_bias": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    ],
    ids=lambda body: repr(body[:60]),
)
def test_a_body_that_is_no_request_is_told_so(lasting: Served, body: bytes) -> None:
    answer = httpx2.post(
        f"{lasting.url}/v1/completions", content=body, headers={"content-type": "application/json"}, timeout=10
    )
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (
        error["type"] == "invalid_request_error" and 0 < len(error["message"]) < 1100 and "\n" not in error["message"]
    )


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_body_of_another_type_is_told_which_it_must_have(lasting: Served, kind: str | None) -> None:
    # None of these types needs a browser's leave, so a page of another origin could send them.
    headers = {} if kind is None else {"content-type": kind}
    answer = httpx2.post(f"{lasting.url}/v1/completions", content=json.dumps(LONG), headers=headers, timeout=10)
    assert answer.status_code == 400 and "Content-Type: application/json" in answer.json()["error"]["message"]


def test_a_body_that_breaks_off_is_no_request(lasting: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "qiskit_qattn.serving")
    before = lasting.engine.stats()["requests"]
    body = json.dumps(LONG).encode()
    connect(lasting, head(len(body) + 1) + body).close()
    assert until(lambda: "/v1/completions key=- 499" in caplog.text)
    assert lasting.engine.stats()["requests"] == before


def test_a_long_method_is_not_logged_whole(lasting: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "qiskit_qattn.serving")
    with closing(connect(lasting, b"X" * 50_000 + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n")) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 405 ")
    assert until(lambda: " 405 " in caplog.text) and len(caplog.text) < 1000


def test_too_many_prompts_are_refused_before_they_are_made_into_tokens(lasting: Served) -> None:
    body = {"model": "verse", "prompt": ["№"] * 1000}  # which no token is
    answer = httpx2.post(f"{lasting.url}/v1/completions", json=body, timeout=10)
    assert answer.status_code == 400 and "1,000 prompts" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 200_000,
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda data: repr(data[:50]),
)
def test_what_is_no_http_ends_its_connection_only(lasting: Served, data: bytes) -> None:
    with closing(connect(lasting)) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        found = ended(connection)
    assert not found or b" 400 " in found.split(b"\r\n")[0]
    assert works(lasting)


def test_a_body_of_a_hundred_megabytes_is_refused_and_not_kept(lasting: Served) -> None:
    with closing(connect(lasting, head(100_000_000))) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")  # before a byte of it was sent
    process, most = psutil.Process(), 0
    before = process.memory_info().rss

    def pieces() -> Iterator[bytes]:
        nonlocal most
        for i in range(1600):
            yield b" " * 65536
            if i % 100 == 0:
                most = max(most, process.memory_info().rss)

    for headers in ({}, {"content-length": str(1600 * 65536)}):
        answer = httpx2.post(f"{lasting.url}/v1/completions", content=pieces(), headers=headers, timeout=30)
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "request_too_large"
    assert most - before < 50_000_000
    assert works(lasting)


def test_connections_that_say_nothing_are_closed_and_others_served(serve: Serve) -> None:
    check_silent(serve(silent_seconds=1.5), 300, 300)


def test_the_longest_silent_makes_way_when_there_are_too_many(serve: Serve) -> None:
    check_silent(serve(max_connections=100, silent_seconds=1.5), 250, 100)


@pytest.mark.more
def test_a_thousand_connections_that_say_nothing(serve: Serve) -> None:
    check_silent(serve(silent_seconds=5.0), 1000, 1000)


def check_silent(served: Served, count: int, most: int) -> None:
    """Open silent connections, some of which began a request, and check that others are served meanwhile and after."""
    here = psutil.Process()
    before = here.memory_info().rss
    with ExitStack() as stack:
        begun = (b"", b"GET / HTTP/1.1\r\nHos")
        silent = [stack.enter_context(closing(connect(served, begun[i % 2]))) for i in range(count)]
        assert works(served)
        ports = [each.laddr.port for each in here.net_connections() if each.status == "ESTABLISHED"]
        assert ports.count(served.port) <= most + 1
        assert here.memory_info().rss - before < 100_000_000
        for connection in silent:
            connection.settimeout(20)
            assert ended(connection) == b""
    assert works(served)


def test_a_head_or_body_in_small_pieces_has_no_more_time(serve: Serve) -> None:
    served = serve(silent_seconds=0.6)
    slow_head, slow_body = connect(served, b"GET / HT"), connect(served, head(100) + b"{")
    with closing(slow_head), closing(slow_body):
        start = time.monotonic()
        found = {slow_head: b"", slow_body: b""}
        for connection in found:
            connection.settimeout(0.1)
        waiting = list(found)
        while waiting and time.monotonic() - start < 15:
            for connection in list(waiting):
                try:
                    connection.sendall(b" ")
                    found[connection] += connection.recv(65536)
                except TimeoutError:
                    continue
                except (BrokenPipeError, ConnectionResetError):
                    waiting.remove(connection)
        assert not waiting
        assert found[slow_head] == b"" and found[slow_body].startswith(b"HTTP/1.1 408 ")
    assert works(served)


@pytest.mark.more
def test_a_client_that_does_not_read_is_cut_off(serve: Serve) -> None:
    served = serve(silent_seconds=0.5, **ROOM)
    body = json.dumps(LONG | {"n": 16}).encode()
    connection = socket.socket()
    with closing(connection):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        connection.sendall(head(len(body)) + body)
        assert until(lambda: served.engine.stats()["running"] == 16)
        assert works(served)
        assert until(lambda: served.engine.stats()["cancelled"] == 16)


def test_a_full_queue_says_when_to_come_again(serve: Serve) -> None:
    served = serve(engine={"max_batch": 1, "max_queue": 2}, **ROOM)
    with served.client() as client, ExitStack() as stack:
        running = stack.enter_context(client.completions.create(**LONG))  # type: ignore[call-overload]
        next(iter(running))
        for _ in range(2):
            stack.enter_context(closing(connect(served, head(len(body := json.dumps(LONG).encode())) + body)))
        assert until(lambda: served.engine.stats()["queued"] == 2)
        with pytest.raises(openai.InternalServerError) as refused:
            client.completions.create(model="verse", prompt="the")
        assert refused.value.status_code == 503 and refused.value.code == "overloaded"
        assert int(refused.value.response.headers["retry-after"]) >= 1
        with pytest.raises(openai.InternalServerError):
            client.completions.create(**LONG)  # type: ignore[call-overload]
        assert [model.id for model in client.models.list()] == ["verse"]
    assert until(lambda: served.engine.stats()["running"] + served.engine.stats()["queued"] == 0)
    assert works(served)


def test_an_answer_that_takes_too_long_ends_with_an_error(serve: Serve) -> None:
    served = serve(request_seconds=0.5, **ROOM)
    with served.client() as client:
        with pytest.raises(openai.APIStatusError) as refused:
            client.completions.create(**LONG | {"stream": False})
        assert refused.value.status_code == 504 and refused.value.code == "timeout"
        with pytest.raises(openai.APIError, match=r"not complete after 0\.5 s"):
            for _ in client.completions.create(**LONG):  # type: ignore[call-overload]
                pass
    assert until(lambda: served.engine.stats()["running"] == 0)
    assert works(served)


@contextmanager
def process(run: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    """Yield a process of ``qattn serve`` and a client of it."""
    command = [sys.executable, "-c", "from qiskit_qattn.cli.main import main; main()", "serve", f"verse={run}"]
    options = ["--port", "0", "--max-tokens", "100000"]
    log = folder / "log"
    with log.open("w") as errors:
        served = subprocess.Popen([*command, *options], stderr=errors, text=True)
        try:
            with openai.OpenAI(base_url=f"{listening(served, log)}/v1", api_key="-", max_retries=0) as client:
                yield served, client
        finally:
            served.kill()
            served.wait()


def listening(process: subprocess.Popen[str], log: Path) -> str:
    def address() -> str:
        assert process.poll() is None, log.read_text()
        _, found, rest = log.read_text().partition(" at ")
        return rest.split()[0] if found and "\n" in rest else ""

    return str(until(address, 60))


def test_sigterm_lets_answers_end(finished_run: Path) -> None:
    def talk(url: str, stop: Callable[[], None]) -> list[openai.types.Completion]:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client:
            stream = iter(client.completions.create(**LONG | {"max_tokens": 2000}))  # type: ignore[call-overload]
            pieces = [next(stream)]
            stop()
            pieces += stream
            with pytest.raises(openai.APIConnectionError):
                client.models.list()
        return pieces

    result, pieces = commanded([f"verse={finished_run}", "--max-tokens", 100_000], talk)
    assert result.exit_code == 0, result.output
    assert "Serving verse at http://127.0.0.1:" in result.stderr
    assert len("".join(piece.choices[0].text for piece in pieces)) == 2000
    assert pieces[-1].choices[0].finish_reason == "length" and pieces[-1].qattn["backends"]


@pytest.mark.more
def test_a_killed_server_is_an_error(finished_run: Path, tmp_path: Path) -> None:
    with process(finished_run, tmp_path) as (served, client):
        stream = iter(client.completions.create(**LONG))  # type: ignore[call-overload]
        next(stream)
        served.send_signal(signal.SIGKILL)
        with pytest.raises((openai.APIError, httpx2.HTTPError)):
            for _ in stream:
                pass
