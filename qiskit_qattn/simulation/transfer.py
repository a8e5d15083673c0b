"""A noisy circuit as steps on Pauli coefficients: rotations about Pauli strings, and transfer matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterExpression
from qiskit.circuit.library import UnitaryGate
from qiskit.quantum_info import Pauli
from torch import Tensor

from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.cutting import without_final_measurements
from qiskit_qattn.simulation.decomposition import decompose_custom_gates
from qiskit_qattn.simulation.elementary import (
    Fixed,
    Measurement,
    Operation,
    ParityRotation,
    Permutation,
    Phase,
    Reset,
    Unitary,
)
from qiskit_qattn.simulation.gates import IDLE, elementary, standard_name
from qiskit_qattn.simulation.noise import DeviceNoise, transfer_matrix

_RESET = np.outer([1.0, 0, 0, 1], [1.0, 0, 0, 0])  # to |0⟩ from any state
_WIDEST = 5  # qubits of a gate whose transfer matrix is formed: 1024×1024
_DENSE_QUBITS = 4  # up to 256×256 transfer matrices; above, matrices act on pairs of qubits


@dataclass(frozen=True, eq=False)
class PauliRotation:
    """A rotation about a Pauli string by a free angle."""

    label: str
    angle: ParameterExpression

    def module(self, num_qubits: int) -> PauliRotationModule:
        """Return the step as a torch module."""
        return PauliRotationModule(self.label)


@dataclass(frozen=True, eq=False)
class Channel:
    """A transfer matrix on qubits, the first least significant."""

    matrix: np.ndarray
    qubits: tuple[int, ...]

    def module(self, num_qubits: int) -> ChannelModule:
        """Return the step as a torch module."""
        return ChannelModule(self, num_qubits)


def transfer_steps(circuit: QuantumCircuit, noise: DeviceNoise) -> list[PauliRotation | Channel]:
    """Return a circuit with its noise as steps in the order they act, neighbouring matrices multiplied."""
    return list(_merge(_steps(circuit, noise), circuit.num_qubits))


class ChannelModule(ConstantModule):
    """Fixed gates and noise on some qubits: one transfer matrix."""

    matrix: Tensor

    def __init__(self, step: Channel, num_qubits: int) -> None:
        super().__init__()
        self.add_constant("matrix", step.matrix)
        # axes of the coefficients, after the batch's: the last qubit first; the step's own are moved to the end
        own = [num_qubits - 1 - qubit for qubit in reversed(step.qubits)]
        self.order = [axis for axis in range(num_qubits) if axis not in own] + own
        self.num_qubits = num_qubits

    def forward(self, rows: Tensor) -> Tensor:
        """Return T r for rows r of Pauli coefficients, shape ``(..., 4**n)``."""
        return self._multiply(rows, self.matrix.T)

    def transpose(self, rows: Tensor) -> Tensor:
        """Return Tᵀ o for rows o of observables."""
        return self._multiply(rows, self.matrix)

    def _multiply(self, rows: Tensor, matrix: Tensor) -> Tensor:
        if self.order == sorted(self.order):  # the step's qubits are the first ones, or all
            return (rows.unflatten(-1, (-1, len(matrix))) @ matrix).flatten(-2)
        lead = rows.ndim - 1
        tensor = rows.unflatten(-1, (4,) * self.num_qubits)
        order = [*range(lead), *(lead + axis for axis in self.order)]
        back = [order.index(axis) for axis in range(len(order))]
        moved = tensor.permute(order).reshape(*rows.shape[:-1], -1, len(matrix)) @ matrix
        return moved.reshape(tensor.permute(order).shape).permute(back).reshape(rows.shape)


class PauliRotationModule(ConstantModule):
    """A rotation about a Pauli string, with one angle per row."""

    moved: Tensor
    partner: Tensor
    sign: Tensor

    def __init__(self, label: str) -> None:
        super().__init__()
        for name, array in zip(("moved", "partner", "sign"), pauli_rotation(label), strict=True):
            self.add_constant(name, array)

    def forward(self, rows: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return T(θ) r for rows r ``(..., B, 4**n)`` and the cosines and sines of θ, each ``(..., B)``."""
        kept = rows * (1 + self.moved * (cosine.unsqueeze(-1) - 1))
        return kept + sine.unsqueeze(-1) * (self.sign * rows.index_select(-1, self.partner))

    def transpose(self, rows: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return T(θ)ᵀ o for rows o of observables."""
        return self(rows, cosine, -sine)  # transfer matrices of unitaries are orthogonal


def pauli_rotation(label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each Pauli string P, whether a rotation about ``label`` moves it, with which one, and the sign s_P.

    Each is of shape ``(4**n,)``: 0 or 1, a position, and −1, 0 or 1.
    """
    n = len(label)
    axis = np.array(["IXYZ".index(letter) for letter in label])
    every = np.indices((4,) * n).reshape(n, -1).T  # (4**n, n), letters as 0 … 3
    partner = every ^ axis  # letters of the product: X·Y is Z up to a phase
    # e^{-iθQ/2} P e^{iθQ/2} = cos θ P − i sin θ Q P, and Q P is i^k times a Pauli string
    turns = np.where((axis == 0) | (partner == 0) | (axis == partner), 0, (partner - axis) % 3)
    power = np.where(turns == 1, 1, np.where(turns == 2, -1, 0)).sum(1)
    moved = power % 2 == 1  # Q and P anticommute
    sign = np.where(moved, np.real(-1j * 1j**power), 0.0)
    return moved.astype(float), partner @ 4 ** np.arange(n)[::-1], sign


def _steps(circuit: QuantumCircuit, noise: DeviceNoise) -> Iterator[PauliRotation | Channel]:
    """Yield rotations by free angles, and the transfer matrices of everything else."""
    circuit = without_final_measurements(circuit)
    if noise.model is None:
        yield from _noiseless(circuit)
        return
    for item in decompose_custom_gates(circuit).data:
        operation, name = item.operation, standard_name(item.operation)
        qubits = tuple(circuit.find_bit(qubit).index for qubit in item.qubits)
        if name == "barrier":
            continue
        if name not in IDLE:
            alone = QuantumCircuit(len(qubits))
            alone.append(operation, range(len(qubits)))
            for op in elementary(alone):
                yield from _narrow(op, qubits, circuit.num_qubits)
        error = noise.after(operation, qubits)
        if error is not None:
            yield Channel(error, qubits)


def _noiseless(circuit: QuantumCircuit) -> Iterator[PauliRotation | Channel]:
    """Yield the steps of a circuit of any gates, since there is no noise to look up by gate."""
    for op in elementary(circuit):
        yield from _narrow(op, tuple(range(circuit.num_qubits)), circuit.num_qubits)


def _narrow(op: Operation, qubits: tuple[int, ...], num_qubits: int) -> Iterator[PauliRotation | Channel]:
    """Yield an elementary operation as :func:`_elementary`, a wide matrix by gates on few qubits, and no phase."""
    if isinstance(op, Unitary) and len(op.qubits) > _WIDEST:
        own = tuple(qubits[q] for q in op.qubits)
        for part in elementary(UnitaryGate(op.matrix).definition):
            yield from _narrow(part, own, num_qubits)
    elif not isinstance(op, Phase):
        yield _elementary(op, qubits, num_qubits)


def _elementary(op: Operation, qubits: tuple[int, ...], num_qubits: int) -> PauliRotation | Channel:
    """Return an elementary operation, whose qubits count within ``qubits``, as a rotation or a transfer matrix."""
    if isinstance(op, Fixed):
        return Channel(transfer_matrix(op.matrix), (qubits[op.qubit],))
    if isinstance(op, Unitary):
        return Channel(transfer_matrix(op.matrix), tuple(qubits[q] for q in op.qubits))
    if isinstance(op, Reset):
        return Channel(_RESET, tuple(qubits[q] for q in op.qubits))
    if isinstance(op, Permutation):
        matrix = np.zeros((len(op.image), len(op.image)))
        matrix[list(op.image), range(len(op.image))] = 1
        return Channel(transfer_matrix(matrix), tuple(qubits[q] for q in op.qubits))
    assert not isinstance(op, Measurement | Phase)
    letter, local = ("Z", op.qubits) if isinstance(op, ParityRotation) else (op.axis, (op.qubit,))
    where = tuple(qubits[q] for q in local)
    if isinstance(op.angle, ParameterExpression):
        return PauliRotation("".join(letter if q in where else "I" for q in reversed(range(num_qubits))), op.angle)
    axis = Pauli(letter * len(where)).to_matrix()
    unitary = np.cos(op.angle / 2) * np.eye(len(axis)) - 1j * np.sin(op.angle / 2) * axis
    return Channel(transfer_matrix(unitary), where)


def _merge(steps: Iterator[PauliRotation | Channel], num_qubits: int) -> Iterator[PauliRotation | Channel]:
    """Multiply neighbouring matrices into one, on all qubits of a small circuit and on pairs in a larger one."""
    most = num_qubits if num_qubits <= _DENSE_QUBITS else 2
    pending: Channel | None = None
    for step in steps:
        if isinstance(step, Channel) and pending is not None:
            union = tuple(sorted({*pending.qubits, *step.qubits}))
            if len(union) <= most:
                product = embed(step, union) @ embed(pending, union)
                pending = Channel(product, union)
                continue
        if pending is not None:
            yield pending
        pending = step if isinstance(step, Channel) else None
        if isinstance(step, PauliRotation):
            yield step
    if pending is not None:
        yield pending


def embed(step: Channel, qubits: tuple[int, ...]) -> np.ndarray:
    """Return a transfer matrix on some of ``qubits`` as one on all of them, in their order."""
    k, n = len(step.qubits), len(qubits)
    tensor = step.matrix.reshape((4,) * (2 * k))  # outputs, the last qubit first, then inputs
    identity = np.eye(4**n).reshape((4,) * (2 * n))
    own = [n - 1 - qubits.index(qubit) for qubit in reversed(step.qubits)]
    result = np.tensordot(tensor, identity, axes=(list(range(k, 2 * k)), own))  # its axes: own, the rest, inputs
    rest = [axis for axis in range(n) if axis not in own]
    return result.transpose([*np.argsort(own + rest), *range(n, 2 * n)]).reshape(4**n, 4**n)
