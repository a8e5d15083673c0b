"""A head's call when IBM Quantum fails: the right values, one job and the right label, or a clear error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import qiskit_qattn as qa
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import BackendError
from qiskit_qattn.nn.audit import FallbackWarning

from .ibm_server import TOKEN, IBMServer

BACKEND = "ibm:test_manila?optimization=0&resilience=0&shots=2000&budget=5s&timeout=1&retries=3"
Fault = Callable[[IBMServer], object]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.jobs.retries.BACKOFF", 0.0)


@pytest.fixture
def head() -> qa.QuantumHead:
    return qa.QuantumHead(qa.attention_circuit("angle", 2))


PASSING: dict[str, Fault] = {
    "429": lambda server: server.refuse("POST /jobs", 429, retry_after=0),
    "500": lambda server: server.refuse("POST /jobs", 500),
    "drop before": lambda server: server.drop("POST /jobs", "before"),
    "drop mid-answer": lambda server: server.drop("POST /jobs", "after"),
    "drop of the result": lambda server: server.drop("GET /jobs/.*/results", "after"),
    "slow": lambda server: server.slow("POST /jobs", 0.3),
}
LASTING: dict[str, Fault] = {
    "refused": lambda server: server.refuse("POST /jobs", 400, message="No."),
    "401": lambda server: server.refuse("POST /jobs", 401, message=f"Bearer {TOKEN} is not valid."),
    "500 for good": lambda server: server.refuse("POST /jobs", 500, times=99),
    "failed job": lambda server: server.fail_jobs("The device broke."),
    "never finishing": lambda server: server.hold("Running"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_costs_one_job(ibm_server: IBMServer, head: qa.QuantumHead, fault: str) -> None:
    x = torch.rand(3, 2)
    exact = head(x)
    head.to_backend(f"{BACKEND} -> statevector")
    PASSING[fault](ibm_server)
    values = head(x)
    assert 0 < ((values - exact) / head.gain).abs().max() < 0.3  # the device's noise, and samples
    assert head.ran_on == {str(BackendSpec.parse(BACKEND)): 1}
    [row] = Ledger().rows()
    assert row.state == "done" and row.used is not None
    paid = [job for job in ibm_server.jobs.values() if job.status != "Cancelled"]
    assert [job.id for job in paid if row.tag in job.tags] == [row.job_id]
    assert torch.equal(head(x), values) and len(Ledger().rows()) == 1  # stored


@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_falls_with_the_right_label_or_is_raised(
    ibm_server: IBMServer, head: qa.QuantumHead, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    x = torch.rand(3, 2)
    exact = head(x)
    head.to_backend(f"{BACKEND} -> statevector")
    LASTING[fault](ibm_server)
    with pytest.warns(FallbackWarning, match="statevector is next") as warned:
        assert torch.equal(head(x), exact)
    assert head.ran_on == {"statevector": 1}
    count = len(ibm_server.jobs)
    assert count <= 1 and len(Ledger().rows()) == 1
    assert all(TOKEN not in text for text in (caplog.text, str(warned[0].message), Ledger().rows()[0].error))
    if fault == "never finishing":
        with pytest.raises(BackendError, match="has not ended after 1 s"):
            head.to_backend(BACKEND)(x)
        ibm_server.release()
        assert ((head(x) - exact) / head.gain).abs().max() < 0.3
        assert len(ibm_server.jobs) == count == 1  # the one that was waited for


def test_a_session_that_the_service_closes_is_renewed(ibm_server: IBMServer, head: qa.QuantumHead) -> None:
    with qa.session(f"{BACKEND}&mode=session") as backend:
        head.to_backend(backend)
        head(torch.rand(1, 2))
        ibm_server.close_session("session-0")
        head(torch.rand(2, 2))
    assert [row.state for row in Ledger().rows()] == ["done", "done"]
    assert len(ibm_server.jobs) == 2 and len(ibm_server.state.sessions) == 2
