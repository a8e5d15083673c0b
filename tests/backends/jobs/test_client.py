"""Jobs in flight, resumed or cancelled from the ledger alone, without the code that sent them."""

import pytest

from qiskit_qattn.backends.jobs.client import cancel, resume
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.errors import BackendError

from .disk_client import PRECISION, small_pubs
from .disk_device import DiskDevice


@pytest.fixture
def device(tmp_path):
    return DiskDevice(tmp_path / "device")


@pytest.fixture
def request_(device):
    return Request.of(small_pubs(), PRECISION, device.name, device.settings)


@pytest.fixture
def sent(device, ledger):
    """Return the row of a job that waits in the device's queue."""
    device.hold()
    ManagedEstimator(device, ledger=ledger, precision=PRECISION).run(small_pubs())
    return ledger.rows()[0]


@pytest.fixture
def lost(device, ledger, request_):
    """Return the row of a job of a process that is gone, which may have sent it."""
    owner = ledger.new_owner()
    row = ledger.open(request_, owner, Cost(seconds=2.0))
    ledger.release(owner)
    return row


def test_resume_brings_the_result_of_a_finished_job(device, ledger, sent):
    assert resume(ledger, sent, device).state == "sent"
    device.free()
    row = resume(ledger, sent, device)
    assert (row.state, row.used.seconds) == ("done", 2.0)
    assert resume(ledger, row, device) == row
    result = ManagedEstimator(device, ledger=ledger, precision=PRECISION).run(small_pubs()).result()
    assert result[0].metadata["cached"] and len(device.jobs) == 1


def test_resume_notes_a_failure(device, ledger, sent):
    device.free("failed")
    row = resume(ledger, sent, device)
    assert (row.state, row.error) == ("failed", "the qubits melted")


def test_resume_looks_for_a_lost_job_and_sends_nothing(device, ledger, lost, request_):
    assert resume(ledger, lost, device).state == "sending"
    device.submit(request_.pubs, PRECISION, lost.tag)
    assert resume(ledger, lost, device).state == "done"
    assert len(device.jobs) == 1


def test_cancel(device, ledger, sent):
    row = cancel(ledger, sent, device)
    assert (row.state, device.jobs[0]["cancelled"]) == ("cancelled", True)
    assert cancel(ledger, row, device) == row
    assert device.calls("cancel") == 1


def test_cancel_that_comes_too_late_keeps_the_result(device, ledger, sent):
    device.fault("cancel", "refuse")
    device.free()
    with pytest.raises(BackendError, match="refuses this"):
        cancel(ledger, sent, device)
    assert resume(ledger, sent, device).state == "done"


def test_cancel_of_a_job_that_never_arrived(device, ledger, lost):
    row = cancel(ledger, lost, device)
    assert (row.state, row.error, device.calls("cancel")) == ("cancelled", "it never reached the device completely", 0)


def test_cancel_of_a_lost_job_that_did_arrive(device, ledger, lost, request_):
    device.hold()
    device.submit(request_.pubs, PRECISION, lost.tag)
    assert cancel(ledger, lost, device).state == "cancelled"
    assert device.jobs[0]["cancelled"]


def test_a_job_that_is_just_being_sent_is_left_alone(device, ledger, request_):
    owner = ledger.new_owner()  # at work as long as it is referred to
    row = ledger.open(request_, owner, Cost())
    with pytest.raises(BackendError, match="just being sent"):
        cancel(ledger, row, device)
    assert resume(ledger, row, device).state == "sending"
    assert device.calls("find") == 0


def test_another_devices_rows_are_refused(tmp_path, device, ledger, sent):
    other = DiskDevice(tmp_path / "other", name="disk:other")
    for action in (resume, cancel):
        with pytest.raises(BackendError, match="is a job on disk:test, not on disk:other"):
            action(ledger, sent, other)


def test_a_row_that_has_ended_is_not_changed_by_a_late_word(device, ledger, sent):
    device.free()
    row = resume(ledger, sent, device)
    assert ledger.close(row.id, "cancelled", "too late") == row
    assert ledger.sent(row.id, "job-9") == row


def test_a_job_of_a_process_that_is_gone_can_be_resumed_and_cancelled_away(device, ledger, sent):
    device.lose()
    device.fault("cancel", "lost")
    assert resume(ledger, sent, device).error == "Its process has ended."
    ManagedEstimator(device, ledger=ledger, precision=PRECISION, cache=False).run(small_pubs())
    again = ledger.rows()[0]
    device.lose()
    assert cancel(ledger, again, device).state == "failed"


def test_parts_of_a_job_that_never_became_whole_are_cancelled(device, ledger, lost):
    cancel(ledger, lost, device)
    assert device.calls("abandon") == 1


@pytest.mark.parametrize(("action", "method"), [(cancel, "cancel"), (cancel, "status"), (resume, "status")])
def test_nobody_waits_as_long_as_a_service_asks_to(device, ledger, sent, action, method):
    device.fault(method, "busy:50")
    with pytest.raises(BackendError, match="There was no time for another call after 5"):
        action(ledger, sent, device)
    assert [row.state for row in ledger.rows()] == ["sent"]
    device.free()
    assert resume(ledger, sent, device).state in ("done", "cancelled")
