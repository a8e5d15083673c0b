"""A device as the ledger uses it: calls with retries and a circuit breaker, and every step of a job recorded."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pybreaker
import tenacity
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.jobs.device import RETRIES, Cost, Device, JobStatus, Values
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.ledger_file import Row, is_alive, new_owner
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError

T = TypeVar("T")
BACKOFF = 1.0  # seconds: the first wait is at most this, each later one at most twice the one before
LONGEST_BACKOFF = 60.0
FAILURES = 10  # consecutive ones, after which the circuit breaker opens
OPEN_SECONDS = 60.0  # how long it stays open

_LOG = logging.getLogger("qiskit_qattn.backends")
_BREAKERS: dict[str, tuple[pybreaker.CircuitBreaker, pybreaker.CircuitMemoryStorage]] = {}
_BREAKERS_LOCK = threading.Lock()


class Caller:
    r"""Calls functions of one device, and repeats calls that raise :class:`TransientBackendError`.

    The wait before attempt n is uniform between 0 and :math:`\min(2^{n-1}, 60)` seconds, or, where the service
    asked for a delay, that delay and up to a second more. After ten consecutive failures, of all callers in this
    process together, calls to the device fail at once for a minute; then one is tried.

    Args:
        device: Name of the device.
        retries: How often a call is repeated.
        sleep: Waits a number of seconds.
    """

    def __init__(self, device: str, retries: int, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.device = device
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retries + 1),
            wait=_wait,
            retry=tenacity.retry_if_exception_type(TransientBackendError),
            before_sleep=self._log,
            sleep=sleep,
            reraise=True,
        )

    def __call__(self, function: Callable[..., T], *args: Any) -> T:
        """Return what ``function(*args)`` returns.

        Raises:
            TransientBackendError: Of the last attempt.
            BackendError: The first that is not transient, or if the circuit breaker is open.
        """
        return self._retrying(self._once, function, *args)

    def _once(self, function: Callable[..., T], *args: Any) -> T:
        breaker, memory = _breaker(self.device)
        try:
            return breaker.call(function, *args)
        except pybreaker.CircuitBreakerError as error:
            until = (memory.opened_at or datetime.now(UTC)) + timedelta(seconds=breaker.reset_timeout)
            raise BackendError(
                f"{self.device} failed {breaker.fail_max} times in a row and is left alone until "
                f"{until.astimezone():%H:%M:%S}. Try again then."
            ) from error

    def _log(self, state: tenacity.RetryCallState) -> None:
        wait = state.next_action.sleep if state.next_action else 0.0
        _LOG.warning("%s: %s Trying again in %.1f s.", self.device, _error(state), wait)


def _breaker(device: str) -> tuple[pybreaker.CircuitBreaker, pybreaker.CircuitMemoryStorage]:
    """Return the circuit breaker of a device, one per process, and the storage with the time at which it opened."""
    with _BREAKERS_LOCK:
        if device not in _BREAKERS:
            memory = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
            breaker = pybreaker.CircuitBreaker(
                fail_max=FAILURES,
                reset_timeout=OPEN_SECONDS,
                exclude=[lambda error: not isinstance(error, TransientBackendError)],
                state_storage=memory,
                throw_new_error_on_trip=False,
            )
            _BREAKERS[device] = breaker, memory
        return _BREAKERS[device]


def _wait(state: tenacity.RetryCallState) -> float:
    error = _error(state)
    if isinstance(error, TransientBackendError) and error.retry_after is not None:
        return error.retry_after + random.uniform(0, BACKOFF)
    return random.uniform(0, min(BACKOFF * 2 ** (state.attempt_number - 1), LONGEST_BACKOFF))


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


class JobClient:
    """Sends jobs to a device and fetches their results, recording each step in the ledger.

    Args:
        ledger: Where every step is recorded.
        device: The device; calls that fail with a transient error are repeated.
        retries: How often a call is repeated.
    """

    def __init__(self, ledger: Ledger, device: Device, retries: int = RETRIES) -> None:
        self.ledger, self.device = ledger, device
        self.call = Caller(device.name, retries)

    def estimate(self, request: Request) -> Cost:
        """Return the estimated cost of a request."""
        return self.call(self.device.estimate, request.pubs, request.precision)

    def locate(self, row: Row) -> Row:
        """Look on the device for the job of a row in state ``sending``, and record its id if it is there."""
        ids = self.call(self.device.find, row.tag)
        if not ids:
            return row
        _LOG.info("%s job %s: found by its tag, not sent again", row.device, ids[0])
        return self.ledger.sent(row.id, ids[0])

    def send(self, row: Row, request: Request) -> Row:
        """Send the job of a row in state ``sending`` that the device does not have, and return the row.

        If an attempt got no answer, the tag is looked for before the next attempt.

        Raises:
            TransientBackendError: If no attempt was answered; the row stays ``sending``: the device may have the job.
            BackendError: If the device refused the job; the row is ``failed``.
        """
        unsure = False  # whether the device may have the job

        def attempt() -> str:
            nonlocal unsure
            if unsure:
                self.ledger.touch(row.id)
                ids = self.device.find(row.tag)
                if ids:
                    _LOG.info("%s job %s: found by its tag, not sent again", row.device, ids[0])
                    return ids[0]
            unsure = True
            try:
                return self.device.submit(request.pubs, request.precision, row.tag)
            except TransientBackendError:
                raise
            except BackendError:
                unsure = False
                raise

        try:
            job_id = self.call(attempt)
        except BackendError as error:
            if not unsure:
                self.ledger.close(row.id, "failed", str(error), Cost())
            raise
        return self.ledger.sent(row.id, job_id)

    def collect(self, row: Row, pubs: Sequence[EstimatorPub], owner: str = "") -> tuple[Row, JobStatus]:
        """Ask once for the job of a row in state ``sent``; if it has ended, record its result or failure.

        A job that runs inside another live process is left to that process.

        Args:
            row: The row.
            pubs: The PUBs of the job.
            owner: The caller's owner mark.

        Raises:
            BackendError: If the device does not answer, or returns values of another shape; the row stays ``sent``.
        """
        job_id = row.job_id or ""
        try:
            status = self.call(self.device.status, job_id)
            if status.state == "done":
                values = self.call(self.device.result, job_id, pubs)
                _check(values, pubs, row)
                return self.ledger.finish(row.id, values, self._usage(row)), status
        except JobError as error:
            status = JobStatus("failed", message=str(error))
        if status.state == "lost":
            if row.owner != owner and is_alive(row.owner, row.updated):
                return row, JobStatus("running")
            return self.ledger.close(row.id, "failed", status.message, Cost()), status
        if status.state == "failed" or status.state == "cancelled":
            return self.ledger.close(row.id, status.state, status.message, self._usage(row)), status
        return row, status

    def _usage(self, row: Row) -> Cost | None:
        """Return what a job cost, in dollars as estimated if the device reports none; None if it does not answer."""
        try:
            used = self.call(self.device.usage, row.job_id or "")
        except BackendError as error:
            _LOG.warning("%s job %s: its usage is not known, the estimate counts. %s", row.device, row.job_id, error)
            return None
        usd = row.estimate.usd if used.usd is None else used.usd
        return Cost(used.jobs, used.circuits, used.shots, used.seconds, usd)


def resume(ledger: Ledger, row: Row, device: Device) -> Row:
    """Fetch the result of a row in flight, if its job has ended, and return the row; nothing is sent.

    Raises:
        BackendError: If the device is not the row's, or cannot report the job's status.
    """
    row = _current(ledger, row, device)
    client = JobClient(ledger, device)
    if row.state == "sending" and not is_alive(row.owner, row.updated):
        row = client.locate(row)
    return client.collect(row, ledger.request(row.id).pubs)[0] if row.state == "sent" else row


def cancel(ledger: Ledger, row: Row, device: Device) -> Row:
    """Cancel the job of a row in flight, and return the row, which stays ``sent`` until the device confirms it.

    Raises:
        BackendError: If another process is sending the job, the device is not the row's, or it refuses.
    """
    row = _current(ledger, row, device)
    client, owner = JobClient(ledger, device), new_owner()
    if row.state == "sending":
        row = ledger.take(row.id, owner)
        if row.state == "sending" and row.owner != owner:
            raise BackendError(f"Job {row.tag} is just being sent by another process; cancel it when it is sent.")
        try:
            row = client.locate(row) if row.state == "sending" else row
            if row.state == "sending":
                client.call(device.abandon, row.tag)
                return ledger.close(row.id, "cancelled", "it never reached the device completely", Cost())
        finally:
            ledger.release(owner)
    if row.state == "sent":
        with suppress(JobError):  # the job is not there; collect() records why
            client.call(device.cancel, row.job_id or "")
        row, _ = client.collect(row, ledger.request(row.id).pubs)
    return row


def _check(values: Sequence[Values], pubs: Sequence[EstimatorPub], row: Row) -> None:
    found = [(item.evs.shape, item.stds.shape) for item in values]
    expected = [(pub.shape, pub.shape) for pub in pubs]
    if found != expected:
        raise BackendError(
            f"Job {row.job_id} on {row.device} returned values and errors of shapes {found}, expected {expected}."
        )


def _current(ledger: Ledger, row: Row, device: Device) -> Row:
    """Return the current state of a row, which must belong to the device."""
    if row.device != device.name:
        raise BackendError(f"Row {row.id} is a job on {row.device}, not on {device.name}.")
    return ledger.row(row.id)
