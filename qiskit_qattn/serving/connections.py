"""Connections of the HTTP server that say nothing, or take nothing, are closed.

uvicorn limits how long a connection may wait for its second request, not how long for its first, nor for the end of a
request's head; and its ``limit_concurrency`` would count silent connections and refuse requests of others.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from qiskit_qattn.serving.settings import Settings

_SPARE_FILES = 128  # for models, ledgers, clients of providers


class Connection(H11Protocol):
    """A connection that is closed when it waits for too long.

    Args:
        seconds: How long it may take for a request's head, between requests, and to take what was written.
        most: The most open connections; beyond it, the one that has waited the longest is closed.
        waiting: The connections that have no request, the longest waiting first; all connections share it.
        arguments: Those of uvicorn's ``H11Protocol``.
    """

    def __init__(self, *, seconds: float, most: int, waiting: dict[Connection, None], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._seconds, self._most, self._waiting = seconds, most, waiting
        self._silent: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request; where there are too many connections, close the one that has waited the longest."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self._most:
            (next(iter(self._waiting), self)).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take data; a head that comes in small pieces has no more time than one that comes at once."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._stop_watching()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(self._seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _watch(self) -> None:
        """Start or stop the time of a connection that waits for a request."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._silent is None and not self.transport.is_closing():
            self._waiting[self] = None
            self._silent = self.loop.call_later(self._seconds, self.transport.abort)

    def _stop_watching(self) -> None:
        self._waiting.pop(self, None)
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None


def make_server(app: ASGIApp, settings: Settings) -> uvicorn.Server:
    """Return uvicorn with the limits of the settings, to be run.

    Args:
        app: The application that answers.
        settings: The server's settings.
    """
    most = _allow_connections(settings.max_connections)
    protocol: Any = partial(Connection, seconds=settings.silent_seconds, most=most, waiting={})
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol,
        ws="none",
        access_log=False,
        server_header=False,
        log_level=settings.log_level,
        timeout_keep_alive=math.ceil(settings.silent_seconds),
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
    return uvicorn.Server(config)


def _allow_connections(most: int) -> int:
    """Raise this process's limit of open files for connections, and return how many of them fit."""
    with suppress(ImportError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = most + _SPARE_FILES
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft != resource.RLIM_INFINITY:
            most = max(2, min(most, soft - _SPARE_FILES))
    return most
