"""Servers on the loopback, in threads of the test's process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai

from qiskit_qattn.serving.app import create_app
from qiskit_qattn.serving.connections import make_server
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.keys import Keys
from qiskit_qattn.serving.settings import Settings

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
    app = create_app(engines, settings, keys)
    server = make_server(app, settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", next(iter(engines.values())), app.state.service)
    finally:
        server.should_exit = True
        thread.join()


def until(found: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return the first true value, or the last one when time is up."""
    end = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < end:
        time.sleep(0.01)
    return value
