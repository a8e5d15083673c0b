"""A plan is data: phases stored once, and the choices of how to compute."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.simulation.plan import make_plan

X, W = ParameterVector("x", 3), ParameterVector("w", 3)


def test_features_give_the_amplitudes_of_all_phases(rng):
    circuit = QuantumCircuit(3)
    for q in range(3):
        circuit.rx(X[q], q)
    plan = make_plan(circuit, [SparsePauliOp("ZZZ")], input_params=list(X))
    coefficients, unique = plan.program.phases[0].coefficients, plan.unique_phases
    assert (len(coefficients), len(unique.coefficients), plan.num_features) == (8, 4, 8)
    angles = rng.normal(size=coefficients.shape[1])
    phases = unique.coefficients @ angles
    found = unique.features_to_amplitudes() @ np.concatenate([np.cos(phases), np.sin(phases)])
    np.testing.assert_allclose(found, np.exp(1j * coefficients @ angles), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mixed", [False, True])
def test_phases_are_functions_of_weights_only_where_an_angle_uses_both(mixed):
    circuit = QuantumCircuit(3)
    for q in range(3):
        circuit.rx(X[q] * W[q] if mixed else X[q], q)
        circuit.ry(W[q], q)
    plan = make_plan(circuit, [SparsePauliOp("ZZZ")], input_params=list(X), weight_params=list(W))
    assert (plan.mixed, plan.phase_params) == (mixed, (*X, *W) if mixed else tuple(X))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.mixed = True
