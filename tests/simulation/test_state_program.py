"""State vectors of the exact engine equal Qiskit's."""

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Statevector

from qiskit_qattn.library.catalog import attention_circuit, list_circuits
from qiskit_qattn.simulation.amplitude import amplitude_angles
from qiskit_qattn.simulation.statevector import StateProgram


def drawn(circuit, rng, shape):
    """Random inputs, as the engine and as Qiskit's circuit take them."""
    if circuit.encoding.kind == "amplitude":
        vectors = torch.from_numpy(rng.normal(size=(*shape, 2**circuit.num_qubits)))
        return vectors, amplitude_angles(vectors)
    angles = torch.from_numpy(rng.uniform(-np.pi, np.pi, (*shape, len(circuit.input_params))))
    return angles, angles


def reference(circuit, angles, weights):
    values = dict(zip(circuit.input_params, angles.tolist(), strict=True))
    values |= dict(zip(circuit.weight_params, weights.tolist(), strict=True))
    return Statevector(circuit.circuit.assign_parameters(values)).data


def fidelity(first, second):
    return np.abs(np.vdot(first, second)) ** 2


@pytest.mark.parametrize("name", list_circuits())
@pytest.mark.parametrize("num_qubits", [1, 3, 4])
@pytest.mark.parametrize("batch", [2, 300])  # few rows go gate by gate, many through the matrix
def test_states_are_qiskits_up_to_a_phase(name, num_qubits, batch, rng):
    circuit = attention_circuit(name, max(num_qubits, 2) if name == "compound" else num_qubits)
    program = StateProgram(circuit).double()
    inputs, angles = drawn(circuit, rng, (batch,))
    weights = torch.from_numpy(rng.uniform(-np.pi, np.pi, len(circuit.weight_params)))
    states = program.states(inputs, weights).numpy()
    assert np.abs(np.linalg.norm(states, axis=-1) - 1).max() < 1e-12
    for row in range(2):
        assert fidelity(states[row], reference(circuit, angles[row], weights)) == pytest.approx(1, abs=1e-12)


def test_each_row_may_have_weights_of_its_own(rng):
    circuit = attention_circuit("zz", 3)
    inputs, angles = drawn(circuit, rng, (5, 1))
    weights = torch.from_numpy(rng.uniform(-np.pi, np.pi, (5, len(circuit.weight_params))))
    states = StateProgram(circuit).double().states(inputs, weights)  # (5, 1, 8)
    for row in range(5):
        expected = reference(circuit, angles[row, 0], weights[row])
        assert fidelity(states[row, 0].numpy(), expected) == pytest.approx(1, abs=1e-12)
