"""Ansatzes: trainable circuits. Parameters are one vector ``θ``, indexed in the order the gates are applied."""

from __future__ import annotations

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes

from qiskit_qattn.errors import CircuitError

MAX_QUBITS = 12
MAX_REPS = 1000


def check_num_qubits(num_qubits: int) -> None:
    """Raise :class:`CircuitError` unless ``1 <= num_qubits <= 12``."""
    if not 1 <= num_qubits <= MAX_QUBITS:
        raise CircuitError(f"num_qubits must be between 1 and {MAX_QUBITS}, got {num_qubits}.")


def check_reps(reps: int) -> None:
    """Raise :class:`CircuitError` unless ``0 <= reps <= 1000``."""
    if not 0 <= reps <= MAX_REPS:
        raise CircuitError(f"reps (the number of ansatz layers) must be at least 0 and at most {MAX_REPS}, got {reps}.")


def cx_ring(circuit: QuantumCircuit) -> None:
    """Append CX j → (j+1) mod n for j = 0…n−1; nothing on one qubit."""
    n = circuit.num_qubits
    if n > 1:
        for qubit in range(n):
            circuit.cx(qubit, (qubit + 1) % n)


def qisa_ansatz(num_qubits: int, reps: int = 1) -> QuantumCircuit:
    r"""Build QISA's ansatz: per layer RX, RY on every qubit, a CX ring, RY on every qubit.

    Args:
        num_qubits: n, between 1 and 12.
        reps: Number of layers; each takes 3n angles in radians.

    Raises:
        CircuitError: For sizes outside the ranges.

    Source: QISA, arXiv 2603.03318, section "Methods".
    """
    check_num_qubits(num_qubits)
    check_reps(reps)
    theta = iter(ParameterVector("θ", 3 * num_qubits * reps))
    circuit = QuantumCircuit(num_qubits, name="qisa")
    for _ in range(reps):
        for qubit in range(num_qubits):
            circuit.rx(next(theta), qubit)
        for qubit in range(num_qubits):
            circuit.ry(next(theta), qubit)
        cx_ring(circuit)
        for qubit in range(num_qubits):
            circuit.ry(next(theta), qubit)
    return circuit


def qsann_ansatz(num_qubits: int, reps: int = 1, *, prefix: str = "θ") -> QuantumCircuit:
    r"""Build QSANN's circuit: per layer and qubit i, RX and RY on i and on i+1, then CX(i, i+1); RX, RY on all.

    Args:
        num_qubits: n, between 1 and 12; neighbours are taken modulo n, and one qubit has none.
        reps: D; the circuit takes :math:`n(4D + 2)` angles in radians (:math:`2D + 2` for n = 1).
        prefix: Name of the parameter vector.

    Raises:
        CircuitError: For sizes outside the ranges.

    Source: Li, Zhao, Wang, arXiv 2205.05625, figure 3; wiring as in the authors' PaddleQuantum code.
    """
    check_num_qubits(num_qubits)
    check_reps(reps)
    touched = 1 if num_qubits == 1 else 2
    theta = iter(ParameterVector(prefix, num_qubits * (2 * touched * reps + 2)))
    circuit = QuantumCircuit(num_qubits, name="qsann")
    for _ in range(reps):
        for qubit in range(num_qubits):
            pair = [qubit, (qubit + 1) % num_qubits][:touched]
            for target in pair:
                circuit.rx(next(theta), target)
                circuit.ry(next(theta), target)
            if touched == 2:
                circuit.cx(*pair)
    for qubit in range(num_qubits):
        circuit.rx(next(theta), qubit)
        circuit.ry(next(theta), qubit)
    return circuit


def real_amplitudes_ansatz(num_qubits: int, reps: int = 2) -> QuantumCircuit:
    r"""Build Qiskit's ``real_amplitudes`` with circular entanglement: :math:`n(r + 1)` RY angles in radians.

    Args:
        num_qubits: n, between 1 and 12.
        reps: r, the number of entangling layers.

    Raises:
        CircuitError: For sizes outside the ranges.
    """
    check_num_qubits(num_qubits)
    check_reps(reps)
    return real_amplitudes(num_qubits, entanglement="circular", reps=reps)


def angle_ansatz(num_qubits: int, reps: int = 1) -> QuantumCircuit:
    r"""Build layers of RX on every qubit and a CX ring: n angles in radians per layer.

    Args:
        num_qubits: n, between 1 and 12.
        reps: Number of layers.

    Raises:
        CircuitError: For sizes outside the ranges.

    Source: Di Sipio et al., arXiv 2110.06510 (PennyLane's ``BasicEntanglerLayers``).
    """
    check_num_qubits(num_qubits)
    check_reps(reps)
    theta = iter(ParameterVector("θ", num_qubits * reps))
    circuit = QuantumCircuit(num_qubits, name="angle")
    for _ in range(reps):
        for qubit in range(num_qubits):
            circuit.rx(next(theta), qubit)
        cx_ring(circuit)
    return circuit


def qasa_ansatz(num_qubits: int, reps: int = 3) -> QuantumCircuit:
    r"""Build QASA's ansatz on m = n − 1 data qubits and one auxiliary qubit; on one qubit, on a data qubit alone.

    RX and RZ on every data qubit; then per layer and data qubit i: CX from i to the next in a ring of the data qubits,
    and RY and RZ on i by one angle; then CX from the last data qubit to the auxiliary one, and RY on that. The RZ
    before the first layer have the angles of that layer's RY and RZ.

    Args:
        num_qubits: n, between 1 and 12; the paper's is 9.
        reps: r, the number of layers of CX; the paper's L = 4 counts the rotations before them. The circuit takes
            :math:`m + n r` angles in radians (1 + r for n = 1), and m more for r = 0, whose RZ have their own.

    Raises:
        CircuitError: For sizes outside the ranges.

    Source: Chen, Kuo, arXiv 2504.05336v4, "Gate Composition in QuantumLayer", with the angles shared as in the authors'
    code. Its array of L n = 36 weights has one, of the auxiliary qubit before the layers, that enters no gate.
    """
    check_num_qubits(num_qubits)
    check_reps(reps)
    data = max(1, num_qubits - 1)
    theta = ParameterVector("θ", data + (num_qubits * reps if reps else data))
    circuit = QuantumCircuit(num_qubits, name="qasa")
    for qubit in range(data):
        circuit.rx(theta[qubit], qubit)
        circuit.rz(theta[data + qubit], qubit)
    for layer in range(reps):
        angles = theta[data + num_qubits * layer :][:num_qubits]
        for qubit in range(data):
            if data > 1:
                circuit.cx(qubit, (qubit + 1) % data)
            circuit.ry(angles[qubit], qubit)
            circuit.rz(angles[qubit], qubit)
        if num_qubits > data:
            circuit.cx(data - 1, data)
            circuit.ry(angles[data], data)
    return circuit


def orthogonal_ansatz(num_qubits: int, reps: int = 1) -> QuantumCircuit:
    r"""Build a circuit whose unitary is a real orthogonal matrix, and the identity where all angles are 0.

    Per layer: RY on every qubit, a CX ring, RY on every qubit, and the ring's inverse. On one qubit a layer is one RY.

    Args:
        num_qubits: n, between 1 and 12.
        reps: Number of layers; each takes 2n angles in radians (1 for n = 1).

    Raises:
        CircuitError: For sizes outside the ranges.
    """
    check_num_qubits(num_qubits)
    check_reps(reps)
    theta = iter(ParameterVector("θ", reps if num_qubits == 1 else 2 * num_qubits * reps))
    circuit = QuantumCircuit(num_qubits, name="orthogonal")
    ring = QuantumCircuit(num_qubits)
    cx_ring(ring)
    for _ in range(reps):
        for qubit in range(num_qubits):
            circuit.ry(next(theta), qubit)
        if num_qubits == 1:
            continue
        circuit.compose(ring, inplace=True)
        for qubit in range(num_qubits):
            circuit.ry(next(theta), qubit)
        circuit.compose(ring.inverse(), inplace=True)
    return circuit
