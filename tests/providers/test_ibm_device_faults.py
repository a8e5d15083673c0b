"""The adapter when something goes wrong on the way: no job lost, none sent twice, no credential shown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit_ibm_runtime import QiskitRuntimeService

from qiskit_qattn.backends.ibm.device import IBMDevice
from qiskit_qattn.errors import BackendError, TransientBackendError

from .ibm_adapter import PRECISION, RAW, at_precision
from .ibm_client import Pub
from .ibm_server import TOKEN, IBMServer


@pytest.fixture
def pubs(pub: Pub) -> list[EstimatorPub]:
    return at_precision(pub)


@pytest.fixture
def ibm(service: QiskitRuntimeService, device: Any) -> IBMDevice:
    return IBMDevice(device, service, settings=RAW, secrets=[TOKEN])


def test_a_job_whose_answer_was_lost_is_found_by_its_tag(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]
) -> None:
    ibm_server.drop("POST /jobs", "after")
    with pytest.raises(TransientBackendError, match="Connection aborted"):
        ibm.submit(pubs, PRECISION, "lost")
    [job_id] = ibm.find("lost")
    assert ibm.result(job_id, pubs)[0].evs.shape == (3, 2)
    assert len(ibm_server.jobs) == 1


def test_a_connection_dropped_before_leaves_nothing_to_find(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]
) -> None:
    ibm_server.drop("POST /jobs", "before")
    with pytest.raises(TransientBackendError):
        ibm.submit(pubs, PRECISION, "lost")
    assert ibm.find("lost") == []


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("fault", ["late 504", "drop after"])
def test_the_client_sends_no_job_twice_by_itself(
    ibm_server: IBMServer, pubs: list[EstimatorPub], fault: str, proxied: bool
) -> None:
    service = ibm_server.service(proxies={"urls": {"http": ibm_server.address}} if proxied else None)
    ibm = IBMDevice(service.backend("test_manila"), service, settings=RAW)
    if fault == "late 504":
        ibm_server.refuse("POST /jobs", 504, late=True, times=2)
    else:
        ibm_server.drop("POST /jobs", "after", times=2)
    with pytest.raises(TransientBackendError) as caught:
        ibm.submit(pubs, PRECISION, "a")
    assert not caught.value.unsent
    assert ibm_server.count("POST /jobs") == 1
    assert ibm.find("a") == ["job-0"]


@pytest.mark.parametrize("pattern", ["POST /sessions", "GET /instances/usage", "GET /backends/.*/status"])
def test_what_fails_before_the_job_was_posted_is_known_not_to_be_sent(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub], pattern: str
) -> None:
    ibm_server.refuse(pattern, 503, times=3)
    with pytest.raises(TransientBackendError) as caught:
        ibm.submit(pubs, PRECISION, "a")
    assert caught.value.unsent
    assert ibm_server.count("POST /jobs") == 0


def test_too_many_requests_say_how_long_to_wait(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]
) -> None:
    ibm_server.refuse("POST /jobs", 429, 1202, "Too many requests", retry_after=7)
    with pytest.raises(TransientBackendError, match="429") as caught:
        ibm.submit(pubs, PRECISION, "a")
    assert caught.value.retry_after == 7 and caught.value.unsent
    assert not ibm_server.jobs


@pytest.mark.parametrize("status", [500, 503])
def test_server_errors_are_transient(
    ibm_server: IBMServer, service: QiskitRuntimeService, ibm: IBMDevice, pubs: list[EstimatorPub], status: int
) -> None:
    ibm_server.refuse("POST /jobs", status)
    with pytest.raises(TransientBackendError, match=f"{status} Server Error"):
        ibm.submit(pubs, PRECISION, "a")
    job_id = ibm.submit(pubs, PRECISION, "a")
    later = IBMDevice(ibm.backend, service)  # the client does not ask again for the state of a job that has ended
    for path, call in (("", lambda: later.status(job_id)), ("/results", lambda: later.result(job_id, pubs))):
        ibm_server.refuse(f"GET /jobs/{job_id}{path}", status, times=3)
        with pytest.raises(TransientBackendError):
            call()
        assert call()


def test_a_session_that_cannot_be_opened_is_transient(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]
) -> None:
    ibm_server.drop("POST /sessions", "before")
    with pytest.raises(TransientBackendError):
        ibm.submit(pubs, PRECISION, "a")
    assert ibm.submit(pubs, PRECISION, "a") == "job-0"


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_named_but_not_shown(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub], status: int
) -> None:
    ibm_server.refuse("POST /jobs", status, 1201, f"Bad key: apikey {TOKEN}-x, Bearer eyJab.cdef.gh, token='{TOKEN}'")
    with pytest.raises(BackendError, match="save_account") as caught:
        ibm.submit(pubs, PRECISION, "a")
    error = caught.value
    assert not isinstance(error, TransientBackendError)
    assert error.__cause__ is None and error.__context__ is None  # the client's error holds what the service said
    assert not re.search(f"{TOKEN}|eyJ", str(error))
    assert "Bad key: apikey ***" in str(error)


def test_a_refused_job_is_not_worth_another_try(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]
) -> None:
    ibm_server.refuse("POST /jobs", 400, 1234, "Too many executions.")
    with pytest.raises(BackendError, match="Too many executions") as caught:
        ibm.submit(pubs, PRECISION, "a")
    assert not isinstance(caught.value, TransientBackendError)
