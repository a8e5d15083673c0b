"""Quixer's circuits: the unitary of a token, and circuits that mix tokens' unitaries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, ParameterVector, QuantumRegister, Qubit
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.library.ansatzes import check_num_qubits, check_reps
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.encodings import Encoding, amplitude_encoding, gray_code_controls, walsh_gray_matrix


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


def index_qubits(window: int) -> int:
    """Return m, the number of qubits that index the tokens of a window."""
    return max(1, (window - 1).bit_length())


def num_ancillas(window: int, degree: int) -> int:
    """Return how many qubits of :func:`mixing_circuit` are projected on 0: d for the powers, and d times m."""
    return degree * (1 + index_qubits(window))


def mixing_circuit(token: AttentionCircuit, window: int, degree: int) -> AttentionCircuit:
    r"""Return the circuit of a polynomial of a linear combination of token unitaries, and what is measured on it.

    .. math:: \frac{1}{\lVert c \rVert_1} \sum_{k=0}^{d} c_k M^k, \qquad M = \sum_{j=0}^{W-1} b_j U(x_j), \qquad
              \sum_j |b_j| = 1

    acts on the first n qubits where all ancillas end in 0. M is PREPARE, SELECT and PREPARE backwards on an index
    register of its own for each of the d factors. Factor s is selected where qubit s of the register of powers is 1,
    and that register holds :math:`\sum_k \sqrt{|c_k|} |1^k 0^{d-k} \rangle`; its signs are taken in on the way back.
    The observables are the projector Π on ancillas in 0, then :math:`\Pi P_m`, whose ratio to Π is the expectation
    after post-selection.

    The inputs are the angles of each token, the RY angles of the amplitudes :math:`\sqrt{|b_j|}`, and the phases of
    :math:`b_j`; the weights the RY angles of the register of powers forwards and backwards, then those of the token
    circuit.

    Args:
        token: The circuit of one token: its encoding is U, its ansatz follows the mixing.
        window: W, at least 1; the index registers have room for :math:`2^m`.
        degree: d, at least 1.

    Source: Khatri et al., arXiv 2406.04305; Childs and Wiebe, arXiv 1202.5822, for the linear combination.
    """
    parts, inputs, weights = _parts(token, window, degree)
    circuit = QuantumCircuit(token.num_qubits + num_ancillas(window, degree), name=f"{token.name} mixing")
    for _, part, qubits in parts:
        circuit.compose(part, qubits, inplace=True)
    projector, identity = _projector(num_ancillas(window, degree)), SparsePauliOp("I" * token.num_qubits)
    observables = [projector.tensor(each) for each in (identity, *token.observables)]
    return AttentionCircuit.from_circuit(circuit, observables, inputs, [*weights, *token.weight_params])


def mixing_outline(token: AttentionCircuit, window: int, degree: int) -> QuantumCircuit:
    """Return :func:`mixing_circuit` with its parts as boxes, for drawing: system, powers, then the index registers."""
    indices = [QuantumRegister(index_qubits(window), f"index{s}") for s in range(1, degree + 1)]
    circuit = QuantumCircuit(QuantumRegister(token.num_qubits, "q"), QuantumRegister(degree, "power"), *indices)
    for label, part, qubits in _parts(token, window, degree)[0]:
        circuit.append(Gate(label, part.num_qubits, []), qubits)
    return circuit


def _parts(
    token: AttentionCircuit, window: int, degree: int
) -> tuple[list[tuple[str, QuantumCircuit, list[int]]], list[Any], list[Any]]:
    """Return the parts of a mixing circuit, each with its name and qubits, and the inputs and weights that mix."""
    n, m = token.num_qubits, index_qubits(window)
    data = [ParameterVector(f"x{j}", token.encoding.num_features) for j in range(2**m)]
    loads, phases = ParameterVector("b", 2**m - 1), ParameterVector("φ", 2**m)
    forwards, backwards = ParameterVector("r", degree), ParameterVector("l", degree)
    amplitudes = amplitude_encoding(m)
    prepare = amplitudes.circuit.assign_parameters(dict(zip(amplitudes.params, loads, strict=True)))
    select, turn = _select(token.encoding, data), QuantumCircuit(m + 1)
    _diagonal(turn, [0.0] * 2**m + list(phases), turn.qubits)
    system, powers = list(range(n)), list(range(n, n + degree))
    parts = [("POWERS", _unary(forwards), powers)]
    for s, power in enumerate(powers):
        index = list(range(n + degree + s * m, n + degree + (s + 1) * m))
        parts.append(("PREPARE", prepare, index))
        parts.append(("SELECT", select, [*system, *index, power]))
        parts.append(("PHASES", turn, [*index, power]))
        parts.append(("PREPARE†", prepare.inverse(), index))
    parts += [("POWERS†", _unary(backwards).inverse(), powers), ("F", token.ansatz, system)]
    return parts, [angle for vector in (*data, loads, phases) for angle in vector], [*forwards, *backwards]


def _unary(angles: ParameterVector) -> QuantumCircuit:
    """Return the preparation of amplitudes on the states 1…10…0: one RY per qubit, controlled by the one before."""
    circuit = QuantumCircuit(len(angles))
    circuit.ry(angles[0], 0)
    for s in range(1, len(angles)):
        circuit.cry(angles[s], s - 1, s)
    return circuit


def _select(encoding: Encoding, data: Sequence[ParameterVector]) -> QuantumCircuit:
    """Return the unitary of token j where the index holds j and the last qubit is 1, on system, index and last qubit.

    All tokens have the same gates, so each gate becomes one uniformly controlled rotation.
    """
    circuit = QuantumCircuit(encoding.num_qubits + len(data).bit_length())
    controls = circuit.qubits[encoding.num_qubits :]
    position, unset = {parameter: f for f, parameter in enumerate(encoding.params)}, [0.0] * len(data)
    for item in encoding.circuit.data:
        *own, target = (circuit.qubits[encoding.circuit.find_bit(qubit).index] for qubit in item.qubits)
        angles = [vector[position[item.operation.params[0]]] for vector in data]
        states = [*unset, *angles] if not own else [*unset, *unset, *unset, *angles]
        _multiplexed(circuit, "x" if own else "y", states, [*controls, *own], target)
    return circuit


def _multiplexed(
    circuit: QuantumCircuit, axis: str, angles: Sequence[Any], controls: Sequence[Qubit], target: Qubit
) -> None:
    """Append a rotation by ``angles[j]`` where the controls hold j, the first its least significant bit."""
    turn = {"x": circuit.rx, "y": circuit.ry, "z": circuit.rz}[axis]
    flip = circuit.cz if axis == "x" else circuit.cx
    rows = walsh_gray_matrix(len(controls))
    for row, control in zip(rows, gray_code_controls(len(controls)), strict=True):
        turn(sum(float(sign) * angle for sign, angle in zip(row, angles, strict=True)), target)
        if controls:
            flip(controls[control], target)


def _diagonal(circuit: QuantumCircuit, phases: Sequence[Any], qubits: Sequence[Qubit]) -> None:
    """Append the phase ``phases[j]`` where the qubits hold j, up to a global phase."""
    half = len(phases) // 2
    if half:
        low, high = phases[:half], phases[half:]
        _multiplexed(circuit, "z", [b - a for a, b in zip(low, high, strict=True)], qubits[:-1], qubits[-1])
        _diagonal(circuit, [(a + b) / 2 for a, b in zip(low, high, strict=True)], qubits[:-1])


def _projector(count: int) -> SparsePauliOp:
    """Return the projector on qubits that are all 0, a sum of all strings of I and Z."""
    return SparsePauliOp(["".join(letters) for letters in product("IZ", repeat=count)], np.full(2**count, 0.5**count))
