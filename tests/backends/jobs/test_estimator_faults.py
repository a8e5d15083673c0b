"""An estimator over a device that fails: nothing is lost, nothing is sent twice, and the error says what to do."""

import logging
import subprocess
import sys

import pytest

from qiskit_qattn.backends.jobs import ledger_file, retries, runner
from qiskit_qattn.backends.jobs.budget import Budget
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError

from .disk_client import PRECISION, small_pubs
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


@pytest.mark.parametrize("method", ["status", "result"])
def test_a_service_that_asks_to_wait_longer_than_the_timeout_is_not_waited_for(device, ledger, method):
    device.fault(method, "busy:50")
    estimator = estimator_of(device, ledger, timeout=0.5)
    with pytest.raises(
        BackendError, match=r"Job job-1 on disk:.* not ended after 0.5 s\. There was no time for another"
    ):
        estimator.run(small_pubs()).result()
    assert states(ledger) == ["sent"]
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-1"


@pytest.mark.parametrize(("fault", "jobs"), [("busy_before:50", 0), ("busy_after:50", 1)])
def test_neither_is_one_that_takes_no_jobs(device, ledger, fault, jobs):
    device.fault("submit", fault)
    estimator = estimator_of(device, ledger, timeout=0.5)
    with pytest.raises(BackendError, match=r"Job qattn-\S+ on disk:.* not ended after 0.5 s\. .*the next run .* picks"):
        estimator.run(small_pubs())
    assert (len(device.jobs), states(ledger)) == (jobs, ["sending"])
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert len(device.jobs) == 1


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
    """Returns one PUB too few, as often as it is told to."""

    cuts = 0

    def result(self, job_id, pubs):
        self.cuts -= 1
        return super().result(job_id, pubs)[self.cuts >= 0 :]


def test_results_of_another_shape_are_not_stored(tmp_path, ledger):
    device = Cut(tmp_path / "device")
    device.cuts = 3
    estimator = estimator_of(device, ledger, retries=2)
    with pytest.raises(TransientBackendError, match=r"Job job-1 .* values and errors of shapes .* expected .*\(2, 3\)"):
        estimator.run(small_pubs()).result()
    assert (states(ledger), device.calls("result")) == (["sent"], 3)
    device.cuts = 2  # and then the right one
    estimator.run(small_pubs()).result()
    assert (states(ledger), len(device.jobs)) == (["done"], 1)


class Late(DiskDevice):
    """A paid service whose list of jobs is late by some looks, and which says whether it took a job."""

    late = 0
    unsent = False

    def find(self, tag):
        found = super().find(tag)
        self.late -= 1
        return [] if self.late >= 0 else found

    def submit(self, pubs, precision, tag):
        try:
            return super().submit(pubs, precision, tag)
        except TransientBackendError as error:
            error.unsent = self.unsent
            raise


@pytest.fixture
def late(tmp_path, request):
    return Late(tmp_path / "device", name=f"disk:{request.node.name}", paid=True)


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_a_list_that_is_late_is_read_again_before_a_job_is_sent_again(late, ledger, looks):
    late.fault("submit", "drop_after")
    late.late = looks
    estimator = estimator_of(late, ledger, budget=Budget.parse("9s"), retries=1)
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert (len(late.jobs), late.calls("find")) == (1, looks + 1)


def test_what_was_certainly_not_sent_is_not_looked_for(late, ledger):
    late.fault("submit", "drop_before", "drop_before", "drop_before")
    late.unsent = True
    estimator = estimator_of(late, ledger, budget=Budget.parse("9s"), retries=1)
    with pytest.raises(TransientBackendError, match="dropped the connection"):
        estimator.run(small_pubs())
    assert (states(ledger), estimator.spent.seconds) == (["failed"], 0.0)
    estimator.run(small_pubs()).result()
    assert (len(late.jobs), late.calls("find"), states(ledger)) == (1, 0, ["done", "failed"])


def test_a_refusal_after_a_lost_answer_leaves_the_row_unsure(late, ledger):
    late.fault("submit", "drop_after", "refuse_before")
    late.late = 4
    estimator = estimator_of(late, ledger, budget=Budget.parse("9s"), retries=1)
    with pytest.raises(BackendError, match="refuses this"):
        estimator.run(small_pubs())
    assert (states(ledger), estimator.spent.seconds) == (["sending"], 2.0)
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert len(late.jobs) == 1


def test_a_copy_is_cancelled_and_noted(late, ledger, caplog):
    caplog.set_level(logging.WARNING, "qiskit_qattn.backends")
    late.hold()
    late.fault("submit", "drop_after", "drop_after")
    late.fault("cancel", "refuse")
    late.late = 4
    estimator = estimator_of(late, ledger, budget=Budget.parse("9s"), retries=1)
    with pytest.raises(TransientBackendError):
        estimator.run(small_pubs())
    job = estimator.run(small_pubs())
    late.free()
    assert job.result()[0].metadata["job_id"] == "job-1"
    [row] = ledger.rows()
    assert row.state == "done"
    assert "its copy job-2 could not be cancelled and may be charged" in row.error
    assert "job-1 was sent more than once" in caplog.text


def test_a_device_that_keeps_failing_is_left_alone(device, ledger, monkeypatch):
    monkeypatch.setattr(retries, "FAILURES", 3)
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
    del gone
    device.lose()
    device.free()
    again = estimator_of(device, ledger)
    assert again.run(small_pubs()).result()[0].metadata["job_id"] == "job-2"
    assert f"{device.name} job job-1: Its process has ended. It is sent again." in caplog.text
    assert (len(device.jobs), states(ledger), again.spent.seconds) == (2, ["done", "failed"], 2.0)


def test_a_job_in_another_process_that_lives_is_left_to_it(device, ledger):
    sent = estimator_of(device, ledger).run(small_pubs())  # as another process: this device has not heard of it
    device.lose()
    waiting = estimator_of(device, ledger, timeout=0.05)
    with pytest.raises(BackendError, match="has not ended after"):
        waiting.run(small_pubs()).result()
    assert (states(ledger), sent.job_id(), len(device.jobs)) == (["sent"], "job-1", 1)


LOCK = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN IMMEDIATE')"


class Locked(DiskDevice):
    """Is interrupted when it is sent a job, and another program has locked the ledger."""

    def submit(self, pubs, precision, tag):
        path = self.folder.parent / "ledger.sqlite"
        command = [sys.executable, "-c", f"{LOCK}; print(); input()", str(path)]
        self.other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.other.stdout.readline()
        raise KeyboardInterrupt


def test_a_row_that_could_not_be_released_is_free_all_the_same(tmp_path, device, ledger, monkeypatch):
    monkeypatch.setattr(ledger_file, "_BUSY_SECONDS", 0.01)
    locked = Locked(tmp_path / "device", name=device.name)
    with pytest.raises(KeyboardInterrupt) as caught:  # its traceback refers to the job, as in a notebook
        estimator_of(locked, ledger).run(small_pubs())
    locked.other.communicate(b"\n")
    [row] = ledger.rows()
    assert (row.state, row.owner is not None) == ("sending", True)
    assert estimator_of(device, ledger, timeout=60).run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert (device.calls("find"), len(device.jobs), states(ledger)) == (1, 1, ["done"])
    assert caught.tb is not None


@pytest.fixture
def sending(device, ledger):
    """Return an owner that is about to send the request, and does not."""
    owner = ledger.new_owner()
    ledger.open(Request.of(small_pubs(), PRECISION, device.name, device.settings), owner, Cost(seconds=2.0))
    return owner


def test_waiting_for_another_has_a_bound_and_is_logged(device, ledger, sending, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "qiskit_qattn.backends")
    monkeypatch.setattr(runner, "LONGEST_ELSEWHERE", 0.1)
    monkeypatch.setattr(runner, "REPORT_AGAIN", 0.03)
    job = estimator_of(device, ledger).run(small_pubs())
    with pytest.raises(BackendError, match=r"Another process or thread has worked on job qattn-.* without a result"):
        job.result()
    assert caplog.text.count("another process or thread works on the same request") > 1
    with pytest.raises(BackendError, match=r"has not ended after 0\.05 s \(state: sending\)"):
        estimator_of(device, ledger, timeout=0.05).run(small_pubs()).result()
    assert (device.jobs, states(ledger), sending.at_work) == ([], ["sending"], True)


def test_waiting_for_a_simulation_elsewhere_has_a_bound(device, ledger, monkeypatch):
    monkeypatch.setattr(runner, "LONGEST_ELSEWHERE", 0.05)
    held = estimator_of(device, ledger).run(small_pubs())
    device.lose()  # as another process: this device has not heard of it
    with pytest.raises(BackendError, match="Another process or thread has worked on job job-1"):
        estimator_of(device, ledger).run(small_pubs()).result()
    assert (states(ledger), len(device.jobs), held.job_id()) == (["sent"], 1, "job-1")


def test_a_long_wait_in_a_queue_is_logged_again(device, ledger, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "qiskit_qattn.backends")
    monkeypatch.setattr(runner, "REPORT_AGAIN", 0.01)
    device.hold(position=4)
    with pytest.raises(BackendError, match="has not ended after"):
        estimator_of(device, ledger, timeout=0.2).run(small_pubs()).result()
    assert caplog.text.count("queued, position 4") > 1
