"""Outcomes in all bases have the probabilities that Qiskit gives, whichever way amplitudes are turned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector, random_statevector

from qiskit_qattn.library.observables import basis_rotation
from qiskit_qattn.simulation.readout import MeasurementBases, build_readout


@pytest.mark.parametrize("num_qubits", [2, 9])  # one matrix, or qubit by qubit
@pytest.mark.parametrize("letters", [("Z",), ("Z", "X"), ("X", "Y")], ids="".join)
def test_amplitudes_of_all_outcomes(letters, num_qubits, rng):
    readout = build_readout([SparsePauliOp(letter * num_qubits) for letter in letters])
    outcomes = np.sort(rng.choice(len(readout.signs), size=3, replace=False))
    states = [random_statevector(2**num_qubits, seed=int(rng.integers(1000))) for _ in range(3)]
    columns = torch.from_numpy(np.stack([state.data for state in states], -1))
    found = MeasurementBases(readout, outcomes)(columns).abs().square()
    for state, column in zip(states, found.T, strict=True):
        every = [_turned(state, basis).probabilities() for basis in readout.bases]
        np.testing.assert_allclose(column, np.concatenate(every)[outcomes], rtol=0, atol=1e-12)


def test_real_states_stay_real_without_y(rng):
    columns = torch.from_numpy(rng.normal(size=(4, 3)))
    for letter, is_complex in (("Z", False), ("X", False), ("Y", True)):
        bases = MeasurementBases(build_readout([SparsePauliOp(letter * 2)]), np.arange(4))
        assert bases.trivial == (letter == "Z")
        assert bases(columns).is_complex() == is_complex


def _turned(state: Statevector, basis: str) -> Statevector:
    for qubit, letter in enumerate(reversed(basis)):
        [gate] = basis_rotation(letter)
        state = state.evolve(Operator(gate), [qubit])
    return state
