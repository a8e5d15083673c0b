"""Encodings: fixed circuits whose parameters carry a classical vector into a quantum state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import z_feature_map, zz_feature_map

from qiskit_qattn.library.ansatzes import check_num_qubits, qsann_ansatz

EncodingKind = Literal["amplitude", "angle", "zz", "qsann", "qasa", "unary", "matrix", "quixer", "plain"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """A data-encoding circuit.

    Attributes:
        kind: Which encoding this is; ``plain`` for a user's circuit, where data is bound to parameters anywhere.
        circuit: The circuit on ``num_qubits`` qubits, starting from |0…0⟩.
        params: Its parameters (angles in radians) in the order of the data; never sorted by name.
        num_features: Length of the classical vector: ``2**num_qubits`` for ``amplitude``, whose circuit
            parameters are a function of that vector, as those of ``unary`` and ``matrix`` are, else ``len(params)``.
    """

    kind: EncodingKind
    circuit: QuantumCircuit
    params: tuple
    num_features: int

    @property
    def num_qubits(self) -> int:
        """The number of qubits."""
        return self.circuit.num_qubits

    @property
    def takes_vectors(self) -> bool:
        """Whether the data are a vector whose norm does not matter, not angles."""
        return self.kind in ("amplitude", "unary", "matrix")

    @property
    def dimension(self) -> int:
        """Of the space in which states lie; of that beside the reference state, where there is one."""
        n = self.num_qubits
        return {"unary": n, "matrix": n * (n - 1) // 2}.get(self.kind, 2**n)


def gray_code_controls(num_controls: int) -> list[int]:
    r"""Return which control the CX after each of the :math:`2^k` rotations takes (bit that flips in Gray code)."""
    size = 2**num_controls
    gray = [i ^ (i >> 1) for i in range(size)]
    return [(gray[i] ^ gray[(i + 1) % size]).bit_length() - 1 for i in range(size)]


def walsh_gray_matrix(num_controls: int) -> np.ndarray:
    r"""Return the matrix that turns the angles of a uniformly controlled RY into those of its plain RYs.

    .. math:: M_{ij} = 2^{-k} (-1)^{b_j \cdot g_i}

    with :math:`b_j` the binary code of control state j and :math:`g_i` the Gray code of i.

    Args:
        num_controls: k; the matrix is :math:`2^k \times 2^k`.

    Source: Möttönen, Vartiainen, Bergholm, Salomaa, PRL 93, 130502 (2004), arXiv quant-ph/0404089; in this notation
    their arXiv quant-ph/0407010, equation (3).
    """
    index = np.arange(2**num_controls)
    gray = index ^ (index >> 1)
    parity = np.bitwise_count(gray[:, None] & index[None, :]) & 1
    return (1.0 - 2.0 * parity) / 2**num_controls


def amplitude_encoding(num_qubits: int) -> Encoding:
    r"""Prepare :math:`\sum_i x_i |i\rangle / \lVert x \rVert` for real x with plain RY and CX gates.

    A tree of uniformly controlled RY rotations, from the most significant qubit down, each laid out along a Gray
    code: :math:`2^n - 1` RY and :math:`2^n - 2` CX, no ancilla and no reset. The RY parameters are a differentiable
    function of x, :func:`qiskit_qattn.simulation.amplitude.amplitude_angles`.

    Args:
        num_qubits: n, between 1 and 12; x has :math:`2^n` entries.

    Raises:
        CircuitError: For a number of qubits outside that range.

    Source: Möttönen et al., Quant. Inf. Comp. 5, 467 (2005), arXiv quant-ph/0407010, figures 2 and 3.
    """
    check_num_qubits(num_qubits)
    params = ParameterVector("x", 2**num_qubits - 1)
    circuit = QuantumCircuit(num_qubits, name="amplitude")
    position = 0
    for level in range(num_qubits):
        target = num_qubits - 1 - level
        for control in gray_code_controls(level):
            circuit.ry(params[position], target)
            position += 1
            if level > 0:
                circuit.cx(target + 1 + control, target)
    return Encoding("amplitude", circuit, tuple(params), 2**num_qubits)


def angle_encoding(num_qubits: int) -> Encoding:
    r"""Encode one angle per qubit: :math:`\bigotimes_i RX(x_i) |0\rangle`.

    Args:
        num_qubits: n, between 1 and 12; the vector has n entries, in radians.

    Raises:
        CircuitError: For a number of qubits outside that range.

    Source: Di Sipio et al., "The dawn of quantum natural language processing", arXiv 2110.06510, section 3.
    """
    check_num_qubits(num_qubits)
    params = ParameterVector("x", num_qubits)
    circuit = QuantumCircuit(num_qubits, name="angle")
    for qubit in range(num_qubits):
        circuit.rx(params[qubit], qubit)
    return Encoding("angle", circuit, tuple(params), num_qubits)


def zz_encoding(num_qubits: int) -> Encoding:
    r"""Encode by Qiskit's ``zz_feature_map`` with one repetition and circular entanglement.

    .. math:: \exp\Big(-i \sum_i x_i Z_i - i \sum_{(i,j)} (\pi - x_i)(\pi - x_j) Z_i Z_j\Big) H^{\otimes n} |0\rangle

    up to a global phase, over neighbouring pairs of a ring. On one qubit there is no pair, so it is the Z feature map.

    Args:
        num_qubits: n, between 1 and 12; the vector has n entries, in radians.

    Raises:
        CircuitError: For a number of qubits outside that range.

    Source: Havlíček et al., Nature 567, 209 (2019), arXiv 1804.11326, equation (1) and its supplement.
    """
    check_num_qubits(num_qubits)
    if num_qubits == 1:
        circuit = z_feature_map(1, reps=1)
    else:
        circuit = zz_feature_map(num_qubits, reps=1, entanglement="circular")
    params = sorted(circuit.parameters, key=lambda p: p.index)
    circuit.name = "zz"
    return Encoding("zz", circuit, tuple(params), num_qubits)


def qsann_encoding(num_qubits: int, reps: int = 1) -> Encoding:
    r"""Encode by QSANN's circuit on :math:`|+\rangle^{\otimes n}`, with the data as its angles.

    Args:
        num_qubits: n, between 1 and 12.
        reps: D, the encoder's depth; the vector has :math:`n(4D + 2)` entries (:math:`2D + 2` for n = 1), in
            radians.

    Raises:
        CircuitError: For a number of qubits outside that range.

    Source: Li, Zhao, Wang, arXiv 2205.05625, equation (2) and figure 3.
    """
    check_num_qubits(num_qubits)
    body = qsann_ansatz(num_qubits, reps, prefix="x")
    circuit = QuantumCircuit(num_qubits, name="qsann")
    circuit.h(range(num_qubits))
    circuit.compose(body, inplace=True)
    params = sorted(body.parameters, key=lambda p: p.index)
    return Encoding("qsann", circuit, tuple(params), len(params))


def data_qubits(num_qubits: int) -> int:
    """Return how many of QASA's qubits carry data: all but the auxiliary one, which a circuit on one qubit lacks."""
    return max(1, num_qubits - 1)


def qasa_encoding(num_qubits: int) -> Encoding:
    r"""Encode one angle per data qubit: :math:`\bigotimes_i RZ(x_i) RX(x_i) |0\rangle`.

    The last qubit is auxiliary and carries no data, except on one qubit, which is a data qubit.

    Args:
        num_qubits: n, between 1 and 12; the vector has n − 1 entries (1 for n = 1), in radians.

    Raises:
        CircuitError: For a number of qubits outside that range.

    Source: Chen, Kuo, "Quantum Adaptive Self-Attention for Quantum Transformer Models", arXiv 2504.05336v4.
    """
    check_num_qubits(num_qubits)
    params = ParameterVector("x", data_qubits(num_qubits))
    circuit = QuantumCircuit(num_qubits, name="qasa")
    for qubit, angle in enumerate(params):
        circuit.rx(angle, qubit)
        circuit.rz(angle, qubit)
    return Encoding("qasa", circuit, tuple(params), len(params))
