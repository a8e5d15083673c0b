"""One request on its way: answered from the ledger, by a job that runs already, or by a new one."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qiskit.primitives import BasePrimitiveJob, DataBin, PrimitiveResult, PubResult

from qiskit_qattn.backends.jobs.courier import cancel
from qiskit_qattn.backends.jobs.device import JobStatus
from qiskit_qattn.backends.jobs.ledger_rows import IN_FLIGHT, Row
from qiskit_qattn.backends.jobs.owners import new_owner
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.errors import BackendError, JobError

if TYPE_CHECKING:
    from qiskit_qattn.backends.jobs.managed import ManagedEstimator

FIRST_POLL, LONGEST_POLL = 0.05, 10.0  # seconds between two looks at a job; each wait is half as long again
_LOG = logging.getLogger("qiskit_qattn.backends")


class ManagedJob(BasePrimitiveJob[PrimitiveResult, str]):
    """What :meth:`ManagedEstimator.run` returns. Made, it has been sent or found; ``result`` waits for it.

    Args:
        estimator: The estimator, whose budget and counters it uses.
        request: What to run.

    Raises:
        BudgetError: If the job would pass the budget; nothing was sent.
        BackendError: If the device refuses the job, or does not answer.
    """

    def __init__(self, estimator: ManagedEstimator, request: Request) -> None:
        super().__init__(request.key)
        self._estimator, self._request = estimator, request
        self._courier, self._ledger = estimator.courier, estimator.ledger
        self._owner = new_owner()
        self._result: PrimitiveResult | None = None
        self._started = time.monotonic()
        self._reported: JobStatus | None = None
        self._sent = False
        ready = False
        try:
            self._row = self._advance()
            ready = True
        finally:
            if not ready:  # the next request takes over
                self._ledger.release(self._owner)
        self._cached = self._row.state == "done"
        if self._row.state == "sending":
            _LOG.info("%s: another process is sending the same request; waiting for its job", self._row.device)
        if self._cached:
            estimator.jobs_cached += 1
        elif not self._sent:
            estimator.jobs_attached += 1

    def job_id(self) -> str:
        """Return the device's id of the job, or the tag as long as none is known."""
        return self._row.job_id or self._row.tag

    def result(self) -> PrimitiveResult:
        """Return expectations and standard errors, waiting for the job.

        Raises:
            JobError: If the job failed or was cancelled.
            BackendError: If it did not end in time, or the device does not answer. The next run picks the job up.
        """
        if self._result is None:
            try:
                self._wait()
            finally:
                self._ledger.release(self._owner)
            self._result = self._decode()
        return self._result

    def status(self) -> str:
        """Return ``sending``, ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``."""
        self._row = self._ledger.row(self._row.id)
        if self._row.state != "sent":
            return self._row.state
        return self._courier.call(self._courier.device.status, self._row.job_id or "").state

    def done(self) -> bool:
        """Return whether the result is there."""
        return self.status() == "done"

    def running(self) -> bool:
        """Return whether the device works on it."""
        return self.status() == "running"

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self.status() == "cancelled"

    def in_final_state(self) -> bool:
        """Return whether it has ended, well or not."""
        return self.status() in {"done", "failed", "cancelled"}

    def cancel(self) -> None:
        """Ask the device to cancel it."""
        self._row = cancel(self._ledger, self._ledger.row(self._row.id), self._courier.device)

    def _mine(self, row: Row) -> bool:
        return row.owner == self._owner

    def _advance(self) -> Row:
        """Return the row that answers the request, its job sent if that is ours to do."""
        estimator, request = self._estimator, self._request
        while True:
            row = self._ledger.claim(request.key, self._owner, cached=estimator.cache)
            if row is None:
                estimate = self._courier.estimate(request)
                row = estimator.open(request, self._owner, estimate)
                if row is not None:
                    return self._send(row)
            elif row.state == "sending" and self._mine(row):  # of a process that is gone, or that gave up
                row = self._courier.locate(row)
                if row.state == "sending":
                    estimator.reserve(row)
                    return self._send(row)
                estimator.charge(row)
                return row
            else:
                if self._mine(row):
                    estimator.charge(row)
                return row

    def _send(self, row: Row) -> Row:
        try:
            row = self._courier.send(row, self._request)
        except BackendError:
            self._estimator.charge(self._ledger.row(row.id))  # nothing, if the device refused it
            raise
        self._sent = True
        self._estimator.jobs_sent += 1
        _LOG.info("%s job %s: sent", row.device, row.job_id)
        return row

    def _wait(self) -> None:
        """Bring the row to its end."""
        timeout = self._estimator.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            row = self._ledger.row(self._row.id)
            if row.state == "sending":
                row = self._advance()
            if row.state == "sent":
                row, status = self._courier.collect(row, self._request.pubs, self._owner)
                self._report(row, status)
                if status.state == "lost" and row.state == "failed":
                    self._estimator.settle(row)
                    _LOG.info("%s job %s: %s It is sent again.", row.device, row.job_id, status.message)
                    row = self._advance()
            self._row = row
            if row.state not in IN_FLIGHT:
                break
            if deadline is not None and time.monotonic() >= deadline:
                raise BackendError(
                    f"Job {self.job_id()} on {row.device} has not ended after {timeout:g} s (state: {row.state}). It "
                    f"was not cancelled; the next run of the same request picks it up."
                )
            time.sleep(pause if deadline is None else min(pause, max(0.0, deadline - time.monotonic())))
        self._estimator.settle(row)
        if row.state != "done":
            why = f": {row.error.rstrip('.')}" if row.error else ""
            verb = "failed" if row.state == "failed" else "was cancelled"
            raise JobError(f"Job {self.job_id()} on {row.device} {verb}{why}. The next run sends it again.")

    def _report(self, row: Row, status: JobStatus) -> None:
        if status == self._reported:
            return
        self._reported = status
        place = f", position {status.position}" if status.position is not None else ""
        used = f", used {row.used.seconds:.3g} s" if row.used is not None else ""
        elapsed = time.monotonic() - self._started
        _LOG.info("%s job %s: %s%s, %.0f s elapsed%s", row.device, row.job_id, status.state, place, elapsed, used)

    def _decode(self) -> PrimitiveResult:
        """Return what the ledger holds of the job, as an Estimator returns it."""
        about = {
            "job_id": self.job_id(),
            "cached": self._cached,
            "shots": self._request.shots,
            "device": self._row.device,
        }
        results = []
        for pub, item in zip(self._request.pubs, self._ledger.values(self._row.id), strict=True):
            data = DataBin(evs=item.evs, stds=item.stds, shape=pub.shape)
            metadata = about | {"target_precision": pub.precision, "circuit_metadata": pub.circuit.metadata}
            results.append(PubResult(data, metadata=metadata))
        return PrimitiveResult(results, metadata=about | {"version": 2})


def _pauses() -> Iterator[float]:
    pause = FIRST_POLL
    while True:
        yield pause
        pause = min(1.5 * pause, LONGEST_POLL)
