"""Ansatzes have the gates and the numbers of weights of their sources."""

import numpy as np
import pytest
from qiskit.quantum_info import Operator

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.ansatzes import (
    angle_ansatz,
    orthogonal_ansatz,
    qisa_ansatz,
    qsann_ansatz,
    real_amplitudes_ansatz,
)

BUILDERS = [qisa_ansatz, qsann_ansatz, real_amplitudes_ansatz, angle_ansatz, orthogonal_ansatz]


@pytest.mark.parametrize("num_qubits", [1, 2, 5])
@pytest.mark.parametrize("reps", [0, 1, 3])
def test_numbers_of_weights(num_qubits, reps):
    neighbours = 1 if num_qubits == 1 else 2
    assert qisa_ansatz(num_qubits, reps).num_parameters == 3 * num_qubits * reps
    assert qsann_ansatz(num_qubits, reps).num_parameters == num_qubits * (2 * neighbours * reps + 2)
    assert real_amplitudes_ansatz(num_qubits, reps).num_parameters == num_qubits * (reps + 1)
    assert angle_ansatz(num_qubits, reps).num_parameters == num_qubits * reps
    assert orthogonal_ansatz(num_qubits, reps).num_parameters == neighbours * num_qubits * reps


def test_qisa_layer_is_rx_ry_ring_ry():
    names = [(item.operation.name, [q._index for q in item.qubits]) for item in qisa_ansatz(3).data]
    ring = [("cx", [0, 1]), ("cx", [1, 2]), ("cx", [2, 0])]
    assert names == [("rx", [q]) for q in range(3)] + [("ry", [q]) for q in range(3)] + ring + [
        ("ry", [q]) for q in range(3)
    ]


@pytest.mark.parametrize("build", BUILDERS)
def test_weights_are_numbered_in_the_order_they_act(build):
    seen = [p.index for item in build(3, 2).data for p in getattr(item.operation.params[0:1], "__iter__", list)()]
    assert seen == sorted(seen)


@pytest.mark.parametrize("build", BUILDERS)
def test_bad_sizes_are_errors(build):
    with pytest.raises(CircuitError, match="num_qubits"):
        build(0, 1)
    with pytest.raises(CircuitError, match="reps"):
        build(2, -1)


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 5])
def test_an_orthogonal_ansatz_is_real_and_starts_as_the_identity(num_qubits, rng):
    circuit = orthogonal_ansatz(num_qubits, 3)
    unitary = Operator(circuit.assign_parameters(rng.normal(size=circuit.num_parameters))).data
    assert abs(unitary.imag).max() < 1e-12 and abs(unitary.real - np.eye(2**num_qubits)).max() > 0.1
    np.testing.assert_allclose(unitary.real @ unitary.real.T, np.eye(2**num_qubits), atol=1e-12)
    start = Operator(circuit.assign_parameters(np.zeros(circuit.num_parameters))).data
    np.testing.assert_allclose(start, np.eye(2**num_qubits), atol=1e-12)
