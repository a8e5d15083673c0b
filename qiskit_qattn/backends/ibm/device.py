"""A device of IBM Quantum, or a snapshot of one in this process, behind Qiskit Runtime's Estimator."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.ibm.errors import Guard
from qiskit_qattn.backends.ibm.runtime import (
    EstimatorSettings,
    Kind,
    Mode,
    Snapshot,
    check_executions,
    estimated_cost,
    is_closed,
    runtime_estimator,
)
from qiskit_qattn.backends.jobs.device import Cost, JobStatus, State, Values
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.errors import BackendError, JobError
from qiskit_qattn.simulation.decomposition import device_pubs

_STATES: Mapping[str, State] = {
    "INITIALIZING": "queued",
    "QUEUED": "queued",
    "RUNNING": "running",
    "DONE": "done",
    "ERROR": "failed",
    "CANCELLED": "cancelled",
}
_MAX_JOBS = 64  # job objects in memory, which save a request each time
_GONE = "It ran in a process that has ended."
_LOCAL_JOBS: OrderedDict[str, Any] = OrderedDict()  # of this process, whichever object sent them
_LOCAL_TAGS: dict[str, str] = {}
_log = logging.getLogger(__name__)


class IBMDevice:
    """A :class:`~qiskit_qattn.backends.jobs.device.Device` of Qiskit Runtime.

    Args:
        backend: A device of a ``QiskitRuntimeService``, or a snapshot of one, which runs in local testing mode.
        service: The service, or None for a snapshot. Local jobs live and die with this process.
        mode: ``batch`` by default, which every plan has. A session or batch is opened with the first job, and
            again, at most once per job, if the service closed it.
        settings: What the Estimator does.
        max_time: Seconds: in job mode the device time per job, else how long a session or batch stays open.
        seconds_price: US dollars per second of device time, or None where none is known.
        secrets: Texts that no message may contain.

    Attributes:
        backend: As given; what circuits are transpiled for.
        name: Provider and device.
        settings: What the Estimator does, as text.
        paid: Whether jobs use metered time, as on every device of an account.
    """

    def __init__(
        self,
        backend: Any,
        service: Any = None,
        *,
        mode: Kind = "batch",
        settings: EstimatorSettings | None = None,
        max_time: int | None = None,
        seconds_price: float | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.backend, self._service = backend, service
        self._estimator_settings = settings or EstimatorSettings()
        self.name = f"ibm:{backend.name}"
        self.settings = repr(self._estimator_settings)
        self.paid = service is not None
        self._limit = max_time if mode == "job" else None
        self._price = seconds_price
        self._snapshot = Snapshot(backend, self._estimator_settings.noise) if service is None else None
        self._mode = Mode(mode, max_time)
        self._call = Guard(*secrets)
        self._jobs: OrderedDict[str, Any] = _LOCAL_JOBS if service is None else OrderedDict()
        self._asked: Counter[str] = Counter()

    def submit(self, pubs: Sequence[EstimatorPub], precision: float, tag: str) -> str:
        """Send one job and return its id; a tag is for one job only.

        If the client sent the job more than once because it lost an answer, all but the first are cancelled.
        """
        shots_of(precision)  # raises for an invalid precision
        job = self._call("sending a job", self._send, pubs, precision, tag)
        job_id = job.job_id()
        self._remember(job_id, job)
        if self._service is None:
            _LOCAL_TAGS[job_id] = tag
            return job_id
        return self._first(tag, job_id)

    def find(self, tag: str) -> list[str]:
        """Return the ids of the jobs with a tag that are neither cancelled nor failed, oldest first."""
        if self._service is None:
            ids = [job_id for job_id, its in _LOCAL_TAGS.items() if its == tag]
        else:
            jobs = self._call("looking for a job", self._service.jobs, job_tags=[tag], limit=None)
            for job in jobs:
                self._remember(job.job_id(), job)
            ids = [job.job_id() for job in reversed(jobs)]
        return [job_id for job_id in ids if self.status(job_id).state not in ("cancelled", "failed")]

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job; a local job of another process is lost."""
        if self._service is None and job_id not in self._jobs:
            return JobStatus("lost", message=_GONE)
        job = self._job(job_id)
        status = self._call("asking for a job's state", job.status)
        state = _STATES[getattr(status, "name", status)]  # local jobs have an enum
        if state == "queued" and self._service is not None:
            return JobStatus(state, self._position(job))
        return JobStatus(state, message=self._reason(job) if state == "failed" else "")

    def result(self, job_id: str, pubs: Sequence[EstimatorPub]) -> list[Values]:
        """Return the values of a finished job."""
        job = self._job(job_id)
        wait = {} if self._service is None else {"timeout": 0.0}
        result = self._call("reading a result", job.result, **wait)
        if result is None or len(result) != len(pubs):
            raise JobError(f"Job {job_id} on {self.name} has no result for its {len(pubs)} PUBs.")
        shots = (getattr(result, "metadata", None) or {}).get("shots")
        return [self._values(job_id, part.data, pub, shots) for part, pub in zip(result, pubs, strict=True)]

    def usage(self, job_id: str) -> Cost:
        """Return the device time of a finished job; an open session is charged for the time between jobs too.

        Raises:
            BackendError: If the service has not yet counted it.
        """
        if self._service is None:
            return Cost(jobs=1)
        used = self._call("asking for usage", self._job(job_id).metrics).get("usage", {})
        if used.get("status", "pending") == "pending":
            raise BackendError(f"IBM Quantum has not yet counted what job {job_id} on {self.name} took; ask later.")
        seconds = float(used.get("qpu_charge_time_seconds") or 0.0)
        return Cost(jobs=1, seconds=seconds, usd=None if self._price is None else seconds * self._price)

    def cancel(self, job_id: str) -> None:
        """Cancel a job that has not finished."""
        self._call("cancelling a job", self._job(job_id).cancel)

    def abandon(self, tag: str) -> None:
        """Do nothing: jobs have no parts."""

    def estimate(self, pubs: Sequence[EstimatorPub], precision: float) -> Cost:
        """Return the estimated cost of a job; for a snapshot, that on the device.

        Raises:
            BackendError: For more executions than the service takes in a job.
        """
        settings = self._estimator_settings
        cost = estimated_cost(
            pubs,
            precision,
            self.backend,
            resilience=settings.resilience,
            twirled=bool(settings.twirling),
            seconds_price=self._price,
        )
        if self._service is not None:
            check_executions(self.name, cost)
        return cost

    def close(self) -> None:
        """Close the session or batch; queued jobs still run. The next job opens another."""
        self._call(f"closing the {self._mode.kind}", self._mode.close)

    def _send(self, pubs: Sequence[EstimatorPub], precision: float, tag: str) -> Any:
        """Send a job, in a new session or batch if the service closed the current one."""
        from qiskit_ibm_runtime import IBMRuntimeError

        options = self._estimator_settings.options(tag, self._limit, self._seed(pubs, precision))
        pubs, device = device_pubs(pubs), self.backend
        if self._snapshot is not None:
            pubs, device = self._snapshot.cut(pubs)
        target = self._mode.target(device)
        try:
            return runtime_estimator(target, options).run(pubs, precision=precision)
        except IBMRuntimeError as error:
            if not is_closed(error):
                raise
        _log.info("%s: the %s was closed; opening another.", self.name, self._mode.kind)
        self._mode.renew(target)
        return runtime_estimator(self._mode.target(device), options).run(pubs, precision=precision)

    def _first(self, tag: str, job_id: str) -> str:
        """Return the oldest job with a tag, and cancel the others."""
        try:
            first, *others = self.find(tag) or [job_id]
        except BackendError as error:  # the job was sent all the same
            _log.warning("%s: could not look for copies of job %s: %s", self.name, job_id, error)
            return job_id
        for other in others:
            try:
                self.cancel(other)
                _log.info("%s: cancelled job %s, a copy of %s.", self.name, other, first)
            except BackendError as error:
                _log.warning("%s: could not cancel job %s, a copy of %s: %s", self.name, other, first, error)
        return first

    def _seed(self, pubs: Sequence[EstimatorPub], precision: float) -> int | None:
        """Return a seed: different for each job, the same for the same job in another process."""
        if self._estimator_settings.seed is None:
            return None
        key = Request.of(pubs, precision, self.name, self.settings).key
        self._asked[key] += 1
        digest = hashlib.sha256(f"{key} {self._asked[key]}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1 | 1  # simulators take 31 bits, and 0 as no seed

    def _position(self, job: Any) -> int | None:
        try:
            return self._call("asking for the queue", job.metrics).get("position_in_queue")
        except BackendError:  # the position is optional
            return None

    def _reason(self, job: Any) -> str:
        """Return why a job failed."""
        if self._service is not None:
            return self._call.scrubbed(self._call("asking why a job failed", job.error_message) or "")
        try:
            self._call("simulating a job", job.result)
        except BackendError as error:
            return str(error)
        return ""

    def _job(self, job_id: str) -> Any:
        if job_id not in self._jobs:
            if self._service is None:
                raise JobError(f"Job {job_id} on {self.name} is not there. {_GONE}")
            self._remember(job_id, self._call("looking for a job", self._service.job, job_id))
        return self._jobs[job_id]

    def _remember(self, job_id: str, job: Any) -> None:
        """Remember a job's object, and forget the oldest."""
        self._jobs[job_id] = job
        while len(self._jobs) > _MAX_JOBS:
            oldest, _ = self._jobs.popitem(last=False)
            _LOCAL_TAGS.pop(oldest, None)

    def _values(self, job_id: str, data: Any, pub: EstimatorPub, shots: Any) -> Values:
        mitigated = self._estimator_settings.resilience > 0
        values = Values(np.asarray(data.evs, dtype=float), np.asarray(data.stds, dtype=float), shots, mitigated)
        if values.evs.shape != pub.shape or not np.isfinite(values.evs).all():
            raise JobError(
                f"Job {job_id} on {self.name} returned values of shape {values.evs.shape}, "
                f"{np.isfinite(values.evs).sum()} of them finite; expected {pub.shape}, all finite."
            )
        return values
