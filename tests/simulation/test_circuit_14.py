"""Unitaries of circuit 14 by look-up: those of Qiskit's circuit."""

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Operator

from qiskit_qattn.library.quixer import circuit_14
from qiskit_qattn.simulation.circuit_14 import Circuit14


@pytest.mark.parametrize(("num_qubits", "reps"), [(1, 2), (2, 1), (3, 2), (4, 1), (5, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_unitaries_are_those_of_the_circuit(num_qubits, reps, dtype, tolerance):
    circuit, module = circuit_14(num_qubits, reps), Circuit14(num_qubits).to(dtype)
    angles = (6 * torch.randn(2, 3, circuit.num_parameters)).to(dtype)
    found = module(angles).numpy()
    assert found.shape == (2, 3, 2**num_qubits, 2**num_qubits)
    for index in np.ndindex(2, 3):
        expected = Operator(circuit.assign_parameters(angles[index].double().numpy())).data
        np.testing.assert_allclose(found[index], expected, atol=tolerance)


def test_no_layer_is_the_identity():
    assert torch.equal(Circuit14(2)(torch.zeros(3, 0)), torch.eye(4).expand(3, 4, 4) + 0j)


def test_gradients_are_those_of_finite_differences():
    angles = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Circuit14(2).double(), angles)
