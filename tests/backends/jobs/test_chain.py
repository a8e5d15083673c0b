"""A head on a chain that starts at a device: what its ledger, budget and circuit breaker do to a call."""

import pytest
import torch

from qiskit_qattn import QuantumHead, attention_circuit, get_backend
from qiskit_qattn.backends.jobs import retries
from qiskit_qattn.backends.jobs.budget import Budget
from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.nn.audit import FallbackWarning

from .disk_device import DiskDevice

pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.fixture
def place(tmp_path, request):
    """Return a function that makes a device and a head on the chain from it to the exact engine, with an input."""

    def place(budget="unlimited", retries=5, **device_options):
        device = DiskDevice(tmp_path / "device", name=f"disk:{request.node.name}", paid=True, **device_options)
        estimator = ManagedEstimator(
            device,
            ledger=Ledger(tmp_path / "ledger.sqlite"),
            budget=Budget.parse(budget),
            precision=0.1,
            retries=retries,
        )
        links = ((device.name, Backend(device.name, estimator, precision=0.1)), ("exact", get_backend("statevector")))
        head = QuantumHead(attention_circuit("qisa", 2)).double()
        x = torch.randn(3, 4, dtype=torch.float64)
        exact = head(x)
        return device, head.to_backend(Place(links)), x, exact

    return place


def test_a_budget_that_is_used_up_in_the_backward_pass_falls_and_sends_nothing(place):
    device, head, x, exact = place(budget="3s", seconds=2.0)
    wanted = torch.autograd.grad(exact.sum(), head.weight)
    values = head(x)
    with pytest.warns(FallbackWarning, match=r"call 1, backward pass: .* failed, exact is next\. .*budget"):
        found = torch.autograd.grad(values.sum(), head.weight)
    torch.testing.assert_close(found, wanted)
    assert len(device.jobs) == 1
    assert (head.audit.calls, head.audit.gradients) == ({device.name: 1}, {"exact": 1})


def test_a_job_that_fails_falls(place):
    device, head, x, exact = place()
    device.free("failed")
    with pytest.warns(FallbackWarning, match="the qubits melted"):
        torch.testing.assert_close(head(x), exact)
    assert len(device.jobs) == 1


def test_a_device_that_answers_nothing_is_left_alone_though_costs_are_estimated_here(place):
    device, head, x, exact = place(retries=0)
    device.fault("submit", *["drop_before"] * 2 * retries.FAILURES)
    device.fault("find", *["drop"] * 2 * retries.FAILURES)
    with pytest.warns(FallbackWarning):
        for _ in range(retries.FAILURES + 5):
            torch.testing.assert_close(head(x), exact)
    assert device.calls("submit") + device.calls("find") == retries.FAILURES
    assert sum("left alone" in fall.reason for fall in head.audit.falls) == 5
    assert retries.breaker_state(device.name) == "open"


def test_a_device_that_is_left_alone_costs_no_call(place):
    device, head, x, exact = place(retries=retries.FAILURES)
    device.fault("submit", *["drop_before"] * (retries.FAILURES + 1))
    with pytest.warns(FallbackWarning) as warned:
        for _ in range(3):
            torch.testing.assert_close(head(x), exact)
    assert len(warned) == 1 and head.audit.calls == {"exact": 3}
    assert device.calls("submit") == retries.FAILURES
    assert ["left alone" in fall.reason for fall in head.audit.falls] == [True] * 3
