"""Processes that share a ledger, and are killed at the worst moments: nothing is lost and nothing is sent twice."""

import json

import numpy as np
import pytest

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.jobs.request import Request

from .disk_client import PRECISION, small_pubs, start
from .disk_device import DiskDevice

pytestmark = pytest.mark.more
KILLED = -9


@pytest.fixture
def device(tmp_path):
    return DiskDevice(tmp_path / "device")


def ended(process):
    """Return what a process printed, once it has ended well."""
    text, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(text)


def state_of(ledger):
    return [(row.state, row.job_id, row.owner is not None) for row in ledger.rows()]


@pytest.mark.parametrize(
    ("method", "fault", "state", "finds"),
    [
        ("submit", "kill_before", ("sending", None, True), 1),
        ("submit", "kill_after", ("sending", None, True), 1),
        ("status", "kill", ("sent", "job-1", True), 0),
        ("result", "kill", ("sent", "job-1", True), 0),
    ],
)
@pytest.mark.parametrize("cache", [True, False])
def test_a_killed_process_loses_no_job_and_the_next_sends_none_again(
    tmp_path, device, ledger, method, fault, state, finds, cache
):
    device.fault(method, fault)
    process = start(tmp_path, cache=cache)
    process.communicate()
    assert process.returncode == KILLED
    assert state_of(ledger) == [state]
    estimator = ManagedEstimator(device, ledger=ledger, precision=PRECISION, cache=cache)
    result = estimator.run(small_pubs()).result()
    assert result[0].metadata["job_id"] == "job-1"
    assert state_of(ledger) == [("done", "job-1", False)]
    assert (len(device.jobs), device.calls("find"), estimator.spent.seconds) == (1, finds, 2.0)


def test_killed_while_it_waits_and_started_again(tmp_path, device, ledger):
    device.hold()
    process = start(tmp_path)
    while process.poll() is None and device.calls("status") < 3:
        pass
    process.kill()
    process.communicate()
    assert process.returncode == KILLED
    second = start(tmp_path)
    while second.poll() is None and device.calls("status") < 6:
        pass
    device.free()
    found = ended(second)
    assert (found["job_id"], found["sent"], found["seconds"]) == ("job-1", 0, 2.0)
    assert (len(device.jobs), state_of(ledger)) == (1, [("done", "job-1", False)])
    third = ended(start(tmp_path))
    assert (third["cached"], third["evs"], third["seconds"]) == (True, found["evs"], 0.0)


def test_processes_that_ask_the_same_at_once_share_one_job(tmp_path, device, ledger):
    device.hold()
    processes = [start(tmp_path) for _ in range(3)]
    while all(process.poll() is None for process in processes) and len(device.jobs) < 1:
        pass
    device.free()
    found = [ended(process) for process in processes]
    assert len(device.jobs) == 1
    assert sum(one["sent"] for one in found) == 1
    assert sum(one["seconds"] for one in found) == 2.0  # one of them pays
    assert all(one["evs"] == found[0]["evs"] for one in found)


def request_of(device):
    return Request.of(small_pubs(), PRECISION, device.name, device.settings)


def test_a_process_waits_while_another_that_lives_is_sending(tmp_path, device, ledger):
    owner = ledger.new_owner()  # this process: about to send
    row = ledger.open(request_of(device), owner, Cost(seconds=2.0))
    process = start(tmp_path)
    reader = ManagedEstimator(device, ledger=ledger, precision=PRECISION).run(small_pubs())  # so does this thread
    assert (reader.status(), device.jobs) == ("sending", [])
    ledger.sent(row.id, device.submit(request_of(device).pubs, PRECISION, row.tag))
    found = ended(process)
    assert (found["job_id"], found["sent"], found["seconds"]) == ("job-1", 0, 0.0)
    np.testing.assert_array_equal(reader.result()[0].data.evs, found["evs"])
    assert (device.calls("submit"), device.calls("find")) == (1, 0)


def test_a_process_takes_over_from_one_that_gives_up_sending(tmp_path, device, ledger):
    owner = ledger.new_owner()
    row = ledger.open(request_of(device), owner, Cost(seconds=2.0))
    job = ManagedEstimator(device, ledger=ledger, precision=PRECISION).run(small_pubs())
    ledger.release(owner)
    assert job.result()[0].metadata["job_id"] == "job-1"
    assert (device.jobs[0]["tag"], device.calls("find")) == (row.tag, 1)


def test_neither_the_clock_nor_the_name_of_the_host_makes_an_owner_look_dead(tmp_path, device, ledger):
    owner = ledger.new_owner()
    row = ledger.open(request_of(device), owner, Cost(seconds=2.0))
    assert "(state: sending)" in ended(start(tmp_path, elsewhere=True, timeout=1))["error"]
    assert (device.calls("find"), device.calls("submit")) == (0, 0)
    ledger.sent(row.id, device.submit(request_of(device).pubs, PRECISION, row.tag))
    assert ended(start(tmp_path, elsewhere=True))["sent"] == 0
    assert (len(device.jobs), owner.at_work) == (1, True)


@pytest.mark.parametrize(("billed", "least", "most"), [(0.5, 5, 15), (2.0, 4, 4), (7.0, 3, 3)])
def test_processes_and_their_forks_share_a_budget(tmp_path, device, ledger, billed, least, most):
    old = ManagedEstimator(device, ledger=ledger, precision=PRECISION)
    old.run(small_pubs()).result()  # before, so that it does not count
    options = {"budget": "9s", "device": {"billed": billed}, "gate": "go", "timeout": 60}
    angles = np.linspace(0.4, 1.4, 30).tolist()
    processes = [
        start(tmp_path, workers=2, angles=angles[10:], **options),
        start(tmp_path, angles=angles[:10], **options),
    ]
    while all(process.poll() is None for process in processes) and len(list(tmp_path.glob("*.open"))) < 2:
        pass
    device.hold()
    (tmp_path / "go").touch()
    while all(process.poll() is None for process in processes) and len(device.jobs) < 1 + 3:
        pass
    device.free()
    found = [ended(process) for process in processes]
    assert sum(one["sent"] + sum(one["workers"]) for one in found) == len(device.jobs) - 1
    assert least <= len(device.jobs) - 1 <= most
    assert all("budget of 9s" in one["error"] for one in found if "error" in one)
