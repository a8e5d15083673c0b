"""Trigonometric sums equal the product of the gates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import Operator

from qiskit_qattn.simulation.gates import flatten
from qiskit_qattn.simulation.program import build_program
from qiskit_qattn.simulation.trigonometric import TrigonometricMatrix


def circuit_of(num_qubits: int, num_weights: int, rng: np.random.Generator) -> tuple[QuantumCircuit, list]:
    """Return random rotations, repeated and mixed angles among them, between fixed gates."""
    weights = list(ParameterVector("w", num_weights))
    circuit = QuantumCircuit(num_qubits)
    for k, weight in enumerate(weights):
        q = int(rng.integers(num_qubits))
        angle = weight if k % 3 else 2 * weight - weights[0] + 0.3
        getattr(circuit, ("rx", "ry", "rz")[k % 3])(angle, q)
        circuit.h(q)
        if num_qubits > 1:
            circuit.cx(q, (q + 1) % num_qubits)
            circuit.rzz(weight, q, (q + 1) % num_qubits)
    circuit.rx(0.4, 0)
    return circuit, weights


def matrix_of(circuit: QuantumCircuit, weights: list, *, real: bool = False, last: bool = True) -> TrigonometricMatrix:
    size = 2**circuit.num_qubits
    [block] = build_program(flatten(circuit), circuit.num_qubits, ()).blocks
    return TrigonometricMatrix(block, weights, np.eye(size), np.eye(size), from_real=True, last=last, real=real)


@pytest.mark.parametrize("num_weights", [0, 1, 4, 9])
@pytest.mark.parametrize("num_qubits", [1, 2, 3])
def test_it_is_the_circuits_unitary(num_qubits, num_weights, rng):
    circuit, weights = circuit_of(num_qubits, num_weights, rng)
    values = rng.normal(size=(2, num_weights))
    found = matrix_of(circuit, weights)(torch.tensor(values)).expand(2, -1, -1)  # (2, in, [Re, Im] of out)
    size = 2**num_qubits
    for row, matrix in zip(values, found, strict=True):
        unitary = Operator(circuit.assign_parameters(dict(zip(weights, row, strict=True)))).data
        mine = (matrix[:, :size] + 1j * matrix[:, size:]).numpy().T
        phase = np.vdot(mine, unitary) / size  # the engine leaves a global phase out
        np.testing.assert_allclose(mine * phase, unitary, rtol=0, atol=1e-12)
        assert abs(abs(phase) - 1) < 1e-12


def test_halves_are_interleaved_before_the_last_matrix(rng):
    circuit, weights = circuit_of(2, 5, rng)
    theta = torch.tensor(rng.normal(size=5))
    halves = matrix_of(circuit, weights)(theta)
    pairs = matrix_of(circuit, weights, last=False)(theta)
    torch.testing.assert_close(pairs, halves.unflatten(-1, (2, 4)).transpose(-1, -2).flatten(-2))


def test_real_circuits_leave_imaginary_parts_out(rng):
    weights = list(ParameterVector("w", 6))
    circuit = QuantumCircuit(2)
    for k, weight in enumerate(weights):
        circuit.ry(weight, k % 2)
        circuit.cx(k % 2, 1 - k % 2)
    theta = torch.tensor(rng.normal(size=6))
    full, real = matrix_of(circuit, weights)(theta), matrix_of(circuit, weights, real=True)(theta)
    assert real.shape == (4, 4)
    torch.testing.assert_close(real, full[:, :4])
    assert full[:, 4:].abs().max() < 1e-12


def test_gradients(rng):
    circuit, weights = circuit_of(2, 6, rng)
    theta = torch.tensor(rng.normal(size=6), requires_grad=True)
    assert torch.autograd.gradcheck(matrix_of(circuit, weights), theta)
    assert torch.autograd.gradgradcheck(lambda t: matrix_of(circuit, weights)(t).square().sum(), theta)
