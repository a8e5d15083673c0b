"""Unary circuits: a vector in the amplitudes of basis states with a single 1, and orthogonal matrices on it."""

from __future__ import annotations

import itertools

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.ansatzes import check_reps
from qiskit_qattn.library.encodings import Encoding

MOST_QUBITS = 128  # simulated as matrices of n × n, not as states of 2ⁿ


def _check_qubits(num_qubits: int) -> None:
    if not 1 <= num_qubits <= MOST_QUBITS:
        raise CircuitError(f"num_qubits must be between 1 and {MOST_QUBITS}, got {num_qubits}.")


def rbs(circuit: QuantumCircuit, angle: Parameter, first: int, second: int) -> None:
    r"""Append the reconfigurable beam splitter, a rotation of the two states with a single 1.

    .. math:: |10\rangle \mapsto \cos\theta\,|10\rangle + \sin\theta\,|01\rangle, \qquad
              |01\rangle \mapsto \cos\theta\,|01\rangle - \sin\theta\,|10\rangle

    with the first qubit on the left; :math:`|00\rangle` and :math:`|11\rangle` stay as they are.

    Args:
        circuit: What it is appended to.
        angle: θ, in radians.
        first: The first qubit.
        second: The second.

    Source: Cherrat et al., arXiv 2209.08167, the RBS gate: two CZ between Hadamards, with RY of ±θ.
    """
    circuit.h([first, second])
    circuit.cz(first, second)
    circuit.ry(angle, first)
    circuit.ry(-angle, second)
    circuit.cz(first, second)
    circuit.h([first, second])


Layers = list[list[tuple[int, int]]]  # the pairs of qubits whose RBS are a layer


def pyramid(num_qubits: int) -> Layers:
    """Return the layers of a pyramid: n(n − 1)/2 RBS on neighbours, in 2n − 3 layers."""
    last = 2 * num_qubits - 4
    return [[(i, i + 1) for i in range(t % 2, min(t, last - t) + 1, 2)] for t in range(last + 1)]


def butterfly(num_qubits: int) -> Layers:
    """Return the layers of a butterfly: RBS on qubits that differ in one bit of their number, from the highest bit on.

    For n a power of 2 these are n/2 · log₂ n RBS in log₂ n layers; else those are left out that lack a partner.
    """
    strides = [2**bit for bit in reversed(range(max(0, num_qubits - 1).bit_length()))]
    return [[(i, i + d) for i in range(num_qubits - d) if not i & d] for d in strides]


def unary_encoding(num_qubits: int) -> Encoding:
    r"""Prepare :math:`(|0 \dots 0\rangle + \sum_i \hat x_i |e_i\rangle) / \sqrt 2` for real x.

    :math:`e_i` has its 1 on qubit i.
    RY on qubit 0, then the diagonal loader: an RBS on each pair of neighbours. The state without a 1 is the reference
    that makes signs measurable: RBS leave it as it is. The angles are a differentiable function of x,
    :func:`qiskit_qattn.simulation.unary.unary_angles`; the first is π/2 but for n = 1, where it carries the sign.

    Args:
        num_qubits: n, between 1 and 128; x has n entries, and the circuit as many angles in radians.

    Raises:
        CircuitError: For a number of qubits outside that range.

    Source: Cherrat et al., arXiv 2209.08167, the diagonal loader; the reference state is ours.
    """
    _check_qubits(num_qubits)
    params = ParameterVector("x", num_qubits)
    circuit = QuantumCircuit(num_qubits, name="unary")
    circuit.ry(params[0], 0)
    for qubit in range(num_qubits - 1):
        rbs(circuit, params[qubit + 1], qubit, qubit + 1)
    return Encoding("unary", circuit, tuple(params), num_qubits)


def pyramid_ansatz(num_qubits: int, reps: int = 1) -> QuantumCircuit:
    r"""Build pyramids of RBS on neighbours: on states with a single 1, any rotation of SO(n).

    Args:
        num_qubits: n, between 1 and 128.
        reps: Number of pyramids; each takes n(n − 1)/2 angles in radians.

    Raises:
        CircuitError: For sizes outside the ranges.

    Source: Cherrat et al., arXiv 2209.08167, the pyramid circuit.
    """
    return rbs_ansatz("pyramid", num_qubits, pyramid(num_qubits), reps)


def butterfly_ansatz(num_qubits: int, reps: int = 1) -> QuantumCircuit:
    r"""Build butterflies of RBS: rotations of SO(n) in log₂ n layers each, for qubits that are all connected.

    Args:
        num_qubits: n, between 1 and 128.
        reps: Number of butterflies; each takes n/2 · log₂ n angles in radians for n a power of 2, else fewer.

    Raises:
        CircuitError: For sizes outside the ranges.

    Source: Cherrat et al., arXiv 2209.08167, the butterfly circuit.
    """
    return rbs_ansatz("butterfly", num_qubits, butterfly(num_qubits), reps)


def rbs_ansatz(name: str, num_qubits: int, layers: Layers, reps: int) -> QuantumCircuit:
    """Build layers of RBS, repeated, each gate with an angle of its own in radians."""
    _check_qubits(num_qubits)
    check_reps(reps)
    theta = iter(ParameterVector("θ", reps * sum(map(len, layers))))
    circuit = QuantumCircuit(num_qubits, name=name)
    for first, second in itertools.chain.from_iterable(layers * reps):
        rbs(circuit, next(theta), first, second)
    return circuit
