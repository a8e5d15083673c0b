"""A device of IBM Quantum, or a snapshot of one in this process, behind Qiskit Runtime's primitives."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from qiskit import QuantumCircuit
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_qattn.backends.ibm.answers import (
    PagedTags,
    Unexpected,
    calibration_of,
    job_id_of,
    position_of,
    seconds_of,
    state_of,
    tagged,
    values_of,
    waiting_of,
)
from qiskit_qattn.backends.ibm.errors import Guard
from qiskit_qattn.backends.ibm.runtime import (
    EstimatorSettings,
    Kind,
    Mode,
    check_executions,
    estimated_cost,
    is_closed,
    runtime_estimator,
)
from qiskit_qattn.backends.ibm.samples import (
    bits_of,
    check_registers,
    device_samples,
    runtime_sampler,
    sampler_cost,
    sampler_options,
    sampler_settings,
)
from qiskit_qattn.backends.ibm.snapshot import Snapshot
from qiskit_qattn.backends.ibm.tiles import LocalJobs
from qiskit_qattn.backends.jobs.device import Bits, Calibration, Cost, JobStatus, Pub, Values
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.backends.tiling import is_tiled
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError
from qiskit_qattn.forks import in_forked_process
from qiskit_qattn.simulation.decomposition import device_pubs
from qiskit_qattn.untrusted import shown

_MAX_JOBS = 64  # job objects in memory, which save a request each time
_GONE = "It ran in a process that has ended."
_LOCAL_JOBS: OrderedDict[str, Any] = OrderedDict()  # of this process, whichever object sent them
_LOCAL_TAGS: dict[str, str] = {}
in_forked_process(_LOCAL_JOBS.clear)  # whose threads are the parent's
in_forked_process(_LOCAL_TAGS.clear)
_MAX_FOUND = 100  # jobs that are read of those with a tag, which belongs to one
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
        sampler_settings: What the Sampler does, as text.
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
        self.settings = str(self._estimator_settings)
        self.sampler_settings = sampler_settings(self._estimator_settings)
        self.paid = service is not None
        self._limit = max_time if mode == "job" else None
        self._price = seconds_price
        self._snapshot = Snapshot(backend, self._estimator_settings.noise) if service is None else None
        self._mode = Mode(mode, max_time)
        self._call = Guard(*secrets)
        self._watched = True  # whether it is known what was posted
        if service is not None:
            from qiskit_qattn.backends.ibm.transport import set_up

            self._watched = bool(set_up(service))
            # The client turns to another instance when it looks for a job that is not there.
            self._instance = self._call("asking for the instance", service.active_instance)
        if not self._watched:
            _log.warning("%s: this version of qiskit-ibm-runtime may send a job twice behind a proxy.", self.name)
        self._jobs: OrderedDict[str, Any] = _LOCAL_JOBS if service is None else OrderedDict()
        self._asked: Counter[str] = Counter()

    def submit(self, pubs: Sequence[Pub], precision: float, tag: str) -> str:
        """Send one job and return its id; a tag is for one job only."""
        shots_of(precision)  # raises for an invalid precision
        try:
            job_id, job = self._call("sending a job", self._send, pubs, precision, tag)
        except TransientBackendError as error:
            error.unsent = error.unsent and self._watched
            raise
        self._remember(job_id, job)
        if self._service is None:
            _LOCAL_TAGS[job_id] = tag
        return job_id

    def find(self, tag: str) -> list[str]:
        """Return the ids of the jobs with a tag that are neither cancelled nor failed, oldest first."""
        if self._service is None:
            ids = [job_id for job_id, its in _LOCAL_TAGS.items() if its == tag]
        else:
            found = self._call("looking for a job", self._find, tag)
            for job_id, job in found.items():
                self._remember(job_id, job)
            ids = list(found)
        return [job_id for job_id in ids if self.status(job_id).state not in ("cancelled", "failed")]

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job; a local job of another process is lost."""
        if self._service is None and job_id not in self._jobs:
            return JobStatus("lost", message=_GONE)
        job = self._job(job_id)
        state = self._call("asking for a job's state", lambda: state_of(job.status()))
        if state == "queued" and self._service is not None:
            return JobStatus(state, self._position(job))
        return JobStatus(state, message=self._reason(job) if state == "failed" else "")

    def result(self, job_id: str, pubs: Sequence[Pub]) -> Sequence[Values | Bits]:
        """Return the values of a finished job, or its samples."""
        job = self._job(job_id)
        wait = {} if self._service is None else {"timeout": 0.0}
        if _is_sampled(pubs):
            return self._call("reading a result", lambda: bits_of(job.result(**wait), pubs))
        mitigated = self._estimator_settings.effective is not None
        return self._call("reading a result", lambda: values_of(job.result(**wait), pubs, mitigated=mitigated))

    def usage(self, job_id: str) -> Cost:
        """Return the device time of a finished job; an open session is charged for the time between jobs too.

        Raises:
            BackendError: If the service has not yet counted it.
        """
        if self._service is None:
            return Cost(jobs=1)
        job = self._job(job_id)
        seconds = self._call("asking for usage", lambda: seconds_of(job.metrics()))
        if seconds is None:
            raise BackendError(f"IBM Quantum has not yet counted what job {job_id} on {self.name} took; ask later.")
        return Cost(jobs=1, seconds=seconds, usd=None if self._price is None else seconds * self._price)

    def cancel(self, job_id: str) -> None:
        """Cancel a job that has not finished."""
        self._call("cancelling a job", self._job(job_id).cancel)
        if self._service is not None:
            self._jobs.pop(job_id, None)  # the client takes it for cancelled, whatever becomes of it

    def abandon(self, tag: str) -> None:
        """Do nothing: jobs have no parts."""

    def estimate(self, pubs: Sequence[Pub], precision: float) -> Cost:
        """Return the estimated cost of a job; for a snapshot, that on the device.

        Raises:
            BackendError: For more executions than the service takes in a job.
            CircuitError: For registers of a Sampler's circuits that share a bit.
        """
        settings, what = self._estimator_settings, "estimating a job"
        if _is_sampled(pubs):  # the device's properties are read when they are first used
            check_registers(pubs)
            cost = self._call(what, sampler_cost, pubs, self.backend, self._price)
        else:
            cost = self._call(
                what,
                estimated_cost,
                pubs,
                precision,
                self.backend,
                mitigation=settings.effective,
                twirled=bool(settings.twirling),
                seconds_price=self._price,
            )
        if self._service is not None:
            check_executions(self.name, cost)
        return cost

    def calibration(self, circuits: Iterable[QuantumCircuit], before: datetime) -> Calibration | None:
        """Return the calibration of ISA circuits' qubits and gates at a time; of a snapshot, that it was taken with."""
        when = {} if self._service is None else {"datetime": before}
        return self._call("reading the calibration", lambda: calibration_of(self.backend.properties(**when), circuits))

    def queue(self) -> int | None:
        """Return how many jobs wait on the device, None where the service does not tell; 0 for a snapshot."""
        if self._service is None:
            return 0
        return self._call("asking for the queue", lambda: waiting_of(self.backend.status()))

    def close(self) -> None:
        """Close the session or batch; queued jobs still run. The next job opens another."""
        self._call(f"closing the {self._mode.kind}", self._mode.close)

    def _send(self, pubs: Sequence[Pub], precision: float, tag: str) -> tuple[str, Any]:
        """Send a job, in a new session or batch if the service closed the current one."""
        from qiskit_ibm_runtime import IBMRuntimeError

        sampled, settings, device = _is_sampled(pubs), self._estimator_settings, self.backend
        seed = self._seed(pubs, precision)
        if sampled:
            options = sampler_options(settings, tag, self._limit, seed)
            pubs, simulator = device_samples(pubs, self._snapshot)
            device = simulator or device
        else:
            options, pubs = settings.options(tag, self._limit, seed), device_pubs(pubs)
            if self._snapshot is not None and any(map(is_tiled, pubs)):
                job = LocalJobs(pubs, self._snapshot, partial(self._send_part, precision, options))
                return job_id_of(job), job
            if self._snapshot is not None:
                pubs, device = self._snapshot.cut(pubs)

        def run(target: Any) -> Any:
            if sampled:
                return runtime_sampler(target, options).run(pubs)
            return runtime_estimator(target, options).run(pubs, precision=precision)

        target = self._mode.target(device)
        try:
            job = run(target)
        except IBMRuntimeError as error:
            if not is_closed(error):
                raise
            _log.info("%s: the %s was closed; opening another.", self.name, self._mode.kind)
            self._mode.renew(target)
            job = run(self._mode.target(device))
        if self._service is not None and job.backend().name != self.backend.name:
            raise Unexpected(f"the answer says that the job is on {shown(job.backend().name)}")
        return job_id_of(job), job

    def _send_part(
        self, precision: float, options: dict[str, Any], pubs: Sequence[Pub], device: Any, number: int
    ) -> Any:
        """Send a part of a tiled job to a simulator, with a seed of its own."""
        if "simulator" in options:
            seed = options["simulator"]["seed_simulator"]
            options = options | {"simulator": {"seed_simulator": (seed + 2 * number) % 2**31}}  # odd, so never 0
        return runtime_estimator(self._mode.target(device), options).run(pubs, precision=precision)

    def _find(self, tag: str) -> dict[str, Any]:
        tags = PagedTags([tag])
        return tagged(self._service.jobs(job_tags=tags, limit=_MAX_FOUND, instance=self._instance), tag)

    def _seed(self, pubs: Sequence[Pub], precision: float) -> int | None:
        """Return a seed: different for each job, the same for the same job in another process."""
        if self._estimator_settings.seed is None:
            return None
        if _is_sampled(pubs):
            key = Request.of_samples(pubs, self.name, self.sampler_settings).key
        else:
            key = Request.of(pubs, precision, self.name, self.settings).key
        self._asked[key] += 1
        digest = hashlib.sha256(f"{key} {self._asked[key]}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1 | 1  # simulators take 31 bits, and 0 as no seed

    def _position(self, job: Any) -> int | None:
        try:
            return self._call("asking for the queue", lambda: position_of(job.metrics()))
        except BackendError:  # the position is optional
            return None

    def _reason(self, job: Any) -> str:
        """Return why a job failed."""
        try:
            if self._service is None:
                self._call("simulating a job", job.result)
                return ""
            return self._call.scrubbed(str(self._call("asking why a job failed", job.error_message) or ""))
        except BackendError as error:
            return str(error)

    def _job(self, job_id: str) -> Any:
        job = self._jobs.get(job_id)
        if job is None:
            if self._service is None:
                raise JobError(f"Job {job_id} on {self.name} is not there. {_GONE}")
            job = self._call("looking for a job", self._service.job, job_id)
            self._remember(job_id, job)
        return job

    def _remember(self, job_id: str, job: Any) -> None:
        """Remember a job's object, and forget the oldest."""
        self._jobs[job_id] = job
        while len(self._jobs) > _MAX_JOBS:
            oldest, _ = self._jobs.popitem(last=False)
            _LOCAL_TAGS.pop(oldest, None)


def _is_sampled(pubs: Sequence[Any]) -> bool:
    """Tell whether PUBs are a Sampler's; all of a job are of one kind."""
    return isinstance(pubs[0], SamplerPub)
