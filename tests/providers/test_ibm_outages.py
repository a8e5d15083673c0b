"""IBM Quantum cannot be asked for its devices: that is no unknown device, and a chain goes on."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

import qiskit_qattn as qa
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.errors import BackendError, TransientBackendError, UnknownNameError
from qiskit_qattn.nn.audit import FallbackWarning

from .ibm_faults import ANSWERS, CALLS
from .ibm_server import IBMServer

PASSING = ("500", "503", "drop before", "cut in the middle", "empty", "HTML", "a list", "null", "half of the keys")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.ibm.transport.ACCOUNT_SECONDS", 2.0)


@pytest.mark.parametrize("answer", PASSING)
@pytest.mark.parametrize("call", ["list", "describe"])
def test_an_outage_may_pass(ibm_server: IBMServer, call: str, answer: str) -> None:
    ibm_server.spoil(CALLS[call], answer)
    with pytest.raises(TransientBackendError, match="IBM Quantum"):
        get_backend("ibm:test_manila?budget=1s")
    ibm_server.mend()
    assert get_backend("ibm:test_manila?budget=1s").shots


@pytest.mark.more
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("call", ["list", "describe"])
@pytest.mark.parametrize("target", ["test_manila", "least_busy"])
@pytest.mark.parametrize("instance", [True, False])
def test_no_outage_is_an_unknown_device(
    ibm_server: IBMServer, monkeypatch: pytest.MonkeyPatch, call: str, answer: str, target: str, instance: bool
) -> None:
    if not instance:
        monkeypatch.delenv("QISKIT_IBM_INSTANCE")
    ibm_server.spoil(CALLS[call], answer)
    with nullcontext() if answer == "an unknown state" else pytest.raises(BackendError):  # these answers have none
        get_backend(f"ibm:{target}?budget=1s")


@pytest.mark.parametrize("instance", [True, False])
def test_a_device_is_unknown_if_the_list_does_not_hold_it(
    ibm_server: IBMServer, monkeypatch: pytest.MonkeyPatch, instance: bool
) -> None:
    if not instance:
        monkeypatch.delenv("QISKIT_IBM_INSTANCE")
    with pytest.raises(UnknownNameError, match=r"'nowhere'\. Known: least_busy, test_manila, test_nairobi\."):
        get_backend("ibm:nowhere?budget=1s")


def test_without_devices_in_operation_there_is_no_least_busy_one(ibm_server: IBMServer) -> None:
    ibm_server.change("GET /backends", lambda answer: {"devices": []}, times=99)
    with pytest.raises(BackendError, match="No device of this IBM Quantum account is in operation"):
        get_backend("ibm:least_busy?budget=1s")
    with pytest.raises(UnknownNameError, match=r"Known: least_busy\."):
        get_backend("ibm:test_manila?budget=1s")


def test_a_chain_goes_on(ibm_server: IBMServer) -> None:
    head = qa.QuantumHead(qa.attention_circuit("angle", 2))
    x = torch.rand(2, 2)
    exact = head(x)
    ibm_server.spoil(CALLS["list"], "HTML")
    head.to_backend("ibm:test_manila?budget=1s -> statevector")
    with pytest.warns(FallbackWarning, match=r"listing devices failed: the answer is no JSON"):
        assert torch.equal(head(x), exact)


def test_an_account_that_is_not_opened_in_time_may_be_later(
    ibm_server: IBMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.ibm.transport.ACCOUNT_SECONDS", 0.3)
    ibm_server.spoil("GET /backends", "503 for a day")
    with pytest.raises(TransientBackendError, match=r"gave no access to the account within 0\.3 s"):
        get_backend("ibm:test_manila?budget=1s")


@pytest.mark.parametrize("first", range(7))
def test_the_devices_properties_may_be_asked_for_at_any_time(ibm_server: IBMServer, first: int) -> None:
    ibm_server.change("GET /backends/.*/properties", lambda _: {}, times=first)  # they are then asked for again
    ibm_server.refuse("GET /backends/.*/properties", 404, times=99)
    head = qa.QuantumHead(qa.attention_circuit("angle", 2))
    with pytest.raises(BackendError, match=r"IBM Quantum: .* failed: .*404 Client Error"):
        head.to_backend("ibm:test_manila?budget=9s&resilience=0&shots=100")(torch.rand(2, 2))
    assert not ibm_server.jobs
