"""What every request passes before it is answered: its host, its key, the key's limit, and the size of its body."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any

from starlette._utils import get_route_path  # as its router and FastAPI's read a path
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qiskit_qattn.serving.failures import Refusal, overloaded
from qiskit_qattn.untrusted import one_line

if TYPE_CHECKING:
    from qiskit_qattn.serving.service import Service

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_LOG = logging.getLogger("qiskit_qattn.serving")
_KEYED = "/v1/"  # paths below it need a key, wherever the application is mounted
_LOGGED = 200  # characters of a method or path


class Guard:
    """ASGI middleware that refuses requests, limits their bodies, and logs and counts all; it never logs a body.

    Args:
        app: The application that answers.
        service: Has the settings, keys, limits and metrics.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = f"req-{secrets.token_hex(12)}"
        state["headers"] = {}  # of the answer

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in state["headers"].items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            receive = await self._admitted(scope, receive)
        except Refusal as refusal:
            await refusal.response(scope, receive, answered)
        else:
            await self._app(scope, receive, answered)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            self._service.metrics.answered(route, status, seconds)
            key = getattr(state.get("key"), "name", "-")
            method, path = (one_line(scope[name])[:_LOGGED] for name in ("method", "path"))
            _LOG.info("%s %s %s key=%s %d %.0f ms", request_id, method, path, key, status, 1000 * seconds)

    async def _admitted(self, scope: Scope, receive: Receive) -> Receive:
        """Return what receives a request's body.

        Raises:
            Refusal: If it is not answered.
        """
        headers, state = Headers(scope=scope), scope["state"]
        self._check_host(headers)
        if get_route_path(scope).startswith(_KEYED) and scope["method"] != "OPTIONS":
            state["key"] = self._key(headers)
            if self._service.stopping:
                raise overloaded("The server is about to stop.")
            limit = await self._service.limits.charge(state["key"], "requests")
            state["headers"].update(limit.headers if limit else {})
        return await self._with_body(scope, headers, receive)

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that a page in a browser could have given this machine, while anyone may ask."""
        host = headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        settings = self._service.settings
        if settings.is_local and not self._service.keys and name not in (*_LOCAL_HOSTS, settings.host):
            raise Refusal(403, "A server without keys answers to localhost only.", code="unknown_host")

    def _key(self, headers: Headers) -> Any:
        """Return the key of a request, or None where none is needed."""
        keys = self._service.keys
        if not keys:
            return None
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            text = "You didn't provide an API key: send it as Authorization: Bearer KEY."
            raise Refusal(401, text, code="missing_api_key", headers={"www-authenticate": "Bearer"})
        key = keys.find(secret.strip())
        if key is None:
            text = "Incorrect API key provided."
            raise Refusal(401, text, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        return key

    async def _with_body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Return what receives the body, which was read whole, and then tells when the client leaves.

        Raises:
            Refusal: For a body that is too long, which is not read further, takes too long to come, or is not complete.
        """
        settings = self._service.settings
        most, declared = settings.max_body_bytes, headers.get("content-length", "0")
        too_long = Refusal(413, f"The body of a request can have at most {most:,} bytes.", code="request_too_large")
        if declared.isdecimal() and int(declared[:20]) > most:
            raise too_long
        body, more = bytearray(), "content-length" in headers or "transfer-encoding" in headers
        try:
            async with asyncio.timeout(settings.silent_seconds):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refusal(499, "The client left before its request was complete.")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise too_long
        except TimeoutError:
            text = f"The body of the request did not come within {settings.silent_seconds:g} s."
            raise Refusal(408, text, "timeout", headers={"connection": "close"}) from None
        return _received(bytes(body), receive)


def _received(body: bytes, receive: Receive) -> Receive:
    """Return a receiver of a whole body."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
