"""Circuits of pairs against the states of their definitions."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import Statevector, partial_trace

from qiskit_qattn.errors import CircuitError, UnknownNameError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import attention_circuit
from qiskit_qattn.library.encodings import Encoding
from qiskit_qattn.library.pairs import Comparison, kept_qubits, pair_circuit
from qiskit_qattn.simulation.amplitude import amplitude_angles


def random_states(circuit: AttentionCircuit, rng: np.random.Generator):
    """Return the inputs and weights of a random query and key, and their states."""
    inputs = rng.uniform(-np.pi, np.pi, (2, len(circuit.input_params)))
    weights = rng.uniform(-np.pi, np.pi, (2, len(circuit.weight_params)))
    params = [*circuit.input_params, *circuit.weight_params]
    states = [
        Statevector(circuit.circuit.assign_parameters(dict(zip(params, [*x, *w], strict=True))))
        for x, w in zip(inputs, weights, strict=True)
    ]
    return inputs, weights, states


def compared(comparison: Comparison, q: Statevector, k: Statevector) -> list[float]:
    """Return what compares two states, from its definition."""
    if comparison == "mixed":
        traced = list(range(kept_qubits(q.num_qubits), q.num_qubits))
        return [np.trace(partial_trace(q, traced).data @ partial_trace(k, traced).data).real]
    overlap = q.inner(k)
    return [overlap.real, overlap.imag] if comparison == "complex" else [abs(overlap) ** 2]


@pytest.mark.parametrize("comparison", ["overlap", "mixed", "complex"])
@pytest.mark.parametrize(("name", "num_qubits"), [("qisa", 1), ("qisa", 2), ("qisa", 3), ("angle", 3), ("qsann", 2)])
def test_expectations_compare_the_two_states(name, num_qubits, comparison, rng):
    states = attention_circuit(name, num_qubits)
    pair = pair_circuit(states, comparison)
    inputs, weights, (q, k) = random_states(states, rng)
    values = dict(zip([*pair.input_params, *pair.weight_params], [*inputs.ravel(), *weights.ravel()], strict=True))
    state = Statevector(pair.circuit.assign_parameters(values))
    found = [state.expectation_value(observable).real for observable in pair.observables]
    np.testing.assert_allclose(found, compared(comparison, q, k), atol=1e-12)


def test_amplitude_encoded_vectors_without_an_ansatz_have_the_polynomial_kernel(rng):
    states = attention_circuit("qisa", 3, reps=0)
    pair = pair_circuit(states, "overlap")
    q, k = rng.normal(size=(2, 8))
    angles = amplitude_angles(torch.from_numpy(np.stack([q, k]))).numpy().ravel()
    state = Statevector(pair.circuit.assign_parameters(dict(zip(pair.input_params, angles, strict=True))))
    cosine = q @ k / np.linalg.norm(q) / np.linalg.norm(k)
    assert state.expectation_value(pair.observables[0]).real == pytest.approx(cosine**2, abs=1e-12)


@pytest.mark.parametrize(("comparison", "qubits", "bases"), [("overlap", 3, 1), ("mixed", 6, 1), ("complex", 4, 2)])
def test_sizes_are_those_that_are_documented(comparison, qubits, bases):
    pair = pair_circuit(attention_circuit("qisa", 3), comparison)
    assert (pair.num_qubits, len(pair.shots(0.1).bases)) == (qubits, bases)
    assert pair.name == f"qisa-v3-{comparison}"
    assert (len(pair.input_params), len(pair.weight_params)) == (14, 18)


def test_gates_that_cannot_follow_an_ancilla_are_refused():
    circuit, x = QuantumCircuit(2), Parameter("x")
    circuit.rzz(x, 0, 1)
    states = AttentionCircuit("own", Encoding("angle", circuit, (x,), 1), QuantumCircuit(2), ("ZZ",))
    with pytest.raises(CircuitError, match="RX, RY and RZ, got rzz"):
        pair_circuit(states, "complex")


def test_an_unknown_comparison_lists_the_known():
    with pytest.raises(UnknownNameError, match=r"swap.*Known: complex, mixed, overlap"):
        pair_circuit(attention_circuit("qisa", 2), "swap")
