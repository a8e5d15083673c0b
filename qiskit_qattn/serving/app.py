"""The HTTP application: OpenAI's API for models with circuits, health, metrics, and a page to try it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from qiskit_qattn import __version__
from qiskit_qattn.serving.answers import Answer
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.failures import ERRORS, Refusal, as_refusal
from qiskit_qattn.serving.guard import Guard
from qiskit_qattn.serving.health import health, model_entry, stopped
from qiskit_qattn.serving.keys import Keys
from qiskit_qattn.serving.metrics import CONTENT_TYPE
from qiskit_qattn.serving.schemas import ChatRequest, CompletionRequest
from qiskit_qattn.serving.service import Service
from qiskit_qattn.serving.settings import Settings
from qiskit_qattn.serving.trial_page import trial_page

T = TypeVar("T")
_STREAMED = {"description": "A text, or with `stream` its pieces.", "content": {"text/event-stream": {}}}


def create_app(engines: Mapping[str, Engine], settings: Settings, keys: Keys | None = None) -> FastAPI:
    """Return the application that serves models.

    Its page of documentation is ``/openapi.json`` alone: FastAPI's pages load scripts from the network.

    Args:
        engines: By the name that clients use.
        settings: The server's.
        keys: The keys of clients; None reads those that ``settings.keys`` and the environment name.

    Raises:
        ConfigError: For keys or a storage of limits that cannot be used.
    """
    service = Service(engines, settings, keys)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.stop()

    app = FastAPI(
        title="qattn serve",
        description="Language models with quantum attention heads, behind OpenAI's API.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    for kind in (Refusal, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refused)
    app.add_middleware(Guard, service=service)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    _add_api(app, service)
    _add_pages(app, service)
    return app


def _add_api(app: FastAPI, service: Service) -> None:
    """Add OpenAI's routes."""
    guarded: Any = {"dependencies": [Security(HTTPBearer(auto_error=False))], "responses": ERRORS}
    texts: Any = guarded | {"responses": ERRORS | {200: _STREAMED}}
    created = service.started

    @app.get("/v1/models", **guarded)
    async def list_models() -> dict[str, Any]:
        """List the models."""
        return {
            "object": "list",
            "data": [model_entry(name, engine, created) for name, engine in service.engines.items()],
        }

    @app.get("/v1/models/{model:path}", **guarded)
    async def retrieve_model(model: str) -> dict[str, Any]:
        """Describe a model."""
        return model_entry(model, service.engine(model), created)

    @app.post("/v1/completions", **texts)
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        """Continue a text."""
        answer = await service.completion(body, _key(request), request.state.headers)
        return await _answered(service, request, body, answer)

    @app.post("/v1/chat/completions", **texts)
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        """Continue a conversation."""
        answer = await service.chat(body, _key(request), request.state.headers)
        return await _answered(service, request, body, answer)


def _key(request: Request) -> Any:
    return getattr(request.state, "key", None)


async def _answered(
    service: Service, request: Request, body: ChatRequest | CompletionRequest, answer: Answer
) -> Response:
    """Return the answer to a request, or the stream of its pieces, which has begun."""
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        return _Stream(service, answer, answer.events(usage))
    try:
        content = await _unless_disconnected(request, answer.whole())
    finally:
        service.ended(answer)
    return JSONResponse(content, headers=answer.headers)


class _Stream(StreamingResponse):
    """A stream of server-sent events, which stops the generation when the client leaves."""

    def __init__(self, service: Service, answer: Answer, events: AsyncIterator[str]) -> None:
        super().__init__(events, headers={"cache-control": "no-store"}, media_type="text/event-stream")
        self._service, self._answer = service, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._service.ended(self._answer)


async def _unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Return what is computed, unless the client leaves before; then it is cancelled.

    Raises:
        Refusal: If the client has left, which nobody reads.
    """
    task: asyncio.Future[T] = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    both: set[asyncio.Future[Any]] = {task, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refusal(499, "The client left before the answer was complete.")
        return task.result()
    finally:
        for each in both:
            each.cancel()


async def _disconnected(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: Exception) -> JSONResponse:
    return as_refusal(error).response


def _add_pages(app: FastAPI, service: Service) -> None:
    """Add health, metrics, and the page to try it."""

    def probed(status: str) -> JSONResponse:
        state = "stopping" if service.stopping else "stopped" if stopped(service.engines) else status
        return JSONResponse({"status": state}, 200 if state == status else 503)

    @app.get("/health/live")
    async def live() -> JSONResponse:
        """Tell that the server runs, and each model's engine, which only another start of the server brings back."""
        return JSONResponse({"status": "live"}) if service.stopping else probed("live")

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        """Tell whether the server takes requests."""
        return probed("ready")

    @app.get("/health")
    async def state() -> JSONResponse:
        """Tell how each model and its devices are."""
        found = await asyncio.to_thread(health, service.engines, service.stopping)
        return JSONResponse(found, 503 if found["status"] in ("stopping", "stopped") else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return what is counted, for Prometheus."""
        return Response(await asyncio.to_thread(service.metrics.text), media_type=CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        """Return the page to try it."""
        text, headers = trial_page()
        return HTMLResponse(text, headers=headers)
