"""Compiled loops over entries that can differ from zero give what dense products give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qiskit_qattn.simulation.cpu.trigonometric import form_matrix, matrix_gradient
from qiskit_qattn.simulation.gates import flatten
from qiskit_qattn.simulation.program import build_program
from qiskit_qattn.simulation.trigonometric import TrigonometricMatrix


def block_of(num_qubits: int, num_weights: int, *, width: int = 4, real: bool = False) -> TrigonometricMatrix:
    """Return a layered ansatz between a map of ``width`` features and the Hadamard gate on one qubit."""
    weights = list(ParameterVector("w", num_weights))
    circuit = QuantumCircuit(num_qubits)
    for k, weight in enumerate(weights):
        getattr(circuit, "ry" if real or k % 2 else "rx")(weight, k % num_qubits)
        if k % num_qubits == num_qubits - 1:
            circuit.cx(0, num_qubits - 1)
    [block] = build_program(flatten(circuit), num_qubits, ()).blocks
    size = 2**num_qubits
    hadamard = np.kron(np.eye(size // 2), np.array([[1, 1], [1, -1]]) / np.sqrt(2))
    return TrigonometricMatrix(block, weights, np.eye(size, width), hadamard, from_real=True, last=True, real=real)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("num_weights", [0, 1, 4, 5, 11])
@pytest.mark.parametrize("heads", [0, 1, 3])
def test_matrices_and_gradients_are_those_of_dense_products(heads, num_weights, real, dtype, rng):
    block = block_of(3, num_weights, real=real)
    columns = rng.normal(size=(heads, num_weights)).astype(dtype)
    found, trace = form_matrix(block, columns)
    expected, steps = block.form(torch.from_numpy(columns))
    assert found.shape == (heads, 4, 8 if real else 16)
    np.testing.assert_allclose(found, expected.expand(found.shape), rtol=0, atol=1e-14)
    grad = rng.normal(size=found.shape)
    slope = block.gradient(torch.from_numpy(grad), steps)
    np.testing.assert_allclose(matrix_gradient(block, grad, trace), slope, rtol=0, atol=1e-13)


def test_one_matrix_may_have_the_gradients_of_several_heads(rng):
    block = block_of(3, 5)
    columns, grad = rng.normal(size=(1, 5)), rng.normal(size=(4, 4, 16))
    _, trace = form_matrix(block, columns)
    each = [matrix_gradient(block, part[None], trace)[0] for part in grad]
    np.testing.assert_allclose(matrix_gradient(block, grad, trace), each, rtol=0, atol=1e-13)


def test_most_entries_are_left_out():
    block = block_of(5, 8, width=32)
    _, entries, layout = block.arrays
    assert len(entries) == layout[:, 1].sum()
    assert len(entries) * 4 <= (layout[:, 2] * layout[:, 3]).sum()
