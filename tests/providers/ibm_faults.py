"""What can go wrong between a client and the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


class ApiError(Exception):
    """An answer with an error in it, in the service's form."""

    def __init__(self, status: int, code: int, message: str, solution: str = "", headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        error = {
            "code": code,
            "message": message,
            "solution": solution,
            "more_info": "https://quantum.cloud.ibm.com/docs/errors",
        }
        self.body = {"errors": [error], "trace": "test"}


@dataclass
class Fault:
    """What happens to the next requests whose "METHOD /path" matches a pattern as a whole.

    Args:
        pattern: a regular expression; paths are those below `/api/v1`.
        times: how many requests are hit.
        drop: close the connection "before" the request is served, or "after", when the client misses the answer.
        error: answer with this error, and serve nothing, or do serve the request if the error is `late`.
        delay: wait so many seconds first, or, with `late`, before the answer.
        body: serve the request, and answer with this in place of the answer.
        change: serve the request, and answer with what this makes of the answer.
        cut: close the connection in the middle of the answer.
    """

    pattern: str
    times: int = 1
    drop: Literal["before", "after"] | None = None
    error: ApiError | None = None
    late: bool = False
    delay: float = 0.0
    body: bytes | None = None
    change: Callable[[Any], Any] | None = None
    cut: bool = False


MANY = 10_000  # times: for good


def _each(change: Callable[[str, Any], Any]) -> Callable[[Any], Any]:
    """Return a change of an answer that applies another to each named value that is no object or list."""

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: walk(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [walk(item, key) for item in value]
        return change(key, value)

    return walk


def _half(value: Any) -> Any:
    """Leave out every second key of every object."""
    if isinstance(value, dict):
        return {name: _half(item) for name, item in list(value.items())[1::2]}
    return [_half(item) for item in value] if isinstance(value, list) else value


def _of_another_type(_: str, value: Any) -> Any:
    return 7 if isinstance(value, str) else "seven"


def _unknown_word(key: str, value: Any) -> Any:
    return "Levitating" if key == "status" else value


#: Every answer that a request may get besides the right one, by name; `ANSWERS[name](pattern)` makes it.
ANSWERS: dict[str, Callable[[str], Fault]] = {
    **{
        f"{status}": lambda pattern, status=status: Fault(pattern, MANY, error=ApiError(status, 1000, "Scripted."))
        for status in (400, 401, 403, 404, 408, 500, 502, 503)
    },
    "429 for a day": lambda pattern: Fault(
        pattern, MANY, error=ApiError(429, 1202, "Too many requests.", headers={"Retry-After": "86400"})
    ),
    "503 for a day": lambda pattern: Fault(
        pattern, MANY, error=ApiError(503, 1000, "Maintenance.", headers={"Retry-After": "86400"})
    ),
    "late 504": lambda pattern: Fault(pattern, MANY, error=ApiError(504, 1000, "Gateway timeout."), late=True),
    "drop before": lambda pattern: Fault(pattern, MANY, drop="before"),
    "drop after": lambda pattern: Fault(pattern, MANY, drop="after"),
    "cut in the middle": lambda pattern: Fault(pattern, MANY, cut=True),
    "empty": lambda pattern: Fault(pattern, MANY, body=b""),
    "HTML": lambda pattern: Fault(pattern, MANY, body=b"<html><body>Sign in to the network</body></html>"),
    "truncated": lambda pattern: Fault(pattern, MANY, body=b'{"id": "job-0", "state": {"status": "Comp'),
    "no UTF-8": lambda pattern: Fault(pattern, MANY, body=b'{"id": "\xff\xfe"}'),
    "nested": lambda pattern: Fault(pattern, MANY, body=b"[" * 100_000),
    "null": lambda pattern: Fault(pattern, MANY, body=b"null"),
    "a number": lambda pattern: Fault(pattern, MANY, body=b"1e400"),
    "a string": lambda pattern: Fault(pattern, MANY, body=b'"Completed"'),
    "a list": lambda pattern: Fault(pattern, MANY, body=b"[1, 2]"),
    "an empty list": lambda pattern: Fault(pattern, MANY, body=b"[]"),
    "an empty object": lambda pattern: Fault(pattern, MANY, body=b"{}"),
    "half of the keys": lambda pattern: Fault(pattern, MANY, change=_half),
    "nulls": lambda pattern: Fault(pattern, MANY, change=_each(lambda *_: None)),
    "other types": lambda pattern: Fault(pattern, MANY, change=_each(_of_another_type)),
    "an unknown state": lambda pattern: Fault(pattern, MANY, change=_each(_unknown_word)),
}

#: The requests of each call of the adapter, by its name.
CALLS: dict[str, str] = {
    "open": "POST /sessions",
    "check": "GET /(instances/usage|backends/.*/status)",
    "submit": "POST /jobs",
    "find": "GET /jobs",
    "status": r"GET /jobs/[\w-]+",
    "result": "GET /jobs/.*/results",
    "usage": "GET /jobs/.*/metrics",
    "cancel": "POST /jobs/.*/cancel",
    "estimate": "GET /backends/.*/properties",
    "list": "GET /backends",
    "describe": "GET /backends/.*/configuration",
    "close": "PATCH /sessions/.*",
}
