"""The connections of IBM's client: each job is posted once, waits are bounded, and what was sent is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from requests import PreparedRequest, Response, Session
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util import Retry

from qiskit_qattn.backends.ibm.errors import TRAFFIC, Traffic

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # longest pause while an answer is read
JOB_SECONDS = 120.0  # longest pause before a request that changes something is answered
_READ_RETRIES = 2  # for reading, at once; the caller repeats the whole call later
_PASSING = (500, 502, 503, 504, 520, 521, 522, 524)


class Transport(BaseAdapter):
    """Sends requests: those that read are repeated twice, others never.

    A ``Retry-After`` is not waited for here, where no deadline is known; the answer is returned as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        retry = Retry(
            total=_READ_RETRIES,
            backoff_factor=0.1,
            status_forcelist=_PASSING,
            allowed_methods=["GET"],
            respect_retry_after_header=False,
            raise_on_status=False,
        )
        self._reading, self._writing = HTTPAdapter(max_retries=retry), HTTPAdapter(max_retries=0)

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: dict[str, str] | None = None,
    ) -> Response:
        """Return the answer to a request; the client's own ``timeout``, often none, is replaced."""
        traffic = TRAFFIC.get() or Traffic()
        traffic.requests += 1
        reads = request.method == "GET"
        posts = request.method == "POST" and request.path_url.partition("?")[0].endswith("/jobs")
        if posts:
            traffic.jobs.append(None)
        adapter = self._reading if reads else self._writing
        limits = (CONNECT_SECONDS, ANSWER_SECONDS if reads else JOB_SECONDS)
        response = adapter.send(request, stream, limits, verify, cert, proxies)
        if posts:
            traffic.jobs[-1] = response.status_code
        return response

    def close(self) -> None:
        """Close the connections."""
        self._reading.close()
        self._writing.close()


def set_up(service: Any) -> list[Session]:
    """Let the connections of a ``QiskitRuntimeService`` use :class:`Transport`, and return its HTTP sessions.

    The client's own set-up posts a job again by itself, after some errors and behind a proxy, and sleeps as long as
    a ``Retry-After`` says. The sessions are found by their type, since they have no public name.
    """
    found = list({id(session): session for session in _sessions(service)}.values())
    for session in found:
        if not isinstance(session.get_adapter("https://"), Transport):
            for scheme in ("http://", "https://"):
                session.mount(scheme, Transport())
    return found


def _sessions(owner: Any, depth: int = 3) -> Iterator[Session]:
    """Yield the HTTP sessions among an object's attributes, and among those of its parts."""
    for value in getattr(owner, "__dict__", {}).values():
        for part in value.values() if isinstance(value, dict) else (value,):
            if isinstance(part, Session):
                yield part
            elif depth and type(part).__module__.startswith("qiskit_ibm_runtime"):
                yield from _sessions(part, depth - 1)
