"""TorchConnector beyond 20 qubits: matrix product states behind an exact EstimatorQNN."""

import copy
import sys

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import PauliEvolutionGate, RYGate
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.gradients import SPSAEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_qattn import TorchConnector, TorchEstimator, compile_qnn
from qiskit_qattn.backends import mps

pytest.importorskip("qiskit_aer")


def chain(num_qubits, reps=1, **options):
    """Return a network of RY(x), then layers of RY(w) and CX from each qubit to the next; ⟨Z⟩ of the first two."""
    x, w = ParameterVector("x", num_qubits), ParameterVector("w", reps * num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_qubits):
        circuit.ry(x[q], q)
    for r in range(reps):
        for q in range(num_qubits):
            circuit.ry(w[r * num_qubits + q], q)
        for q in range(num_qubits - 1):
            circuit.cx(q, q + 1)
    rest = "I" * (num_qubits - 2)
    options.setdefault("estimator", StatevectorEstimator())
    options.setdefault("default_precision", 0.0)
    return EstimatorQNN(
        circuit=circuit,
        observables=[SparsePauliOp(f"{rest}IZ"), SparsePauliOp([f"{rest}ZI", f"{rest}IZ"], [1.0, 0.5])],
        input_params=list(x),
        weight_params=list(w),
        input_gradients=True,
        **options,
    )


def analytic(x, w):
    """Return the network's values for one layer: ⟨Z₀⟩ = cos α₀ and ⟨Z₁⟩ = cos α₀ cos α₁ with α = x + w."""
    first, second = (x + w).cos()[:, :2].unbind(-1)
    return torch.stack([first, first * second + 0.5 * first], -1)


@pytest.mark.parametrize("estimator", [None, StatevectorEstimator(), TorchEstimator()], ids=["qml", "qiskit", "ours"])
def test_wide_networks_run_on_matrix_product_states(estimator):
    compiled = compile_qnn(chain(21, estimator=estimator))
    assert compiled.engine == "mps"
    assert isinstance(compiled.program.estimator, mps.MPSEstimator)
    assert compiled.reason.endswith(
        "returns exact values; 21 qubits, matrix product states with bonds of at most 2, so nothing is truncated, "
        "parameter shift."
    )


def test_bonds_that_may_be_cut_are_told():
    assert "bonds cut at 64, the error in program.estimator.truncation_error" in compile_qnn(chain(22, 7)).reason
    assert "bonds of at most 64" in compile_qnn(chain(22, 6)).reason


def test_values_and_gradients_are_the_analytic_ones(rng):
    model = TorchConnector(chain(22), rng.uniform(-1, 1, 22)).double()
    x = torch.from_numpy(rng.uniform(-3, 3, (2, 3, 22))).requires_grad_()
    y = model(x)
    y.square().sum().backward()
    grads, x.grad = x.grad, None
    weight = model.weight.detach().clone().requires_grad_()
    expected = analytic(x.flatten(0, 1), weight).reshape(2, 3, 2)
    expected.square().sum().backward()
    torch.testing.assert_close(y, expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(grads, x.grad, atol=1e-8, rtol=0)
    torch.testing.assert_close(model.weight.grad, weight.grad, atol=1e-8, rtol=0)


def test_it_copies():
    model = TorchConnector(chain(21))
    x = torch.rand(2, 21)
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))


def test_what_is_not_exact_or_too_wide_stays_where_it_was():
    assert compile_qnn(chain(20)).engine == "statevector"
    assert compile_qnn(chain(21, default_precision=0.1)).engine == "pub"
    spsa = SPSAEstimatorGradient(StatevectorEstimator(), epsilon=0.1)
    assert compile_qnn(chain(21, gradient=spsa)).engine == "network"
    wide = compile_qnn(chain(31))
    assert (wide.engine, wide.program) == ("network", None)
    assert "at most 30 qubits here, got 31" in wide.reason


def test_without_aer_the_network_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    mps.mps_simulator.cache_clear()
    compiled = compile_qnn(chain(21))
    assert (compiled.engine, compiled.program) == ("network", None)
    assert 'pip install "qiskit-qattn[aer]"' in compiled.reason
    assert np.isfinite(TorchConnector(chain(21)).weight.detach().numpy()).all()


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # of Qiskit's matrices of evolutions
def test_gates_are_themselves_on_matrix_product_states(rng):
    """The qubits beyond the first three stay apart, so that Statevector knows the values without them."""
    x, w = Parameter("x"), Parameter("w")
    body = QuantumCircuit(2)
    body.h(0)
    body.ry(w, 1)
    body.cx(1, 0)
    swap = body.to_gate()
    swap.name = "swap"

    def circuit_on(num_qubits):
        circuit = QuantumCircuit(num_qubits, 1)
        circuit.reset(0)
        for q in range(3, num_qubits):
            circuit.x(q)
        circuit.ry(x, 0)
        circuit.h(1)
        circuit.append(swap, [0, 2])
        circuit.cp(x * w, 1, 0)
        circuit.append(PauliEvolutionGate(SparsePauliOp(["XX", "ZI", "IZ"], [1, 0.5, 0.5]), w + x), [0, 1])
        circuit.append(RYGate(x).control(2, annotated=True), [0, 1, 2])
        circuit.measure(num_qubits - 1, 0)
        return circuit

    def network_on(num_qubits):
        labels = ["XYZ", "ZIZ", "IZX"]
        return EstimatorQNN(
            circuit=circuit_on(num_qubits),
            observables=[SparsePauliOp("I" * (num_qubits - 3) + label) for label in labels],
            input_params=[x],
            weight_params=[w],
            input_gradients=True,
        )

    wide, narrow = (TorchConnector(network_on(n), np.array([0.75])).double() for n in (21, 3))
    assert compile_qnn(wide.neural_network).engine == "mps"
    points = torch.from_numpy(rng.normal(size=(2, 1))).requires_grad_()
    for found, expected in zip(
        torch.autograd.functional.jacobian(wide, points),
        torch.autograd.functional.jacobian(narrow, points),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(wide(points), narrow(points))
