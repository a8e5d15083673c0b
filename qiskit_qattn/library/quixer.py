"""Quixer's circuits: the unitary of a token, and circuits that mix tokens' unitaries."""

from __future__ import annotations

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qiskit_qattn.library.ansatzes import check_num_qubits, check_reps
from qiskit_qattn.library.encodings import Encoding


def ring_pairs(num_qubits: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return control and target of each gate in the two rings of a layer of circuit 14, in the order they act."""
    last = num_qubits - 1
    if last == 0:
        return [], []
    up = [(q, (q + 1) % num_qubits) for q in reversed(range(num_qubits))]
    return up, [(q, (q - 1) % num_qubits) for q in (last, *range(last))]


def circuit_14(num_qubits: int, reps: int = 1, *, prefix: str = "θ") -> QuantumCircuit:
    r"""Build circuit 14 of Sim et al.: per layer RY on every qubit, a ring of controlled RX, RY, and a ring back.

    Args:
        num_qubits: n, between 1 and 12; one qubit has no ring.
        reps: Number of layers; each takes 4n angles in radians, 2 for n = 1.
        prefix: Name of the parameter vector.

    Raises:
        CircuitError: For sizes outside the ranges.

    Source: Sim, Johnson, Aspuru-Guzik, arXiv 1905.10876, circuit 14; order of the gates as in Quixer's code.
    """
    check_num_qubits(num_qubits)
    check_reps(reps)
    rings = ring_pairs(num_qubits)
    theta = iter(ParameterVector(prefix, reps * sum(num_qubits + len(ring) for ring in rings)))
    circuit = QuantumCircuit(num_qubits, name="circuit 14")
    for _ in range(reps):
        for ring in rings:
            for qubit in range(num_qubits):
                circuit.ry(next(theta), qubit)
            for control, target in ring:
                circuit.crx(next(theta), control, target)
    return circuit


def quixer_encoding(num_qubits: int, reps: int = 1) -> Encoding:
    r"""Encode a token as a unitary: circuit 14 with the data as its angles, on :math:`|0\rangle`.

    Args:
        num_qubits: n, between 1 and 12.
        reps: Number of layers; each takes 4n angles in radians, 2 for n = 1.

    Raises:
        CircuitError: For sizes outside the ranges.

    Source: Khatri, Matos, Coopmans, Clark, "Quixer: A Quantum Transformer Model", arXiv 2406.04305: four layers on six
    qubits there, one here.
    """
    circuit = circuit_14(num_qubits, reps, prefix="x")
    params = sorted(circuit.parameters, key=lambda p: p.index)
    return Encoding("quixer", circuit, tuple(params), len(params))


def quixer_ansatz(num_qubits: int, reps: int = 1) -> QuantumCircuit:
    """Build the trainable circuit that follows the mixing of tokens: circuit 14; arguments as for that."""
    return circuit_14(num_qubits, reps)
