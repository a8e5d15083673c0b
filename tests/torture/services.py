"""The providers' loopback services in a process of their own, told what to do through a pipe."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from tests.providers import ibm_jobs
from tests.providers.aws_server import AwsServer, aws_service
from tests.providers.ibm_server import IBMServer

from .tally import Paid

FORK = get_context("fork")
#: What the service may say of a job's usage before it tells the truth.
LIES: dict[str, Any] = {
    "pending": {"status": "pending"},
    "nan": {"status": "complete", "qpu_charge_time_seconds": float("nan")},
    "infinite": {"status": "complete", "qpu_charge_time_seconds": float("inf")},
    "negative": {"status": "complete", "qpu_charge_time_seconds": -60.0},
    "text": {"status": "complete", "qpu_charge_time_seconds": "a lot"},
    "nothing": {},
}


class Services:
    """A handle on the services: ``services("hold")`` calls that method of the process that serves.

    Attributes:
        environment: Variables under which the clients find the services, by provider.
        port: That of IBM Quantum, whose names the client cannot resolve.
        struck: Set when the request that :meth:`Served.strike` counted down to has arrived.
    """

    def __init__(self, folder: Path) -> None:
        self.struck: Event = FORK.Event()
        self._pipe, other = FORK.Pipe()
        process = FORK.Process(target=_serve, args=(other, self.struck, folder), daemon=True)
        process.start()
        other.close()
        self.environment, self.port = self._pipe.recv()

    def __call__(self, method: str, *arguments: Any) -> Any:
        self._pipe.send((method, arguments))
        found, error = self._pipe.recv()
        if error is not None:
            raise RuntimeError(f"{method}{arguments} failed in the service: {error}")
        return found


class Served:
    """The two services, in their own process."""

    def __init__(self, ibm: IBMServer, aws: AwsServer, struck: Event) -> None:
        self.ibm, self.aws, self._struck = ibm, aws, struck
        self._countdown, self._delay = -1, 0.0
        self._pace: tuple[float, float] | None = None
        self._random = random.Random(0)
        self._lie, self._asked = ("", 0), Counter[str]()
        ibm.state.routes = [
            (pattern, self._metrics if "metrics" in pattern else handler) for pattern, handler in ibm.state.routes
        ]
        take, fault = ibm.take_fault, aws.fault
        ibm.take_fault = lambda line: self._seen(take(line))  # type: ignore[method-assign]
        aws.fault = lambda operation: self._seen(fault(operation))  # type: ignore[method-assign]
        threading.Thread(target=self._run_jobs, daemon=True).start()

    def fresh(self, seed: int) -> None:
        """Forget all jobs and faults."""
        with self.ibm.lock, self.aws._lock:
            self._random = random.Random(seed)
            self.ibm.state.jobs.clear()
            self.ibm.state.sessions.clear()
            self.ibm.state.failures.clear()
            self.ibm.requests.clear()
            self.aws.tasks.clear()
            self.aws.calls.clear()
            self.aws.bodies.clear()
        ibm_jobs.SECONDS_A_SHOT = 250e-6
        self.calm()

    def calm(self) -> None:
        """Take all faults back, and run what waits."""
        with self.ibm.lock, self.aws._lock:
            self._pace, self._countdown, self._lie = None, -1, ("", 0)
        self.mend()
        self.release()

    def mend(self) -> None:
        """Take all faults back."""
        with self.ibm.lock, self.aws._lock:
            self.ibm.faults.clear()
            self.aws.faults.clear()
            self.aws.answers.clear()

    def hold(self) -> None:
        self.ibm.hold()
        self.aws.held = True

    def release(self) -> None:
        self.ibm.release()
        with self.aws._lock:
            self.aws.release()

    def pace(self, least: float, most: float) -> None:
        """Run jobs now and then, after times between two numbers of seconds."""
        self.hold()
        self._pace = (least, most)

    def arm(self, provider: str, request: str, fault: str) -> None:
        """See :func:`~tests.torture.faults.arm`."""
        from .faults import arm

        arm(self.ibm if provider == "ibm" else self.aws, provider, request, fault)

    def lose(self, provider: str, what: str) -> None:
        """See :func:`~tests.torture.faults.lose`."""
        from .faults import lose

        lose(self.ibm if provider == "ibm" else self.aws, provider, what)

    def slow(self, pattern: str, seconds: float) -> None:
        """Serve the next such request of IBM's after some seconds."""
        self.ibm.slow(pattern, seconds)

    def lie(self, usage: str, times: int) -> None:
        """Answer the first questions for the usage of each of IBM's jobs with one of ``LIES``."""
        self._lie = (usage, times)
        self._asked.clear()

    def strike(self, count: int, delay: float) -> None:
        """Set ``struck`` when so many more requests have arrived, and answer the last after a delay."""
        self._struck.clear()
        self._countdown, self._delay = count, delay

    def charge(self, seconds_a_shot: float) -> None:
        """Charge another time per shot than the estimate says."""
        ibm_jobs.SECONDS_A_SHOT = seconds_a_shot

    def queues(self, manila: int, nairobi: int) -> None:
        """Let so many jobs wait on the two devices."""
        self.ibm.state.devices.queues.update(test_manila=manila, test_nairobi=nairobi)

    def spoil(self, request: str, fault: str, always: bool) -> None:
        """Make the next answer to a request of IBM's faulty, or all answers."""
        from tests.providers.ibm_faults import ANSWERS

        found = ANSWERS[fault](request)
        found.times = found.times if always else 1
        with self.ibm.lock:
            self.ibm.faults.append(found)

    def charges(self) -> dict[str, float]:
        """Return what was charged on each of IBM's devices, in seconds."""
        total: Counter[str] = Counter()
        for job in self.ibm.jobs.values():
            total[job.backend] += job.used_seconds  # type: ignore[assignment]
        return dict(total)

    def records(self, provider: str) -> list[Paid]:
        if provider == "ibm":
            return [
                Paid(job.tags[0], "", job.status == "Completed", job.used_seconds) for job in self.ibm.jobs.values()
            ]
        with self.aws._lock:
            metas = [task["meta"] for task in self.aws.tasks.values()]
        return [
            Paid(meta["tags"]["qiskit-qattn"], meta["tags"]["qiskit-qattn-part"], meta["status"] == "COMPLETED")
            for meta in metas
        ]

    def _metrics(self, job_id: str, **rest: Any) -> dict[str, Any]:
        self._asked[job_id] += 1
        lie, times = self._lie
        answer = self.ibm.state.metrics(job_id, **rest)
        return {**answer, "usage": LIES[lie]} if self._asked[job_id] <= times else answer

    def _seen(self, fault: Any) -> Any:
        if self._countdown > 0:
            self._countdown -= 1
            if self._countdown == 0:
                self._struck.set()
                if hasattr(fault, "delay"):
                    fault.delay = max(fault.delay, self._delay)
        return fault

    def _run_jobs(self) -> None:
        while True:
            pace = self._pace
            time.sleep(0.05 if pace is None else self._random.uniform(*pace))
            if self._pace is not None:
                self.release()
                self.hold()


def _serve(pipe: Connection, struck: Event, folder: Path) -> None:
    ThreadingHTTPServer.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed
    ibm_jobs.run_executor = _remembered(ibm_jobs.run_executor)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        ibm = stack.enter_context(IBMServer())
        aws = stack.enter_context(aws_service(patch, folder))
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        pipe.send(({"ibm": ibm.environment, "braket": environment}, ibm.http.server_port))
        served = Served(ibm, aws, struck)
        while True:
            try:
                method, arguments = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send((getattr(served, method)(*arguments), None))
            except Exception as error:
                pipe.send((None, repr(error)))


def _remembered(run: Callable[..., str]) -> Callable[..., str]:
    """Return a simulation that is run once for the same circuits: the attacks are on what is around it."""
    found: dict[str, str] = {}

    def remembered(params: dict[str, Any], device: Any, seed: int, *, random: bool) -> str:
        key = repr(params)
        if key not in found:
            found[key] = run(params, device, seed, random=random)
        return found[key]

    return remembered


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder for one attack, and delete it."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
