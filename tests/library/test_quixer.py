"""Quixer's circuits: the gates of circuit 14, and tokens mixed by PREPARE, SELECT and post-selection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit import transpile
from qiskit.quantum_info import Operator, Statevector
from qiskit_aer import AerSimulator

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.catalog import attention_circuit
from qiskit_qattn.library.quixer import circuit_14, mixing_circuit, mixing_outline, num_ancillas
from qiskit_qattn.simulation.amplitude import amplitude_angles


def test_circuit_14_has_the_gates_of_the_papers_code():
    circuit = circuit_14(3, 2)
    found = [(item.operation.name, *(circuit.find_bit(q).index for q in item.qubits)) for item in circuit.data]
    turns = [("ry", q) for q in range(3)]
    up, down = [(2, 0), (1, 2), (0, 1)], [(2, 1), (0, 2), (1, 0)]
    layer = [*turns, *(("crx", *pair) for pair in up), *turns, *(("crx", *pair) for pair in down)]
    assert found == [*layer, *layer]
    assert [item.operation.params[0].index for item in circuit.data] == list(range(24))


def test_one_qubit_has_no_ring_and_wrong_sizes_are_errors():
    assert circuit_14(1, 3).count_ops() == {"ry": 6}
    with pytest.raises(CircuitError, match="num_qubits must be between 1 and 12"):
        circuit_14(13)
    with pytest.raises(CircuitError, match="reps"):
        circuit_14(2, -1)


def unary_angles(amplitudes):
    """Return the angles of RY that prepare amplitudes on the states 1…10…0, one controlled by the last."""
    norms = np.sqrt(np.cumsum((amplitudes**2)[::-1])[::-1])
    rest = [*norms[1:-1], amplitudes[-1]]
    return [2 * np.arctan2(b, a) for a, b in zip(amplitudes[:-1], rest, strict=True)]


class Case:
    """A token circuit with random angles, coefficients and polynomial, and what it gives by definition."""

    def __init__(self, rng, num_qubits, window, degree):
        self.token = attention_circuit("quixer", num_qubits, num_observables=2 * num_qubits)
        self.mixed = mixing_circuit(self.token, window, degree)
        slots = 2 ** max(1, int(np.ceil(np.log2(window))))
        x = rng.normal(size=(slots, self.token.encoding.num_features))
        b, c = np.zeros(slots, complex), rng.normal(size=degree + 1)
        b[:window] = rng.normal(size=window) + 1j * rng.normal(size=window)
        b /= np.abs(b).sum()
        theta = rng.normal(size=len(self.token.weight_params))
        unitaries = [self.operator(self.token.encoding.circuit, self.token.encoding.params, angles) for angles in x]
        m = sum(factor * unitary for factor, unitary in zip(b, unitaries, strict=True))
        state = sum(factor * np.linalg.matrix_power(m, k)[:, 0] for k, factor in enumerate(c))
        state = self.operator(self.token.ansatz, self.token.weight_params, theta) @ state
        self.probability = np.linalg.norm(state) ** 2 / np.abs(c).sum() ** 2
        self.state = Statevector(state / np.linalg.norm(state))
        loads = amplitude_angles(torch.from_numpy(np.sqrt(np.abs(b)))).numpy()
        roots = np.sqrt(np.abs(c))
        values = [*x.ravel(), *loads, *np.angle(b), *unary_angles(roots), *unary_angles(roots * np.sign(c)), *theta]
        params = [*self.mixed.input_params, *self.mixed.weight_params]
        self.circuit = self.mixed.circuit.assign_parameters(dict(zip(params, values, strict=True)))

    @staticmethod
    def operator(circuit, params, values):
        return Operator(circuit.assign_parameters(dict(zip(params, values, strict=True)))).data


@pytest.mark.parametrize(("num_qubits", "window", "degree"), [(2, 2, 2), (2, 3, 1), (1, 4, 2), (1, 1, 3)])
def test_the_ratio_of_expectations_is_that_of_the_polynomial_by_definition(num_qubits, window, degree, rng):
    case = Case(rng, num_qubits, window, degree)
    assert case.circuit.num_qubits == num_qubits + num_ancillas(window, degree)
    state = Statevector(case.circuit)
    projected, *values = (state.expectation_value(each).real for each in case.mixed.observables)
    assert projected == pytest.approx(case.probability, abs=1e-12)
    expected = [case.state.expectation_value(each).real for each in case.token.observables]
    np.testing.assert_allclose(np.array(values) / projected, expected, atol=1e-10)


def test_counts_post_selected_on_aer_are_those_of_the_polynomial(rng):
    case, shots = Case(rng, 2, 4, 2), 40_000
    measured = case.circuit.copy()
    measured.measure_all()
    simulator = AerSimulator(seed_simulator=7)
    counts = simulator.run(transpile(measured, simulator), shots=shots).result().get_counts()
    ancillas = "0" * num_ancillas(4, 2)
    kept = {bits[-2:]: count for bits, count in counts.items() if bits.startswith(ancillas)}
    total = sum(kept.values())
    assert abs(total / shots - case.probability) < 5 * np.sqrt(case.probability / shots)
    found = np.array([kept.get(f"{i:02b}", 0) / total for i in range(4)])
    np.testing.assert_allclose(found, case.state.probabilities(), atol=5 * 0.5 / np.sqrt(total))


def test_the_outline_is_on_the_same_qubits():
    token = attention_circuit("quixer", 2)
    outline, circuit = mixing_outline(token, 4, 2), mixing_circuit(token, 4, 2)
    assert outline.num_qubits == circuit.num_qubits == 8
    assert outline.count_ops()["SELECT"] == 2
