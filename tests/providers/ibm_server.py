"""A server on the loopback that stands for IBM Quantum, so that its real client runs against it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, RLock, Thread
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from qiskit_ibm_runtime import QiskitRuntimeService
from urllib3.util.connection import create_connection

from .ibm_faults import ANSWERS, ApiError, Fault
from .ibm_jobs import Job
from .ibm_service import CRN, Query, Service

HOST = "quantum.test"
URL = f"http://{HOST}"
TOKEN = "not-a-key"


@dataclass(frozen=True)
class Request:
    """A request as it came in, whatever became of it."""

    method: str
    path: str
    query: Query
    body: Any

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class IBMServer:
    """IBM Quantum on 127.0.0.1, at a free port; use it as a context manager.

    The client sends to hosts below `quantum.test`: give urllib3 the method `connect`, or make the server the client's
    proxy. Jobs run while they are submitted, unless `hold` keeps them waiting.

    Args:
        seed: job number n is simulated with seed + n.

    Attributes:
        state: devices, sessions, jobs, plan and usage limit; `lock` guards it.
        requests: all requests, in order.
    """

    def __init__(self, seed: int = 7) -> None:
        self.lock = RLock()
        self.state = Service(seed)
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.closing = Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients may have gone
        self.thread = Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which `QiskitRuntimeService()`, without arguments, opens this account."""
        account = {"QISKIT_IBM_TOKEN": TOKEN, "QISKIT_IBM_URL": URL, "QISKIT_IBM_INSTANCE": CRN}
        # With usage data on, the client walks its own stack at every request.
        return account | {"IAM_URL": f"http://iam.{HOST}", "USAGE_DATA_OPT_OUT": "True"}

    @property
    def proxy_environment(self) -> dict[str, str]:
        """`environment` for another process, where names are not resolved by `connect`: the server is its proxy."""
        return self.environment | {name: self.address for name in ("http_proxy", "https_proxy")} | {"no_proxy": ""}

    def service(self, **options: Any) -> QiskitRuntimeService:
        """Return a new client of this server, with the account given as arguments."""
        account = {"channel": "ibm_quantum_platform", "token": TOKEN, "url": URL, "instance": CRN}
        return QiskitRuntimeService(**(account | options))

    def connect(self, address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
        """Connect as urllib3 does, with the service's hosts found here; nothing leaves the machine.

        Raises:
            OSError: for any host but the service's and this machine's.
        """
        if address[0].endswith(f".{HOST}"):
            address = ("127.0.0.1", self.http.server_port)
        elif address[0] not in ("127.0.0.1", "localhost"):
            raise OSError(f"A test tried to reach {address[0]}.")
        return create_connection(address, *args, **options)

    # what tests look at

    @property
    def jobs(self) -> dict[str, Job]:
        with self.lock:
            return dict(self.state.jobs)

    def count(self, pattern: str) -> int:
        """Return how many requests matched a pattern such as "POST /jobs"."""
        with self.lock:
            return sum(re.fullmatch(pattern, request.line) is not None for request in self.requests)

    # what tests arrange

    def set_plan(self, plan: Literal["open", "premium"], usage_limit: int | None = None) -> None:
        with self.lock:
            self.state.plan, self.state.usage_limit = plan, usage_limit

    def hold(self, status: Literal["Queued", "Running"] = "Queued") -> None:
        """Keep the jobs that wait or come, in this state."""
        with self.lock:
            self.state.held = status
            for job in self.state.waiting():
                job.status = status

    def release(self) -> None:
        """Run the jobs that wait, and those to come at once."""
        with self.lock:
            self.state.held = None
            for job in self.state.waiting():
                self.state.run(job)

    def close_session(self, session_id: str) -> None:
        """Close a session as its time limit would, without a word to the client."""
        with self.lock:
            self.state.close_session(session_id)

    def fail_jobs(self, reason: str, code: int | None = None, times: int = 1) -> None:
        """Let the next jobs end as failed."""
        with self.lock:
            self.state.failures += [(reason, code)] * times

    def drop(self, pattern: str, when: Literal["before", "after"], times: int = 1) -> None:
        self._add(Fault(pattern, times, drop=when))

    def slow(self, pattern: str, seconds: float, times: int = 1, *, late: bool = False) -> None:
        """Wait before the next requests are served, or, if `late`, between that and the answer."""
        self._add(Fault(pattern, times, delay=seconds, late=late))

    def refuse(
        self,
        pattern: str,
        status: int,
        code: int = 1000,
        message: str = "Scripted error.",
        *,
        times: int = 1,
        retry_after: int | str | None = None,
        late: bool = False,
    ) -> None:
        """Answer the next requests with an HTTP error; a `late` one comes after the request was served."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._add(Fault(pattern, times, error=ApiError(status, code, message, headers=headers), late=late))

    def change(self, pattern: str, change: Callable[[Any], Any], times: int = 1) -> None:
        """Serve the next requests, and change the answers."""
        self._add(Fault(pattern, times, change=change))

    def lag(self, looks: int) -> None:
        """Leave all jobs out of the next lists of jobs."""
        self.change("GET /jobs", lambda answer: answer | {"jobs": [], "count": 0}, looks)

    def spoil(self, pattern: str, answer: str) -> None:
        """Give all requests from now on one of the answers of `ANSWERS`, until `mend`."""
        self._add(ANSWERS[answer](pattern))

    def mend(self) -> None:
        """End all that was to go wrong."""
        with self.lock:
            self.faults.clear()

    def _add(self, fault: Fault) -> None:
        with self.lock:
            self.faults.append(fault)

    def take_fault(self, line: str) -> Fault:
        """Return the oldest fault that hits a request, used up by one, or one that does nothing."""
        for fault in self.faults:
            if fault.times > 0 and re.fullmatch(fault.pattern, line):
                fault.times -= 1
                return fault
        return Fault(".*")


class _Handler(BaseHTTPRequestHandler):
    owner: IBMServer

    def serve(self) -> None:
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_json = "json" in self.headers.get("Content-Type", "")
        body = json.loads(raw) if raw and is_json else raw.decode()
        request = Request(self.command, url.path.removeprefix("/api/v1"), parse_qs(url.query), body)
        owner = self.owner
        with owner.lock:
            owner.requests.append(request)
            fault = owner.take_fault(request.line)
        owner.closing.wait(0.0 if fault.late else fault.delay)
        status, answer, headers = 200, None, {}
        try:
            if fault.drop != "before" and (fault.error is None or fault.late):
                with owner.lock:
                    answer = owner.state.answer(
                        request.method, request.path, request.query, request.body, self.headers.get("Service-CRN", CRN)
                    )
            if fault.error is not None:
                raise fault.error
        except ApiError as error:
            status, answer, headers = error.status, error.body, error.headers
        owner.closing.wait(fault.delay if fault.late else 0.0)
        if fault.change is not None:
            answer = changed(answer, fault.change)
        if fault.drop is None:
            self.reply(status, answer if fault.body is None else fault.body, headers, cut=fault.cut)
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def reply(self, status: int, answer: Any, headers: dict[str, str], cut: bool) -> None:
        text = answer if isinstance(answer, str | bytes) else json.dumps(answer, separators=(",", ":"))
        data = b"" if answer is None else text if isinstance(text, bytes) else text.encode()
        self.send_response(204 if answer is None and not cut else status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) + cut))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)

    def log_message(self, *_: Any) -> None:
        """Keep standard error clean; `IBMServer.requests` is the log."""


def changed(answer: Any, change: Callable[[Any], Any]) -> Any:
    """Return a changed answer; texts that are JSON are changed inside."""
    if not isinstance(answer, str):
        return change(answer)
    try:
        return json.dumps(change(json.loads(answer)))
    except ValueError:
        return answer
