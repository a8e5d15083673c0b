"""Jobs of a ledger on their way to one device and back: each step written down, none sent twice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.jobs.device import RETRIES, Cost, Device, JobStatus, Values
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.ledger_rows import Row
from qiskit_qattn.backends.jobs.owners import lives, new_owner
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.jobs.resilience import Caller
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError

_LOG = logging.getLogger("qiskit_qattn.backends")


class Courier:
    """Takes jobs to a device and brings results back.

    Args:
        ledger: Where every step is written.
        device: The device; its calls are repeated while they fail for a while.
        retries: How often a call is repeated.
    """

    def __init__(self, ledger: Ledger, device: Device, retries: int = RETRIES) -> None:
        self.ledger, self.device = ledger, device
        self.call = Caller(device.name, retries)

    def estimate(self, request: Request) -> Cost:
        """Return what a request would take."""
        return self.call(self.device.estimate, request.pubs, request.precision)

    def locate(self, row: Row) -> Row:
        """Look on the device for the job of a row in state ``sending``, and note its id if it is there."""
        ids = self.call(self.device.find, row.tag)
        if not ids:
            return row
        _LOG.info("%s job %s: found by its tag, not sent again", row.device, ids[0])
        return self.ledger.sent(row.id, ids[0])

    def send(self, row: Row, request: Request) -> Row:
        """Send the job of a row in state ``sending`` that the device does not have, and return the row.

        A try whose answer did not come is followed by a look for the tag before the next.

        Raises:
            TransientBackendError: If no try was answered; the row stays ``sending``, since the device may have the job.
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
        """Look once at the job of a row in state ``sent``; if it has ended, write down its result or failure.

        A job that runs in another process that lives is left to that process.

        Args:
            row: The row.
            pubs: The PUBs of the job.
            owner: Who asks.

        Raises:
            BackendError: If the device cannot say, or returns values of another shape; the row stays ``sent``.
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
            if row.owner != owner and lives(row.owner, row.updated):
                return row, JobStatus("running")
            return self.ledger.close(row.id, "failed", status.message, Cost()), status
        if status.state == "failed" or status.state == "cancelled":
            return self.ledger.close(row.id, status.state, status.message, self._usage(row)), status
        return row, status

    def _usage(self, row: Row) -> Cost | None:
        """Return what a job took; dollars as estimated where the device tells none. None where it does not answer."""
        try:
            used = self.call(self.device.usage, row.job_id or "")
        except BackendError as error:
            _LOG.warning("%s job %s: its usage is not known, the estimate counts. %s", row.device, row.job_id, error)
            return None
        usd = row.estimate.usd if used.usd is None else used.usd
        return Cost(used.jobs, used.circuits, used.shots, used.seconds, usd)


def resume(ledger: Ledger, row: Row, device: Device) -> Row:
    """Bring the result of a row in flight, if its job has ended, and return the row; nothing is sent.

    Raises:
        BackendError: If the device is not the row's, or cannot say how the job stands.
    """
    row = _current(ledger, row, device)
    courier = Courier(ledger, device)
    if row.state == "sending" and not lives(row.owner, row.updated):
        row = courier.locate(row)
    return courier.collect(row, ledger.request(row.id).pubs)[0] if row.state == "sent" else row


def cancel(ledger: Ledger, row: Row, device: Device) -> Row:
    """Cancel the job of a row in flight, and return the row: ``sent`` as long as the device has not confirmed it.

    Raises:
        BackendError: If another process is about to send the job, the device is not the row's, or it refuses.
    """
    row = _current(ledger, row, device)
    courier, owner = Courier(ledger, device), new_owner()
    if row.state == "sending":
        row = ledger.take(row.id, owner)
        if row.state == "sending" and row.owner != owner:
            raise BackendError(f"Job {row.tag} is just being sent by another process; cancel it when it is sent.")
        try:
            row = courier.locate(row) if row.state == "sending" else row
            if row.state == "sending":
                courier.call(device.abandon, row.tag)
                return ledger.close(row.id, "cancelled", "it never reached the device as a whole", Cost())
        finally:
            ledger.release(owner)
    if row.state == "sent":
        with suppress(JobError):  # it is not there; collecting says why
            courier.call(device.cancel, row.job_id or "")
        row, _ = courier.collect(row, ledger.request(row.id).pubs)
    return row


def _check(values: Sequence[Values], pubs: Sequence[EstimatorPub], row: Row) -> None:
    found = [(item.evs.shape, item.stds.shape) for item in values]
    expected = [(pub.shape, pub.shape) for pub in pubs]
    if found != expected:
        raise BackendError(
            f"Job {row.job_id} on {row.device} returned values and errors of shapes {found}, expected {expected}."
        )


def _current(ledger: Ledger, row: Row, device: Device) -> Row:
    """Return a row as it is now, which must be of the device."""
    if row.device != device.name:
        raise BackendError(f"Row {row.id} is a job on {row.device}, not on {device.name}.")
    return ledger.row(row.id)
