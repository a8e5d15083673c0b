"""Servers on the loopback, in threads of the test's process."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import openai
from typer.testing import CliRunner, Result

from qiskit_qattn.cli.app import app
from qiskit_qattn.serving.app import create_app
from qiskit_qattn.serving.connections import make_server
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.keys import Keys
from qiskit_qattn.serving.settings import Settings

T = TypeVar("T")
Serve = Callable[..., "Served"]


class Served:
    """A running server.

    Attributes:
        url: Its address.
        engine: Its first model's engine.
        service: What its application knows.
    """

    def __init__(self, url: str, engine: Engine, service: Any) -> None:
        self.url, self.engine, self.service = url, engine, service

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @contextmanager
    def client(self, key: str = "none", **options: Any) -> Iterator[openai.OpenAI]:
        """Yield the client that people use, without its own second tries."""
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options) as client:
            yield client


@contextmanager
def serving(engines: dict[str, Engine], settings: Settings, keys: Keys | None = None) -> Iterator[Served]:
    application = create_app(engines, settings, keys)
    server = make_server(application, settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", next(iter(engines.values())), application.state.service)
    finally:
        server.should_exit = True
        thread.join()


def until(found: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return the first true value, or the last one when time is up."""
    end = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < end:
        time.sleep(0.01)
    return value


def commanded(arguments: Sequence[object], talk: Callable[[str, Callable[[], None]], T]) -> tuple[Result, T]:
    """Run ``qattn serve`` in this process, and return its result and what ``talk`` returns.

    Args:
        arguments: Of the command.
        talk: Gets the server's address when it listens, in a thread of its own, and what stops it by SIGTERM, which
            happens when it returns, too.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said, stopped = list[T](), list[bool]()

    def stop() -> None:
        if not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    def client() -> None:
        if not until(lambda: answers(port) or ended, 120) or ended:
            return
        try:
            said.append(talk(f"http://127.0.0.1:{port}", stop))
        finally:
            stop()

    ended: list[Result] = []
    thread = threading.Thread(target=client)
    thread.start()
    result = CliRunner().invoke(app, ["serve", *map(str, arguments), "--port", str(port)])
    ended.append(result)
    thread.join()
    assert said, result.output
    return result, said[0]


def answers(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
