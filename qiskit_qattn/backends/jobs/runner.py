"""Jobs on a queued, perhaps paid, device: each recorded first, sent once, within the budget; for any primitive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from qiskit.primitives import BasePrimitiveJob, PrimitiveJob, PrimitiveResult

from qiskit_qattn.backends.jobs.budget import Account, Budget, check_choice
from qiskit_qattn.backends.jobs.client import JobClient, cancel
from qiskit_qattn.backends.jobs.device import RETRIES, Cost, Device, JobStatus
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.owners import Owner
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.jobs.rows import IN_FLIGHT, Row
from qiskit_qattn.errors import BackendError, JobError

#: Makes the results of a request's PUBs from what the ledger has stored of them, and what is said of the job.
Decode = Callable[[Request, Sequence[Any], Mapping[str, Any]], list[Any]]
FIRST_POLL, LONGEST_POLL = 0.05, 10.0  # seconds between two status requests; each wait is 1.5 times the last
REPORT_AGAIN = 300.0  # seconds after which a job that still waits is reported again
LONGEST_ELSEWHERE = 600.0  # seconds to wait for another process that works on a job but says nothing of it
_ELSEWHERE = "another process or thread works on the same request; waiting for its job"
_LOG = logging.getLogger("qiskit_qattn.backends")


class JobRunner:
    """What the primitives of one device share: its ledger, its budget, and what was sent.

    A request that was answered before takes the stored result. One whose job is on its way, sent by this process or by
    another, even one that has ended, waits for that job.

    Args:
        device: Where jobs run.
        ledger: Where they are recorded.
        budget: What jobs may cost in total; required for a paid device. It counts the jobs on the device that are
            recorded in the ledger from now on, whichever process sends them, and earlier ones that are taken over.
        cache: Whether stored results may answer. Without, each run is a new job, unless a job of the same request was
            sent and its run has ended.
        timeout: Seconds to wait for a job, or None for no limit.
        retries: How often a call to the device is repeated after a transient error.
        choice: What the device was chosen by, if it was; see :func:`check_choice`.

    Attributes:
        jobs_sent: Jobs that were sent.
        jobs_cached: Requests that stored results answered.
        jobs_attached: Requests that a job sent earlier answered.
        account: What the jobs cost.
    """

    def __init__(
        self,
        device: Device,
        *,
        ledger: Ledger,
        budget: Budget | None = None,
        cache: bool = True,
        timeout: float | None = None,
        retries: int = RETRIES,
        choice: str = "",
    ) -> None:
        self.device, self.ledger, self.budget = device, ledger, budget
        self.cache, self.timeout = cache, timeout
        self.choice = choice if cache else ""
        self.client = JobClient(ledger, device, retries)
        self.jobs_sent = self.jobs_cached = self.jobs_attached = 0
        self.account = Account(self.client)

    @property
    def spent(self) -> Cost:
        """What the jobs cost, as estimated while it is not known. Stored results cost nothing."""
        return self.account.spent

    def update_usage(self) -> None:
        """Ask what jobs cost that have ended and whose cost the device had not counted by then.

        Raises:
            BackendError: If the ledger cannot be used.
        """
        self.account.ask_usage(self.budget)

    def start(self, request: Request, decode: Decode) -> BasePrimitiveJob[Any, Any]:
        """Return the job of a request, which is sent unless it was before; one of no PUBs is none on the device.

        Raises:
            ConfigError: For a job that another device has than the one chosen.
            BudgetError: If the job would pass the budget, or the device is paid and there is none; nothing was sent.
            BackendError: If the device refuses the job or does not answer.
        """
        if request.pubs:
            return ManagedJob(self, request, decode)
        empty: PrimitiveJob[Any] = PrimitiveJob(PrimitiveResult, [])
        empty._submit()
        return empty

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return this object: copies share the session, budget and ledger."""
        return self


class ManagedJob(BasePrimitiveJob[PrimitiveResult, str]):
    """A job that was sent or found; ``result`` waits for it.

    Args:
        runner: The runner, whose budget and counters it uses.
        request: What to run.
        decode: Makes the results of the PUBs from what the ledger has stored of them, and what is said of the job.

    Raises:
        BudgetError: If the job would pass the budget; nothing was sent.
        BackendError: If the device refuses the job, or does not answer.
    """

    def __init__(self, runner: JobRunner, request: Request, decode: Decode) -> None:
        super().__init__(request.key)
        self._runner, self._request, self._decode = runner, request, decode
        self._client, self._ledger = runner.client.within(runner.timeout), runner.ledger
        self._owner = self._ledger.new_owner()
        self._result: PrimitiveResult | None = None
        self._started = time.monotonic()
        self._reported: tuple[str, float] = ("", 0.0)  # what, and when
        self._sent = False
        ready = False
        try:
            self._row = self._advance()
            ready = True
        finally:
            if not ready:  # the next run of the same request becomes the owner
                self._release()
        self._cached = self._row.state == "done"
        if self._row.state == "sending":
            self._report(self._row, _ELSEWHERE)
        if self._cached:
            self._owner.end()
            runner.jobs_cached += 1
        elif not self._sent:
            runner.jobs_attached += 1

    def job_id(self) -> str:
        """Return the device's id of the job, or the tag as long as none is known."""
        return self._row.job_id or self._row.tag

    def result(self) -> PrimitiveResult:
        """Return what the job measured, waiting for it.

        Raises:
            JobError: If the job failed or was cancelled.
            BackendError: If it did not end in time, or the device does not answer. The next run picks the job up.
        """
        if self._result is None:
            try:
                self._wait()
            finally:
                self._release()
            about = {
                "job_id": self.job_id(),
                "cached": self._cached,
                "shots": self._request.shots,
                "device": self._row.device,
            }
            results = self._decode(self._request, self._ledger.values(self._row.id), about)
            self._result = PrimitiveResult(results, metadata=about | {"version": 2})
        return self._result

    def status(self) -> str:
        """Return ``sending``, ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``."""
        self._row = self._ledger.row(self._row.id)
        if self._row.state != "sent":
            return self._row.state
        return self._client.call(self._client.device.status, self._row.job_id or "").state

    def done(self) -> bool:
        """Return whether the result is available."""
        return self.status() == "done"

    def running(self) -> bool:
        """Return whether the device runs it."""
        return self.status() == "running"

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self.status() == "cancelled"

    def in_final_state(self) -> bool:
        """Return whether it has ended, successfully or not."""
        return self.status() in {"done", "failed", "cancelled"}

    def cancel(self) -> None:
        """Ask the device to cancel it."""
        self._row = cancel(self._ledger, self._ledger.row(self._row.id), self._client.device)

    def _working(self) -> Owner:
        """Return the owner of what this job does now, another than before once that has ended or was forked."""
        if not self._owner.at_work:
            self._owner = self._ledger.new_owner()
        return self._owner

    def _release(self) -> None:
        """Give up the row. Its owner has ended in any case, which is what others look at."""
        try:
            self._ledger.release(self._owner)
        except BackendError as error:
            _LOG.info("%s", error)

    def _advance(self) -> Row:
        """Return the row that answers the request; its job is sent if nobody else sends it."""
        runner, request, account = self._runner, self._request, self._runner.account
        owner = self._working()
        while True:
            row = self._ledger.claim(request.key, owner, cached=runner.cache)
            if row is None:
                check_choice(self._ledger, request, runner.choice)
                estimate = self._client.estimate(request)
                runner.update_usage()
                row = account.open(request, owner, estimate, runner.budget, runner.cache)
                if row is not None:
                    return self._send(row)
            else:
                if row.owner == owner.mark:  # its owner has ended or gave up
                    row = self._client.locate(row) if row.state == "sending" else row
                    if row.state == "sending":
                        return self._send(account.reserve(row, runner.budget))
                    account.charge(row)
                return row

    def _send(self, row: Row) -> Row:
        try:
            row = self._client.send(row, self._request)
        except BackendError:
            self._runner.account.settle(self._ledger.row(row.id))  # 0 if the device refused it
            raise
        self._sent = True
        self._runner.jobs_sent += 1
        _LOG.info("%s job %s: sent", row.device, row.job_id)
        return row

    def _wait(self) -> None:
        """Wait until the row is in a final state."""
        timeout, others = self._runner.timeout, None
        deadline = None if timeout is None else time.monotonic() + timeout
        self._client = self._runner.client.within(timeout, deadline)
        for pause in _pauses():
            row = self._ledger.row(self._row.id)
            if row.state == "sending":
                row = self._advance()
            elsewhere = row.state == "sending"
            if row.state == "sent":
                row, status = self._client.collect(row, self._request.pubs, self._working())
                elsewhere = status.state == "lost" and row.state == "sent"
                if not elsewhere:
                    self._report(row, _told(status))
                if status.state == "lost" and row.state == "failed":
                    self._runner.account.settle(row)
                    _LOG.info("%s job %s: %s It is sent again.", row.device, row.job_id, status.message)
                    row = self._advance()
            self._row = row
            if row.state not in IN_FLIGHT:
                break
            now = time.monotonic()
            others = (others or now) if elsewhere else None
            if others is not None:
                self._report(row, _ELSEWHERE)
                if now - others >= LONGEST_ELSEWHERE:
                    raise BackendError(
                        f"Another process or thread has worked on job {self.job_id()} on {row.device} for "
                        f"{now - others:.0f} s without a result. Nothing was sent again. If it hangs, end it, and the "
                        f"next run picks the job up."
                    )
            if deadline is not None and now >= deadline:
                raise BackendError(
                    f"Job {self.job_id()} on {row.device} has not ended after {timeout:g} s (state: {row.state}). It "
                    f"was not cancelled; the next run of the same request picks it up."
                )
            time.sleep(pause if deadline is None else min(pause, max(0.0, deadline - now)))
        self._runner.account.settle(row)
        if row.state != "done":
            why = f": {row.error.rstrip('.')}" if row.error else ""
            verb = "failed" if row.state == "failed" else "was cancelled"
            raise JobError(f"Job {self.job_id()} on {row.device} {verb}{why}. The next run sends it again.")

    def _report(self, row: Row, what: str) -> None:
        """Log what the job does, once, and again after a while if that stays the same."""
        now, (last, when) = time.monotonic(), self._reported
        if what == last and now - when < REPORT_AGAIN:
            return
        self._reported = what, now
        used = f", used {row.used.seconds:.3g} s" if row.used is not None else ""
        _LOG.info("%s job %s: %s, %.0f s elapsed%s", row.device, self.job_id(), what, now - self._started, used)


def _told(status: JobStatus) -> str:
    return status.state if status.position is None else f"{status.state}, position {status.position}"


def _pauses() -> Iterator[float]:
    pause = FIRST_POLL
    while True:
        yield pause
        pause = min(1.5 * pause, LONGEST_POLL)
