"""A device as the ledger uses it: every step of a job recorded, from before it is sent until its result is stored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from qiskit_qattn.backends.jobs import retries
from qiskit_qattn.backends.jobs.device import RETRIES, Bits, Cost, Device, JobStatus, Pub, Values, check_job
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.owners import Owner
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.jobs.retries import Caller, OutOfTime
from qiskit_qattn.backends.jobs.rows import Row
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError

LAG = (0.0, 1.0, 2.0, 4.0)  # seconds before each look for a tag, times BACKOFF, as lists of jobs may be late
COMMAND_SECONDS = 20.0  # how long resume and cancel go on after a first failure, as someone waits for them
_LOG = logging.getLogger("qiskit_qattn.backends")


class JobClient:
    """Sends jobs to a device and fetches their results, recording each step in the ledger.

    Args:
        ledger: Where every step is recorded.
        device: The device; calls that fail with a transient error are repeated.
        retries: How often a call is repeated.
    """

    def __init__(self, ledger: Ledger, device: Device, retries: int = RETRIES) -> None:
        self.ledger, self.device = ledger, device
        self.call, self._timeout = Caller(device.name, retries), 0.0
        self._call_once = Caller(device.name, 0)

    def within(self, timeout: float | None, deadline: float | None = None) -> JobClient:
        """Return a client whose waits end by a deadline, or else ``timeout`` seconds after the first failure."""
        client = JobClient(self.ledger, self.device, self.call.retries)
        if timeout is not None:
            client.call = Caller(self.device.name, self.call.retries, limit=timeout, deadline=deadline)
            client._timeout = timeout
        return client

    def estimate(self, request: Request) -> Cost:
        """Return the estimated cost of a request."""
        return self.call.here(self.device.estimate, request.pubs, request.precision)

    def locate(self, row: Row) -> Row:
        """Look on the device for the job of a row in state ``sending``, and record its id if it is there."""
        try:
            ids = self.call(self._look, row)
        except OutOfTime as error:
            raise self._timed_out(row, error) from error
        return self._found(row, ids) if ids else row

    def send(self, row: Row, request: Request) -> Row:
        """Send the job of a row in state ``sending`` that the device does not have, and return the row.

        If an attempt got no answer, the tag is looked for before the next attempt.

        Raises:
            TransientBackendError: If no attempt was answered; the row stays ``sending``: the device may have the job.
            BackendError: If the device refused the job; the row is ``failed``, unless an earlier attempt got no answer.
        """
        unsure = False  # whether the device may have the job

        def attempt() -> tuple[list[str], str]:
            nonlocal unsure
            if unsure and (ids := self._look(row)):
                return ids, ""
            before, unsure = unsure, True
            try:
                return [], self.device.submit(request.pubs, request.precision, row.tag)
            except TransientBackendError as error:
                unsure = before or not error.unsent
                raise
            except BackendError:
                unsure = before
                raise

        try:
            found, sent = self.call(attempt)
        except BackendError as error:
            if not unsure:
                self.ledger.close(row.id, "failed", str(error), Cost())
            elif isinstance(error, OutOfTime):
                raise self._timed_out(row, error) from error
            raise
        return self._found(row, found) if found else self.ledger.sent(row.id, sent)

    def _look(self, row: Row) -> list[str]:
        """Return the ids of the jobs with a row's tag, oldest first; a list that may be late is read several times."""
        for wait in LAG if self.device.paid else LAG[:1]:
            self.call.pause(wait * retries.BACKOFF)
            if ids := self.device.find(row.tag):
                return ids
        return []

    def _found(self, row: Row, ids: Sequence[str]) -> Row:
        """Record the oldest job with a row's tag, and cancel the others, which were sent by mistake."""
        first, *copies = ids
        _LOG.info("%s job %s: found by its tag, not sent again", row.device, first)
        notes = []
        for copy in copies:
            try:
                self.call(self.device.cancel, copy)
                notes.append(f"its copy {copy} was cancelled")
            except BackendError as error:
                notes.append(f"its copy {copy} could not be cancelled and may be charged: {error}")
        if notes:
            _LOG.warning("%s job %s was sent more than once: %s", row.device, first, "; ".join(notes))
        return self.ledger.sent(row.id, first, "; ".join(notes))

    def collect(self, row: Row, pubs: Sequence[Pub], owner: Owner | None = None) -> tuple[Row, JobStatus]:
        """Ask once for the job of a row in state ``sent``; if it has ended, record its result or failure.

        A job that runs inside another live process is left to that process: the status is ``lost``, the row ``sent``.

        Args:
            row: The row.
            pubs: The PUBs of the job.
            owner: The caller, if it owns rows.

        Raises:
            BackendError: If there is no answer that can be read; the row stays ``sent``, as the job may be paid for.
        """
        try:
            status = self.call(self.device.status, row.job_id or "")
            if status.state == "done":
                try:
                    values = self.call(self._values, row, pubs)
                except JobError as error:  # the device's word that it failed
                    status = JobStatus("failed", message=str(error))
                else:
                    return self.ledger.finish(row.id, values, self._usage(row, self.call)), status
        except OutOfTime as error:
            raise self._timed_out(row, error) from error
        except BackendError as error:
            if (found := self._other_id(row, error)) is not None:
                return found, JobStatus("queued")
            raise _kept(row, error) from error
        if status.state == "lost":
            if (owner is None or row.owner != owner.mark) and self.ledger.is_alive(row.owner):
                return row, status
            return self.ledger.close(row.id, "failed", status.message, Cost()), status
        if status.state == "failed" or status.state == "cancelled":
            return self.ledger.close(row.id, status.state, status.message, self._usage(row, self.call)), status
        return row, status

    def _other_id(self, row: Row, error: BackendError) -> Row | None:
        """Return the row with the id of the job that has its tag, if that is not the id that an answer once gave."""
        if isinstance(error, TransientBackendError):
            return None
        try:
            ids = self.call(self.device.find, row.tag)
        except BackendError:
            return None
        return self._found(row, ids) if ids and row.job_id not in ids else None

    def _timed_out(self, row: Row, error: OutOfTime) -> BackendError:
        return BackendError(
            f"Job {row.job_id or row.tag} on {row.device} has not ended after {self._timeout:g} s. {error} It was not "
            f"cancelled; the next run of the same request picks it up."
        )

    def _values(self, row: Row, pubs: Sequence[Pub]) -> Sequence[Values | Bits]:
        values = self.device.result(row.job_id or "", pubs)
        try:
            check_job(values, pubs, "It")
        except BackendError as error:  # the result may be whole the next time
            raise TransientBackendError(str(error)) from error
        return values

    def ask_usage(self, row: Row) -> Row:
        """Ask once what a job that has ended cost, record it if it is known by now, and return the row."""
        used = self._usage(row, self._call_once)
        return row if used is None else self.ledger.settle(row.id, used)

    def _usage(self, row: Row, call: Caller) -> Cost | None:
        """Return what a job cost, in dollars as estimated if the device reports none; None if that is not known."""
        unknown = "%s job %s: its usage is not known, the estimate counts. %s"
        try:
            used = call(self.device.usage, row.job_id or "")
        except BackendError as error:
            _LOG.warning(unknown, row.device, row.job_id, error)
            return None
        usd = row.estimate.usd if used.usd is None else used.usd
        cost = Cost(used.jobs, used.circuits, used.shots, used.seconds, usd)
        if not cost.is_valid:
            _LOG.warning(unknown, row.device, row.job_id, f"The device reports {cost}.")
            return None
        return cost


def resume(ledger: Ledger, row: Row, device: Device) -> Row:
    """Fetch the result of a row in flight, if its job has ended, and return the row; nothing is sent.

    Of a job that has ended, what it cost is asked for if that is not known.

    Raises:
        BackendError: If the device is not the row's, or cannot report the job's status.
    """
    row = _current(ledger, row, device)
    client = JobClient(ledger, device).within(COMMAND_SECONDS)
    if row.state == "sending" and not ledger.is_alive(row.owner):
        row = client.locate(row)
    if row.state == "sent":
        return client.collect(row, ledger.request(row.id).pubs)[0]
    return client.ask_usage(row) if row.is_unsettled else row


def cancel(ledger: Ledger, row: Row, device: Device) -> Row:
    """Cancel the job of a row in flight, and return the row, which stays ``sent`` until the device confirms it.

    Raises:
        BackendError: If another process is sending the job, the device is not the row's, or it refuses.
    """
    row = _current(ledger, row, device)
    client, owner = JobClient(ledger, device).within(COMMAND_SECONDS), ledger.new_owner()
    if row.state == "sending":
        row = ledger.take(row.id, owner)
        if row.state == "sending" and row.owner != owner.mark:
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


def _kept(row: Row, error: BackendError) -> BackendError:
    """Return an error of a call about a job that is on its way or done, with what to do."""
    kind = TransientBackendError if isinstance(error, TransientBackendError) else BackendError
    return kind(
        f"Job {row.job_id} on {row.device}: {str(error).rstrip('.')}. It may be paid for, and the ledger keeps it: the "
        f"next run of the same request asks again, as does: qattn jobs resume {row.id}."
    )


def _current(ledger: Ledger, row: Row, device: Device) -> Row:
    """Return the current state of a row, which must belong to the device."""
    if row.device != device.name:
        raise BackendError(f"Row {row.id} is a job on {row.device}, not on {device.name}.")
    return ledger.row(row.id)
