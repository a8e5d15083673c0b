"""Someone's own network on a device of an account: ledger, budget, session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_qattn import TorchConnector
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.errors import BackendError, BudgetError

from .ibm_server import IBMServer

WEIGHTS = np.array([0.4, 0.8])


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATTN_LEDGER", str(tmp_path / "ledger.sqlite"))


def network(num_qubits: int = 2) -> EstimatorQNN:
    x, w = ParameterVector("x", 2), ParameterVector("w", 2)
    circuit = QuantumCircuit(num_qubits)
    circuit.ry(x[0] * w[0], 0)
    circuit.cx(0, 1)
    circuit.rx(x[1] + w[1], 1)
    observables = [SparsePauliOp("I" * (num_qubits - 2) + label) for label in ("IZ", "ZI")]
    options = {"input_params": x, "weight_params": w, "observables": observables, "input_gradients": True}
    return EstimatorQNN(circuit=circuit, **options)


def run(layer: TorchConnector) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.tensor([[0.9, 2.0], [2.5, 0.7]], requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None and layer.weight.grad is not None
    return y.detach(), x.grad, layer.weight.grad


def test_a_second_run_is_served_from_the_ledger_and_pays_nothing(ibm_server: IBMServer) -> None:
    text = "ibm:test_manila?shots=2000&budget=60s&mode=session"
    found = []
    for _ in range(2):
        with TorchConnector(network(), WEIGHTS, backend=text) as layer:
            found.append(run(layer))
        assert len(ibm_server.jobs) == 2  # forward and backward, of the first run
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))
    assert len(Ledger().rows()) == 2
    assert [item.accepting_jobs for item in ibm_server.state.sessions.values()] == [False]
    for sampled, exact in zip(found[0], run(TorchConnector(network(), WEIGHTS)), strict=True):
        assert 0 < (sampled - exact).abs().max() < 0.4  # readout error is mitigated, gate noise is not


def test_nothing_is_sent_beyond_the_budget(ibm_server: IBMServer) -> None:
    for text in ("ibm:test_manila", "ibm:test_manila?budget=1s"):
        layer = TorchConnector(network(), WEIGHTS, backend=text)
        with pytest.raises(BudgetError):
            layer(torch.zeros(1, 2))
    assert ibm_server.count("POST /(jobs|sessions)") == 0


def test_a_network_that_is_too_wide_says_so(ibm_server: IBMServer) -> None:
    layer = TorchConnector(network(8), WEIGHTS)
    with pytest.raises(BackendError, match="8 qubits and test_nairobi has 7"):
        layer.to_backend("ibm:test_nairobi")
    assert layer.backend is None


def test_a_broken_device_falls_back_with_a_record(ibm_server: IBMServer) -> None:
    ibm_server.fail_jobs("The device broke.")
    layer = TorchConnector(network(), WEIGHTS)
    with layer.to_backend("ibm:test_manila?budget=60s -> statevector"), pytest.warns(match="The device broke"):
        values, _, _ = run(layer)
    torch.testing.assert_close(values, run(TorchConnector(network(), WEIGHTS))[0])
    assert layer.audit()["calls"] == layer.audit()["gradients"] == {"statevector": 1}
