"""An estimator over a device that fails: nothing is lost, nothing is sent twice, and the error says what to do."""

import logging

import pytest

from qiskit_qattn.backends.jobs import client
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError

from .disk_client import small_pubs
from .disk_device import DiskDevice
from .on_disk import estimator_of, states

pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.mark.parametrize(
    ("faults", "submits"),
    [(["drop_before"], 2), (["drop_after"], 1), (["busy_before:0.01"], 2), (["drop_before", "drop_after"], 2)],
)
def test_a_dropped_connection_sends_nothing_twice(device, ledger, faults, submits):
    device.fault("submit", *faults)
    estimator = estimator_of(device, ledger, retries=3)
    result = estimator.run(small_pubs()).result()
    assert result[0].metadata["job_id"] == "job-1"
    assert (device.calls("submit"), len(device.jobs), states(ledger)) == (submits, 1, ["done"])
    assert estimator.spent.seconds == 2.0


@pytest.mark.parametrize("method", ["estimate", "find", "status", "result", "usage"])
def test_every_call_is_repeated(device, ledger, method):
    device.fault("submit", "drop_after")
    device.fault(method, "drop", "busy:0", "drop")
    estimator = estimator_of(device, ledger, retries=5)
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert (len(device.jobs), estimator.spent.seconds) == (1, 2.0)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_job_that_may_have_arrived_is_looked_for_by_the_next_request(device, ledger, where):
    device.fault("submit", f"drop_{where}")
    estimator = estimator_of(device, ledger, retries=0)
    with pytest.raises(TransientBackendError, match="dropped the connection"):
        estimator.run(small_pubs())
    assert states(ledger) == ["sending"]
    assert estimator.spent.seconds == 2.0  # it may be paid for
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert (device.calls("find"), len(device.jobs), states(ledger), estimator.spent.seconds) == (1, 1, ["done"], 2.0)


def test_an_interrupt_while_sending_loses_nothing(device, ledger):
    device.fault("submit", "interrupt_after")
    estimator = estimator_of(device, ledger)
    with pytest.raises(KeyboardInterrupt):
        estimator.run(small_pubs())
    estimator.run(small_pubs()).result()
    assert (len(device.jobs), states(ledger)) == (1, ["done"])


def test_a_refused_job_is_not_sent_again_by_itself(device, ledger):
    device.fault("submit", "refuse_before")
    estimator = estimator_of(device, ledger)
    with pytest.raises(BackendError, match="refuses this"):
        estimator.run(small_pubs())
    assert (device.calls("submit"), states(ledger), estimator.spent.seconds) == (1, ["failed"], 0.0)
    assert "refuses this" in ledger.rows()[0].error
    estimator.run(small_pubs()).result()
    assert (len(device.jobs), states(ledger)) == (1, ["done", "failed"])


def test_a_failed_job_is_an_error_and_may_be_sent_again(device, ledger):
    device.free("failed")
    estimator = estimator_of(device, ledger)
    with pytest.raises(JobError, match=r"Job job-1 on disk:.* failed: the qubits melted. The next run sends it again"):
        estimator.run(small_pubs()).result()
    assert (states(ledger), estimator.spent.seconds) == (["failed"], 2.0)  # paid for all the same
    device.free()
    result = estimator.run(small_pubs()).result()
    assert result[0].metadata["job_id"] == "job-2"
    assert device.jobs[0]["tag"] != device.jobs[1]["tag"]
    assert (states(ledger), estimator.spent.seconds) == (["done", "failed"], 4.0)


def test_a_cancelled_job_is_an_error(device, ledger):
    device.hold()
    job = estimator_of(device, ledger).run(small_pubs())
    job.cancel()
    assert job.cancelled()
    with pytest.raises(JobError, match=r"Job job-1 on disk:.* was cancelled"):
        job.result()
    assert states(ledger) == ["cancelled"]


def test_a_job_the_device_does_not_know_is_kept(device, ledger):
    device.fault("status", "lost")
    estimator = estimator_of(device, ledger)
    with pytest.raises(BackendError, match=r"Job job-1 .* does not know this job\. It may be paid .* jobs resume 1\."):
        estimator.run(small_pubs()).result()
    assert states(ledger) == ["sent"]
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert (len(device.jobs), states(ledger), estimator.spent.seconds) == (1, ["done"], 2.0)


def test_a_timeout_leaves_the_job_to_the_next_run(device, ledger):
    device.hold()
    estimator = estimator_of(device, ledger, timeout=0.05)
    with pytest.raises(BackendError, match=r"Job job-1 on disk:.* not ended after 0.05 s .*next run .*picks it up"):
        estimator.run(small_pubs()).result()
    assert (device.calls("cancel"), states(ledger), estimator.spent.seconds) == (0, ["sent"], 2.0)
    device.free()
    later = estimator_of(device, ledger, cache=False)  # nobody has seen the result: this is no cache
    assert later.run(small_pubs()).result()[0].metadata == estimator.run(small_pubs()).result()[0].metadata | {
        "cached": False
    }
    assert (len(device.jobs), later.jobs_attached, later.spent.seconds) == (1, 1, 2.0)


def test_a_result_that_cannot_be_fetched_now_is_fetched_later(device, ledger):
    device.fault("result", "refuse")
    estimator = estimator_of(device, ledger)
    with pytest.raises(BackendError, match="refuses this"):
        estimator.run(small_pubs()).result()
    assert states(ledger) == ["sent"]
    estimator.run(small_pubs()).result()
    assert (len(device.jobs), states(ledger)) == (1, ["done"])


def test_an_unknown_usage_counts_as_estimated(device, ledger):
    device.seconds = 7.0
    device.fault("usage", "refuse")
    estimator = estimator_of(device, ledger)
    estimator.run(small_pubs()).result()
    assert (ledger.rows()[0].used, estimator.spent.seconds) == (None, 7.0)


class Cut(DiskDevice):
    """Returns one PUB too few."""

    def result(self, job_id, pubs):
        return super().result(job_id, pubs)[1:]


def test_results_of_another_shape_are_not_stored(tmp_path, ledger):
    estimator = estimator_of(Cut(tmp_path / "device"), ledger)
    with pytest.raises(BackendError, match=r"returned values and errors of shapes .* expected .*\(2, 3\)"):
        estimator.run(small_pubs()).result()
    assert states(ledger) == ["sent"]


def test_a_device_that_keeps_failing_is_left_alone(device, ledger, monkeypatch):
    monkeypatch.setattr(client, "FAILURES", 3)
    device.fault("submit", *["drop_before"] * 9)
    with pytest.raises(BackendError, match="failed 3 times in a row and is left alone until"):
        estimator_of(device, ledger).run(small_pubs())
    calls = device.calls("submit")
    with pytest.raises(BackendError, match="left alone until"):
        estimator_of(device, ledger).run(small_pubs(0.7))
    assert device.calls("submit") == calls


def test_a_job_that_died_with_its_process_is_sent_again_at_once(device, ledger, caplog):
    caplog.set_level(logging.INFO, "qiskit_qattn.backends")
    device.hold()
    gone = estimator_of(device, ledger).run(small_pubs())
    ledger.release(gone._owner)
    device.lose()
    device.free()
    estimator = estimator_of(device, ledger)
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-2"
    assert f"{device.name} job job-1: Its process has ended. It is sent again." in caplog.text
    assert (len(device.jobs), states(ledger), estimator.spent.seconds) == (2, ["done", "failed"], 2.0)


def test_a_job_in_another_process_that_lives_is_left_to_it(device, ledger):
    sent = estimator_of(device, ledger).run(small_pubs())  # as another process: this device has not heard of it
    device.lose()
    waiting = estimator_of(device, ledger, timeout=0.05)
    with pytest.raises(BackendError, match="has not ended after"):
        waiting.run(small_pubs()).result()
    assert (states(ledger), sent.job_id(), len(device.jobs)) == (["sent"], "job-1", 1)
