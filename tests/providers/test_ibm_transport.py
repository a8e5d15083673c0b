"""The client's connections as the adapter sets them up: one POST a job, bounded waits, and the account's instances."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
from qiskit_ibm_runtime import QiskitRuntimeService

from qiskit_qattn.backends.ibm.device import IBMDevice
from qiskit_qattn.backends.ibm.transport import Transport, in_time, set_up
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.errors import BackendError, TransientBackendError

from .ibm_adapter import PRECISION, RAW, at_precision
from .ibm_client import Pub
from .ibm_server import IBMServer
from .ibm_service import CRN, SECOND_CRN

BACKEND = "ibm:test_manila?optimization=0&resilience=0&shots=100&budget=9s&retries=1"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.jobs.retries.BACKOFF", 0.001)


@pytest.fixture
def two_instances(ibm_server: IBMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the account have two instances, none of which is named."""
    monkeypatch.delenv("QISKIT_IBM_INSTANCE")
    ibm_server.state.crns.append(SECOND_CRN)


def test_all_connections_of_an_account_are_set_up_once(ibm_server: IBMServer, two_instances: None) -> None:
    service = QiskitRuntimeService()
    sessions = set_up(service)
    assert len(sessions) >= 2
    adapters = [session.get_adapter(f"{scheme}://x") for session in sessions for scheme in ("http", "https")]
    assert all(isinstance(adapter, Transport) for adapter in adapters)
    again = [session.get_adapter(f"{scheme}://x") for session in set_up(service) for scheme in ("http", "https")]
    assert all(new is old for new, old in zip(again, adapters, strict=True))


def test_without_its_connections_nothing_is_known_to_be_unsent(
    ibm_server: IBMServer,
    service: QiskitRuntimeService,
    device: Any,
    pub: Pub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.ibm.transport._sessions", lambda *_: iter(()))
    ibm = IBMDevice(device, service, settings=RAW)
    assert "may send a job twice behind a proxy" in caplog.text
    ibm_server.refuse("GET /instances/usage", 429, times=99, retry_after=0)
    with pytest.raises(TransientBackendError) as caught:
        ibm.submit(at_precision(pub), PRECISION, "a")
    assert not caught.value.unsent


def test_an_answer_that_never_comes_is_not_waited_for(
    ibm_server: IBMServer, pub: Pub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.ibm.transport.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("qiskit_qattn.backends.ibm.transport.JOB_SECONDS", 0.5)
    estimator = get_backend(BACKEND).estimator
    for pattern in ("POST /jobs", "GET /jobs/.*/results"):
        ibm_server.slow(pattern, seconds=2.0, late=True)
    assert estimator.run([pub]).result()[0].data.evs.shape == (3, 2)
    assert len(ibm_server.jobs) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_time_to_wait_is_left_to_the_caller(
    ibm_server: IBMServer, service: QiskitRuntimeService, device: Any, status: int
) -> None:
    ibm = IBMDevice(device, service, settings=RAW)
    ibm_server.refuse("GET /jobs/x", status, times=99, retry_after=3600)
    with pytest.raises(TransientBackendError) as caught:
        ibm.status("x")
    assert caught.value.retry_after == 3600


def test_what_is_opened_in_time_returns_or_raises_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.ibm.transport.ACCOUNT_SECONDS", 0.2)
    assert in_time(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        in_time(divmod, 1, 0)
    with pytest.raises(TimeoutError, match="theirs"):
        in_time(lambda: (_ for _ in ()).throw(TimeoutError("theirs")))
    with pytest.raises(TransientBackendError, match=r"no access to the account within 0\.2 s"):
        in_time(time.sleep, 1.0)


def test_a_job_is_looked_for_in_its_own_instance(
    ibm_server: IBMServer, two_instances: None, pub: Pub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "qiskit_ibm_runtime")
    estimator: Any = get_backend(BACKEND).estimator
    with pytest.raises(BackendError, match="not found"):
        estimator.device.status("of-another-account")  # the client has now asked all instances
    ibm_server.drop("POST /jobs", "after")
    send = estimator.device.submit

    def send_and_ask(*args: Any) -> str:
        try:
            return send(*args)
        finally:
            with pytest.raises(BackendError, match="not found"):
                estimator.device.status("of-another-account")

    estimator.device.submit = send_and_ask
    assert estimator.run([pub]).result()[0].metadata["job_id"] == "job-0"
    assert [job.crn for job in ibm_server.jobs.values()] == [CRN]


def test_connections_are_found_by_their_type() -> None:
    assert set_up(SimpleNamespace(x=1, y=None)) == []
