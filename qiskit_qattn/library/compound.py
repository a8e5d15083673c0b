"""Circuits on states with two 1s: a matrix in the amplitudes of pairs of qubits, and what reads their signs."""

from __future__ import annotations

import itertools
import math

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.encodings import Encoding
from qiskit_qattn.library.unary import MOST_QUBITS, rbs


def matrix_sides(num_qubits: int) -> tuple[int, int]:
    """Return how many qubits are rows of a matrix and how many its columns: halves, the rows rounded down."""
    return num_qubits // 2, num_qubits - num_qubits // 2


def matrix_qubits(count: int) -> int:
    """Return the fewest qubits whose rows and columns have ``count`` pairs: the least n with ⌊n²/4⌋ of them."""
    return math.isqrt(4 * count - 1) + 1


def matrix_encoding(num_qubits: int) -> Encoding:
    r"""Prepare :math:`(|0 \dots 0\rangle + \sum_{ij} \hat X_{ij} |e_i\rangle |e_j\rangle) / \sqrt 2` for real X.

    Each state has one 1 on the qubits of the rows, the first k = ⌊n/2⌋, and one on those of the m = n − k columns. RY
    and a chain of RBS load the norms of the rows. Then, row by row, CX from its qubit to the first column and a chain
    of RBS on the columns load its entries. The chains of later rows also turn those of the rows before, which the
    angles take into account: a differentiable function of X, :func:`qiskit_qattn.simulation.compound.matrix_angles`.

    Args:
        num_qubits: n, between 2 and 128; X has k m entries, row by row, and the circuit as many angles in radians.

    Raises:
        CircuitError: For a number of qubits outside that range.

    Source: Cherrat et al., arXiv 2209.08167, the matrix data loader; that no RBS has to be controlled, and the
    reference state, are ours.
    """
    if not 2 <= num_qubits <= MOST_QUBITS:
        raise CircuitError(f"Pairs need num_qubits of at least 2 and at most {MOST_QUBITS}, got {num_qubits}.")
    rows, columns = matrix_sides(num_qubits)
    params = ParameterVector("x", rows * columns)
    angles = iter(params)
    circuit = QuantumCircuit(num_qubits, name="matrix")
    circuit.ry(next(angles), 0)
    for row in range(rows - 1):
        rbs(circuit, next(angles), row, row + 1)
    for row in range(rows):
        circuit.cx(row, rows)
        for column in range(rows, num_qubits - 1):
            rbs(circuit, next(angles), column, column + 1)
    return Encoding("matrix", circuit, tuple(params), len(params))


def count_pairs(num_qubits: int) -> int:
    """Return the number of pairs of qubits."""
    return num_qubits * (num_qubits - 1) // 2


def choose_pairs(num_qubits: int, count: int) -> list[str]:
    """Return states with two 1s: those on a row and a column, row by row, then those on two rows or two columns."""
    rows = matrix_sides(num_qubits)[0]
    pairs = sorted(itertools.combinations(range(num_qubits), 2), key=lambda pair: not pair[0] < rows <= pair[1])
    return ["".join("1" if q in pair else "0" for q in reversed(range(num_qubits))) for pair in pairs[:count]]


def pair_of(state: str) -> tuple[int, int]:
    """Return the two qubits whose letters are 1 in a string of 0 and 1, qubit 0 last.

    Raises:
        CircuitError: For another string.
    """
    if set(state) - set("01") or state.count("1") != 2:
        raise CircuitError(f"What is read is a state with two 1s, such as 0011; got {state!r}.")
    first, second = (qubit for qubit, letter in enumerate(reversed(state)) if letter == "1")
    return first, second


def pair_amplitude(state: str) -> SparsePauliOp:
    r"""Return the operator whose expectation is the real amplitude of a pair beside the reference state.

    .. math:: \tfrac{1}{2} (X_i X_j - Y_i Y_j) = \sigma^+_i \sigma^+_j + \sigma^-_i \sigma^-_j, \qquad
              \frac{1}{\sqrt 2} \Big( |0 \dots 0\rangle + \sum_{i<j} y_{ij} |e_i e_j\rangle \Big) \mapsto y_{ij}

    Of states with no 1 or two it relates :math:`|0 \dots 0\rangle` and :math:`|e_i e_j\rangle` only. XX alone also
    relates pairs that share a qubit with this one.

    Raises:
        CircuitError: For a string without exactly two 1s.
    """
    pair_of(state)
    return SparsePauliOp([state.replace("0", "I").replace("1", letter) for letter in "XY"], [0.5, -0.5])
