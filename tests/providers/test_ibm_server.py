"""The real client of IBM Quantum against the test server: devices, results, states and limits."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from qiskit_ibm_runtime import (
    Batch,
    QiskitRuntimeService,
    RuntimeInvalidStateError,
    RuntimeJobMaxTimeoutError,
    RuntimeJobTimeoutError,
    Session,
)
from qiskit_ibm_runtime.accounts.exceptions import InvalidAccountError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.executor_estimator import Estimator
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from .ibm_client import SHOTS, Pub, submit
from .ibm_server import IBMServer

# devices and the account


def test_the_devices_are_listed_and_the_shorter_queue_is_the_least_busy(service: QiskitRuntimeService) -> None:
    assert [device.name for device in service.backends(operational=True)] == ["test_manila", "test_nairobi"]
    assert service.least_busy().name == "test_nairobi"
    assert service.least_busy(min_num_qubits=6).num_qubits == 7


def test_a_device_has_the_gates_and_errors_of_its_fake(device: Any) -> None:
    fake = FakeManilaV2()
    assert set(device.target.operation_names) >= {"cx", "rz", "sx", "x"}
    assert device.target.build_coupling_map() == fake.target.build_coupling_map()
    assert device.target["cx"][0, 1].error == fake.target["cx"][0, 1].error


def test_no_request_leaves_the_machine(ibm_server: IBMServer) -> None:
    with pytest.raises(InvalidAccountError) as caught:
        ibm_server.service(url="http://example.com")
    assert "A test tried to reach" in str(caught.value.__cause__)
    assert ibm_server.count("POST /identity/token") == len(ibm_server.requests)


# results


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_job_gives_what_local_testing_gives_with_its_seed(
    ibm_server: IBMServer, device: Any, pub: Pub, level: int
) -> None:
    job = submit(device, pub, resilience_level=level)
    result = job.result()
    seed = ibm_server.jobs[job.job_id()].seed
    local = submit(FakeManilaV2(), pub, resilience_level=level, simulator={"seed_simulator": seed}).result()
    assert result[0].data.evs.shape == (3, 2)
    np.testing.assert_allclose(result[0].data.evs, local[0].data.evs, atol=1e-9)
    np.testing.assert_allclose(result[0].data.stds, local[0].data.stds, atol=1e-9)
    assert result.metadata["shots"] == SHOTS


def test_jobs_differ_by_shot_noise(device: Any, pub: Pub) -> None:
    first, second = (submit(device, pub).result()[0].data for _ in range(2))
    assert (first.evs != second.evs).any()
    assert (np.abs(first.evs - second.evs) < 6 * (first.stds + second.stds)).all()


@pytest.mark.parametrize("mode", [Session, Batch])
def test_a_session_and_a_batch_run_jobs_and_close(
    ibm_server: IBMServer, service: QiskitRuntimeService, device: Any, pub: Pub, mode: type[Session]
) -> None:
    with mode(device, max_time="5m") as session:
        assert session.status() == "Pending"
        jobs = [submit(session, pub) for _ in range(2)]
        assert session.status() == "In progress, accepting new jobs"
        assert all(job.result()[0].data.evs.shape == (3, 2) for job in jobs)
    assert session.status() == "Closed"
    assert session.details()["max_time"] == 300
    assert session.usage() == sum(job.usage() for job in jobs) > 0
    assert {job.job_id() for job in service.jobs(session_id=session.session_id)} == set(ibm_server.jobs)


def test_the_work_of_a_job_is_counted(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    job = submit(device, pub)
    kept = ibm_server.jobs[job.job_id()]
    assert (kept.pubs, kept.circuits, kept.shots) == (1, 4, 4 * SHOTS)  # two bindings in two bases
    assert job.usage() == job.usage_estimation["quantum_seconds"] == pytest.approx(4 * SHOTS * 250e-6)


def test_another_process_reads_the_result(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    expected = submit(device, pub, "from another process").result()[0].data.evs
    code = (
        "from qiskit_ibm_runtime import QiskitRuntimeService\n"
        "[job] = QiskitRuntimeService().jobs(job_tags=['from another process'])\n"
        "print(job.result()[0].data.evs.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | ibm_server.proxy_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(expected.tolist())


@pytest.mark.filterwarnings("ignore:The EstimatorV2 class is deprecated:DeprecationWarning")
def test_the_older_estimator_runs_in_the_service(device: Any, pub: Pub) -> None:
    from qiskit_ibm_runtime import EstimatorV2

    old = EstimatorV2(mode=device, options={"default_shots": SHOTS}).run([pub]).result()[0].data
    new = submit(device, pub).result()[0].data
    assert (np.abs(old.evs - new.evs) < 6 * (old.stds + new.stds)).all()


def test_a_dry_run_gives_random_values_and_costs_nothing(device: Any, pub: Pub) -> None:
    options = {"resilience_level": 0, "default_shots": SHOTS}
    job = Estimator(mode=device, options=options).run([pub], dry_run=True)
    assert np.abs(job.result()[0].data.evs).max() < 0.2  # the state has <ZZ> > 0.8
    assert job.backend().name == "mock_manila"
    assert job.usage() == 0


def test_jobs_may_come_from_several_threads(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda n: submit(device, pub, f"n{n}"), range(4)))
        results = list(pool.map(lambda job: job.result(), jobs))
    assert len({job.job_id() for job in jobs}) == len(ibm_server.jobs) == 4
    assert all(result[0].data.evs.shape == (3, 2) for result in results)


# states


def test_held_jobs_wait_run_and_finish(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.hold()
    job = submit(device, pub)
    assert (job.status(), job.usage()) == ("QUEUED", 0)
    with pytest.raises(RuntimeJobTimeoutError):
        job.result(timeout=0.0)
    ibm_server.hold("Running")
    assert job.status() == "RUNNING"
    ibm_server.release()
    assert job.status() == "DONE"
    assert job.usage() > 0


def test_a_closed_session_still_runs_what_waits(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.hold()
    session = Session(device)
    job = submit(session, pub)
    session.close()
    assert session.status() == "In progress, not accepting new jobs"
    ibm_server.release()
    assert (job.status(), session.status()) == ("DONE", "Closed")


def test_a_cancelled_session_cancels_what_waits(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.hold()
    session = Session(device)
    job = submit(session, pub)
    session.cancel()
    assert (job.status(), session.status()) == ("CANCELLED", "Closed")


def test_a_waiting_job_can_be_cancelled_a_finished_one_not(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.hold()
    job = submit(device, pub)
    job.cancel()
    with pytest.raises(RuntimeInvalidStateError, match="Job was cancelled"):
        job.result()
    ibm_server.release()
    assert ibm_server.jobs[job.job_id()].status == "Cancelled"
    with pytest.raises(RuntimeInvalidStateError, match="cannot be cancelled"):
        submit(device, pub).cancel()


def test_jobs_are_found_by_all_their_tags_newest_first(
    ibm_server: IBMServer, service: QiskitRuntimeService, device: Any, pub: Pub
) -> None:
    for tags in (["a"], ["a", "b"], ["b"]):
        submit(device, pub, environment={"job_tags": tags})
    assert [job.job_id() for job in service.jobs(job_tags=["a"])] == ["job-1", "job-0"]
    assert [job.tags for job in service.jobs(job_tags=["a", "b"])] == [["a", "b"]]
    assert len(service.jobs(limit=2)) == 2
    assert len(service.jobs(limit=None)) == 3
    assert service.jobs(pending=True) == []


# plans and limits


def test_the_open_plan_has_batches_but_no_sessions(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.set_plan("open")
    with pytest.raises(RequestsApiError, match='"code":1352') as caught:
        Session(device)
    assert caught.value.status_code == 400
    with Batch(device) as batch:
        assert submit(batch, pub).status() == "DONE"


def test_what_jobs_used_counts_against_the_limit(
    ibm_server: IBMServer, service: QiskitRuntimeService, device: Any, pub: Pub
) -> None:
    ibm_server.set_plan("open", usage_limit=1)
    job = submit(device, pub)
    assert service.usage()["usage_consumed_seconds"] == job.usage()
    assert service.usage()["usage_remaining_seconds"] == 0
    with pytest.warns(UserWarning, match="usage limit"):
        submit(device, pub)


def test_a_job_longer_than_its_limit_is_stopped(device: Any, pub: Pub) -> None:
    job = submit(device, pub, max_execution_time=1, default_shots=10_000)
    with pytest.raises(RuntimeJobMaxTimeoutError, match="1305"):
        job.result()
    assert (job.status(), job.usage()) == ("ERROR", 1)
