"""The connections of IBM's client: each job is posted once, waits are bounded, and what was sent is known."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from threading import Thread
from typing import Any, TypeVar

from qiskit.exceptions import QiskitError
from requests import PreparedRequest, Response, Session
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util import Retry

from qiskit_qattn.backends.ibm.answers import Unexpected, device_names
from qiskit_qattn.backends.ibm.errors import TRAFFIC, Traffic
from qiskit_qattn.errors import TransientBackendError
from qiskit_qattn.forks import in_forked_process

_T = TypeVar("_T")
ACCOUNT_SECONDS = 25.0  # longest wait for the client to open an account
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 25.0  # longest pause while an answer is read
JOB_SECONDS = 120.0  # the same for a request that changes something: a job whose answer is given up must be looked for
_READ_RETRIES = 2  # for reading, at once; the caller repeats the whole call later
_PASSING = (500, 502, 503, 504, 520, 521, 522, 524)


class Transport(BaseAdapter):
    """Sends requests: those that read are repeated twice, others never.

    A ``Retry-After`` is not waited for here, where no deadline is known; the answer is returned as it is. A forked
    process has connections of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connect()
        _TRANSPORTS.add(self)

    def connect(self) -> None:
        """Have new connections made from now on."""
        retry = Retry(
            total=_READ_RETRIES,
            read=0,  # a pause was long enough
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


def in_time(call: Callable[..., _T], *args: Any, **options: Any) -> _T:
    """Return what a call returns that only reads, and whose connections cannot be set up before.

    Raises:
        TransientBackendError: If it takes longer than ``ACCOUNT_SECONDS``: the client waits as long as a
            ``Retry-After`` says. It is left to end by itself.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call(*args, **options))
        except Exception as error:  # of IBM's client; raised below
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return outcome.result(ACCOUNT_SECONDS)
    except FutureTimeout:
        if outcome.done():
            raise
        raise TransientBackendError(
            f"IBM Quantum gave no access to the account within {ACCOUNT_SECONDS:g} s. Try again later."
        ) from None


_TRANSPORTS: weakref.WeakSet[Transport] = weakref.WeakSet()


@in_forked_process
def _connect_anew() -> None:
    for transport in list(_TRANSPORTS):
        transport.connect()


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


def listed_devices(service: Any) -> list[str]:
    """Return the names of all devices of an account, from the service itself: the client hides its errors."""
    lists = [device_names(_read(session, "/backends")) for session in set_up(service)]
    if not lists:
        raise Unexpected("the client's connections were not found; nothing was asked")
    return sorted({name for names in lists for name in names})


def check_described(service: Any, name: str) -> None:
    """Ask for the configuration of a device, of which the client hides errors, and raise the first if none answers."""
    errors = []
    for session in set_up(service):
        try:
            _read(session, f"/backends/{name}/configuration")
            return
        except QiskitError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _read(session: Session, path: str) -> Any:
    return session.get(path, headers={"Accept": "application/json"}).json()  # the session adds the service's address


def _sessions(owner: Any, depth: int = 3) -> Iterator[Session]:
    """Yield the HTTP sessions among an object's attributes, and among those of its parts."""
    for value in getattr(owner, "__dict__", {}).values():
        for part in value.values() if isinstance(value, dict) else (value,):
            if isinstance(part, Session):
                yield part
            elif depth and type(part).__module__.startswith("qiskit_ibm_runtime"):
                yield from _sessions(part, depth - 1)
