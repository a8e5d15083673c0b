"""Errors as clients see them: OpenAI's error objects and status codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from qiskit_qattn.errors import (
    BackendError,
    BudgetError,
    ConfigError,
    DataError,
    GenerationError,
    QattnError,
    QueueFull,
    StoppedError,
)
from qiskit_qattn.untrusted import one_line

INVALID = "invalid_request_error"
_LONGEST = 1000  # characters of a message
_KINDS = {401: INVALID, 403: INVALID, 404: INVALID, 405: INVALID, 408: "timeout", 413: INVALID, 415: INVALID}


class ErrorDetail(BaseModel):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of an answer that is an error."""

    error: ErrorDetail


#: What each route answers besides 200.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request cannot be answered."},
    "5XX": {"model": ErrorBody, "description": "The server, or a device, failed or has too much to do."},
}


@dataclass(eq=False)
class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: The status code.
        text: What is wrong, in one line.
        kind: OpenAI's type of error.
        param: The field of the request that is wrong, if it is one.
        code: OpenAI's code, if it has one.
        headers: More headers.
    """

    status: int
    text: str
    kind: str = INVALID
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The error as OpenAI's API writes it."""
        text = one_line(self.text)
        text = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
        return {"error": {"message": text, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body, self.status, dict(self.headers))


def as_refusal(error: Exception, param: str | None = None) -> Refusal:
    """Return the answer that a client gets for an error.

    Args:
        error: What was raised.
        param: The field of the request that a :class:`DataError` or :class:`ConfigError` is about.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, GenerationError) and isinstance(error.__cause__, BackendError):
        return as_refusal(error.__cause__)
    if isinstance(error, HTTPException):
        kind = _KINDS.get(error.status_code, INVALID if error.status_code < 500 else "server_error")
        return Refusal(error.status_code, f"{error.detail}.", kind=kind, headers=error.headers or {})
    if isinstance(error, QueueFull | StoppedError):
        return overloaded(str(error))
    if isinstance(error, BudgetError):  # asking again does not help
        return Refusal(
            429, str(error), "insufficient_quota", code="insufficient_quota", headers={"x-should-retry": "false"}
        )
    if isinstance(error, BackendError):
        return Refusal(503, str(error), "server_error", code="backend_failed", headers={"retry-after": "60"})
    if isinstance(error, DataError | ConfigError):
        return Refusal(400, str(error), param=param)
    cause = error.__cause__ if isinstance(error, GenerationError) else error
    # What torch, transformers and others raise may name files of this machine: only the log has it.
    text = str(error) if isinstance(cause, QattnError) else "The server had an error while processing your request."
    return Refusal(500, text, "server_error")


def overloaded(text: str) -> Refusal:
    """Return the refusal of a server that has too much to do, or is about to stop."""
    return Refusal(503, text, "overloaded_error", code="overloaded", headers={"retry-after": "1"})


def _invalid(error: RequestValidationError) -> Refusal:
    """Return the first of the faults that pydantic found."""
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"] if part not in ("body", "query", "path")]
    param = ".".join(path) or None
    if fault["type"] == "json_invalid":
        return Refusal(
            400, f"The body of the request is not JSON: {fault.get('ctx', {}).get('error', 'it is damaged')}."
        )
    if fault["type"] == "extra_forbidden":
        return Refusal(400, f"Unrecognized request argument supplied: {param}", param=param, code="unknown_parameter")
    if fault["type"] == "missing":
        if param is None:
            return Refusal(400, "The request has no body; it must be a JSON object.")
        return Refusal(400, f"You must provide {param}.", param=param, code="missing_required_parameter")
    if fault["type"] in ("model_attributes_type", "model_type") and param is None:
        return Refusal(400, "The body must be a JSON object, with Content-Type: application/json.")
    text = fault["msg"].removeprefix("Value error, ")
    return Refusal(400, f"{param or 'The body'}: {text.rstrip('.')}.", param=param)
