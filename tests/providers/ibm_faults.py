"""What can go wrong between a client and the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
        delay: wait so many seconds first.
    """

    pattern: str
    times: int = 1
    drop: Literal["before", "after"] | None = None
    error: ApiError | None = None
    late: bool = False
    delay: float = 0.0
