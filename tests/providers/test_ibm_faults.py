"""What the real client of IBM Quantum does, and raises, when something goes wrong on the way or in the service."""

from __future__ import annotations

from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit_ibm_runtime import (
    IBMRuntimeError,
    QiskitRuntimeService,
    RuntimeJobFailureError,
    Session,
)
from qiskit_ibm_runtime.accounts.exceptions import InvalidAccountError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError

from .ibm_client import Pub, submit
from .ibm_server import IBMServer


def test_a_job_whose_answer_was_lost_is_found_by_its_tag(
    ibm_server: IBMServer, service: QiskitRuntimeService, device: Any, pub: Pub
) -> None:
    ibm_server.drop("POST /jobs", "after")
    with pytest.raises(IBMRuntimeError, match="Connection aborted"):
        submit(device, pub, "lost")
    assert ibm_server.count("POST /jobs") == 1
    [job] = service.jobs(job_tags=["lost"])
    assert job.result()[0].data.evs.shape == (3, 2)


def test_a_connection_dropped_before_leaves_no_job(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.drop("POST /jobs", "before")
    with pytest.raises(IBMRuntimeError, match="Connection aborted"):
        submit(device, pub)
    assert not ibm_server.jobs


def test_behind_a_proxy_the_client_itself_sends_a_lost_job_again(ibm_server: IBMServer, pub: Pub) -> None:
    service = ibm_server.service(proxies={"urls": {"http": ibm_server.address}})
    ibm_server.drop("POST /jobs", "after")
    job = submit(service.backend("test_manila"), pub, "lost")
    assert [found.job_id() for found in service.jobs(job_tags=["lost"])] == [job.job_id(), "job-0"]


def test_a_late_gateway_error_makes_the_client_send_a_job_twice(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.refuse("POST /jobs", 504, late=True)
    assert submit(device, pub).job_id() == "job-1"
    assert len(ibm_server.jobs) == 2


def test_reading_goes_on_after_a_dropped_connection(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.drop("GET /jobs/.*", "before", times=3)
    assert submit(device, pub).result()[0].data.evs.shape == (3, 2)


def test_too_many_requests_are_repeated_for_reading_alone(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.refuse("POST /jobs", 429, 1202, "Too many requests", retry_after=0)
    with pytest.raises(IBMRuntimeError, match="429 Client Error") as caught:
        submit(device, pub)
    assert isinstance(caught.value.__context__, RequestsApiError)
    assert caught.value.__context__.status_code == 429
    assert (ibm_server.count("POST /jobs"), len(ibm_server.jobs)) == (1, 0)
    ibm_server.refuse("GET /jobs/job-0", 429, 1202, "Too many requests", retry_after=0, times=2)
    assert submit(device, pub).status() == "DONE"
    assert ibm_server.count("GET /jobs/job-0") == 3


@pytest.mark.parametrize("status", [500, 503])
def test_server_errors_are_repeated_five_times(ibm_server: IBMServer, device: Any, pub: Pub, status: int) -> None:
    ibm_server.refuse("POST /jobs", status, times=5)
    assert submit(device, pub).status() == "DONE"
    assert ibm_server.count("POST /jobs") == 6
    ibm_server.refuse("POST /jobs", status, times=6)
    with pytest.raises(IBMRuntimeError, match=f"too many {status} error responses"):
        submit(device, pub)
    assert len(ibm_server.jobs) == 1


def test_a_slow_answer_is_waited_for(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.slow("POST /jobs", seconds=0.2)
    assert submit(device, pub).status() == "DONE"
    assert ibm_server.count("POST /jobs") == 1


def test_a_failed_job_says_why(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.fail_jobs("The device broke.", 9999)
    job = submit(device, pub)
    with pytest.raises(RuntimeJobFailureError, match="Error code 9999; The device broke"):
        job.result()
    assert (job.status(), job.usage()) == ("ERROR", 0)
    assert "The device broke" in job.error_message()
    assert submit(device, pub).status() == "DONE"


def test_a_circuit_with_foreign_gates_fails_in_the_service(device: Any) -> None:
    circuit = QuantumCircuit(2)
    circuit.ch(0, 1)
    with pytest.raises(RuntimeJobFailureError, match="unknown instruction: ch"):
        submit(device, (circuit, "ZZ")).result()


def test_a_session_closed_by_the_service_takes_no_more_jobs(
    ibm_server: IBMServer, service: QiskitRuntimeService, device: Any, pub: Pub
) -> None:
    session = Session(device)
    submit(session, pub)
    ibm_server.close_session(session.session_id)
    with pytest.raises(IBMRuntimeError, match='"code":1217,"message":"Session has been closed'):
        submit(session, pub)
    with pytest.raises(IBMRuntimeError, match=r"^'The session is closed\.'$"):
        submit(Session.from_id(session.session_id, service), pub)
    assert len(ibm_server.jobs) == 1


def test_a_refused_key(ibm_server: IBMServer, device: Any, pub: Pub) -> None:
    ibm_server.refuse("POST /jobs", 401, 1201, "Invalid credentials.")
    with pytest.raises(IBMNotAuthorizedError, match="1201"):
        submit(device, pub)
    ibm_server.refuse("POST /identity/token", 400, message="Provided API key could not be found.")
    with pytest.raises(InvalidAccountError, match="valid API token"):
        ibm_server.service()
