"""A circuit as a user would write it: angle inputs, two layers of weights, one ⟨Z⟩ a qubit."""

from __future__ import annotations

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

NUM_LAYERS = 2


def user_network(num_qubits: int) -> EstimatorQNN:
    r"""Return RX(xᵢ), then twice RY(θ) and a ring of CX, with :math:`\langle Z_q \rangle` of each qubit q."""
    inputs = ParameterVector("x", num_qubits)
    weights = ParameterVector("θ", NUM_LAYERS * num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_qubits):
        circuit.rx(inputs[q], q)
    for layer in range(NUM_LAYERS):
        for q in range(num_qubits):
            circuit.ry(weights[layer * num_qubits + q], q)
        for q in range(num_qubits):
            circuit.cx(q, (q + 1) % num_qubits)
    estimator = StatevectorEstimator()
    return EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        gradient=ParamShiftEstimatorGradient(estimator),
        observables=[SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], num_qubits) for q in range(num_qubits)],
        input_params=list(inputs),
        weight_params=list(weights),
        input_gradients=True,
        default_precision=0.0,
    )
