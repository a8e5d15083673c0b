r"""The noisy engine: expectations under noise as a batched, differentiable torch program.

A density matrix is held as its 4ⁿ real Pauli coefficients, :math:`\rho = 2^{-n} \sum_P r_P P`. Then fixed gates and
noise are real transfer matrices, expectations are coefficients, and a rotation about a Pauli string Q only mixes pairs:

.. math:: r_P \mapsto \cos\theta\, r_P + \sin\theta\, s_{P} r_{PQ} \quad \text{where P and Q anticommute}

with signs :math:`s_P`; the other coefficients stay. What depends on data acts on the batch. What follows the last
data-dependent angle is applied once, to the observables, in the Heisenberg picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterExpression
from qiskit.quantum_info import Pauli, PauliList, SparsePauliOp
from qiskit.quantum_info.operators.base_operator import BaseOperator
from scipy.linalg import hadamard
from torch import Tensor, nn

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.gates import Fixed, Operation, ParityRotation, Permutation, flatten
from qiskit_qattn.simulation.noise import DeviceNoise, pauli_labels, transfer_matrix
from qiskit_qattn.simulation.readout import build_readout

MAX_QUBITS = 6
_DENSE_QUBITS = 4  # up to 256×256 transfer matrices; above, matrices act on pairs of qubits
_IGNORED = {"barrier", "delay", "id", "global_phase"}


@dataclass(frozen=True, eq=False)
class _Turn:
    """A rotation about a Pauli string by a free angle."""

    label: str
    angle: ParameterExpression


@dataclass(frozen=True, eq=False)
class _Channel:
    """A transfer matrix on qubits, the first least significant."""

    matrix: np.ndarray
    qubits: tuple[int, ...]


class DensityMatrixProgram(ConstantModule):
    r"""Expectations :math:`\mathrm{tr}(O_m\, \rho(x, \theta))` under noise, for batches of x.

    Args:
        circuit: Any circuit of unitary gates on at most 6 qubits, in the gates the noise model speaks of.
        observables: Hermitian operators on its qubits.
        input_params: Parameters that carry data, in the order of the input's last axis.
        weight_params: Trainable parameters, in the order of the weights' last axis.
        noise: The device's errors; None for no noise.
        all_outcomes: Prepare :meth:`probabilities`, which then costs 2ⁿ expectations a basis.

    Raises:
        CircuitError: For circuits, parameters or observables that cannot be simulated.
    """

    observables: Tensor
    start: Tensor
    strings: Tensor
    hadamard: Tensor
    signs: Tensor

    def __init__(
        self,
        circuit: QuantumCircuit,
        observables: Sequence[BaseOperator],
        *,
        input_params: Sequence[Any] = (),
        weight_params: Sequence[Any] = (),
        noise: DeviceNoise | None = None,
        all_outcomes: bool = False,
    ) -> None:
        super().__init__()
        self.num_qubits = circuit.num_qubits
        if self.num_qubits > MAX_QUBITS:
            raise CircuitError(
                f"The noisy engine holds 4^n coefficients and takes at most {MAX_QUBITS} qubits, got {self.num_qubits}."
            )
        self.num_outputs = len(observables)
        noise = noise or DeviceNoise()
        steps = list(_merge(_steps(circuit, noise), self.num_qubits))
        data = set(input_params)
        moving = [i for i, step in enumerate(steps) if isinstance(step, _Turn) and _uses(step.angle, data)]
        split = moving[-1] + 1 if moving else 0
        params = [*input_params, *weight_params]
        self.forward_angles = AngleMap([s.angle for s in steps[:split] if isinstance(s, _Turn)], params)
        self.back_angles = AngleMap([s.angle for s in steps[split:] if isinstance(s, _Turn)], list(weight_params))
        self.forward_steps = nn.ModuleList(_module(step, self.num_qubits) for step in steps[:split])
        self.back_steps = nn.ModuleList(_module(step, self.num_qubits) for step in steps[split:])
        start = np.array([float(set(label) <= {"I", "Z"}) for label in pauli_labels(self.num_qubits)])  # |0…0⟩
        self.add_constant("start", start[None])  # (1, 4**n)
        self.add_constant("observables", _rows(observables, noise, self.num_qubits))  # (M, 4**n)
        if all_outcomes:
            readout = build_readout(observables)
            self.bases = readout.bases
            self.add_constant("signs", readout.signs)  # (num_bases * 2**n, M)
            strings = [SparsePauliOp(label) for basis in self.bases for label in _served(basis)]
            self.add_constant("strings", _rows(strings, noise, self.num_qubits))  # (num_bases * 2**n, 4**n)
            self.add_constant("hadamard", hadamard(2**self.num_qubits) / 2**self.num_qubits)

    def summary(self) -> str:
        """Return in a phrase what a call computes."""
        return (
            f"{self.num_qubits} qubits, {len(self.forward_steps)} steps on the batch, {len(self.back_steps)} before it"
        )

    def probabilities(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the probabilities of all outcomes, shape ``(..., B, num_bases * 2**n)``; needs ``all_outcomes``.

        They follow from the expectations of the 2ⁿ strings that each basis serves.
        """
        values = self._evaluate(self.strings, inputs, weights).unflatten(-1, (len(self.bases), -1))
        return (values @ self.hadamard).clamp_min(0).flatten(-2)

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``.

        Args:
            inputs: Shape ``(..., B, num_inputs)``.
            weights: Angles in radians, shape ``(..., num_weights)``; leading axes broadcast with the inputs'.
        """
        return self._evaluate(self.observables, inputs, weights)

    def _evaluate(self, rows: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the expectations of operators given as rows over Pauli strings, ``(M, 4**n)``."""
        dtype = self.start.dtype
        angles = self.back_angles(weights).to(dtype)  # (..., K)
        turns = list(angles.unsqueeze(-2).unbind(-1))  # each (..., 1)
        for step in reversed(list(self.back_steps)):
            if isinstance(step, _TurnStep):
                rows = step.transpose(rows, turns.pop())
            else:
                rows = cast(_MatrixStep, step).transpose(rows)
        lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))
        both = torch.cat([inputs.expand(*lead, -1), weights.unsqueeze(-2).expand(*lead, -1).to(inputs.dtype)], -1)
        coefficients = self.start  # (1, 4**n)
        following = iter(self.forward_angles(both).to(dtype).unbind(-1))  # each (..., B)
        for step in self.forward_steps:
            coefficients = step(coefficients, next(following)) if isinstance(step, _TurnStep) else step(coefficients)
        values = coefficients @ rows.transpose(-1, -2)  # (..., B or 1, M)
        return values.expand(*lead, -1)


@dataclass(frozen=True)
class NoisyEngine:
    """Makes noisy programs of circuits: transpiled where the noise needs it, and cut to the qubits in use.

    Attributes:
        model: An Aer ``NoiseModel``, or None.
        pass_manager: Transpiles circuits to the gates, and the layout, the model speaks of; None leaves them.
        readout: Whether measured values carry readout error.
    """

    model: Any = None
    pass_manager: Any = None
    readout: bool = True

    def __call__(
        self, circuit: QuantumCircuit, observables: Sequence[BaseOperator], **options: Any
    ) -> DensityMatrixProgram:
        """Return the program of a circuit; options as for :class:`DensityMatrixProgram`.

        Raises:
            CircuitError: If more than 6 qubits are in use.
        """
        operators = [op if isinstance(op, SparsePauliOp) else SparsePauliOp(op) for op in observables]
        if self.pass_manager is not None:
            circuit = self.pass_manager.run(circuit)
            if circuit.layout is not None:
                operators = [op.apply_layout(circuit.layout) for op in operators]
        acting = [item for item in circuit.data if item.operation.name not in _IGNORED]
        used = {circuit.find_bit(qubit).index for item in acting for qubit in item.qubits}
        for op in operators:
            used |= set(np.flatnonzero((op.paulis.x | op.paulis.z).any(0)).tolist())
        active = sorted(used) or [0]
        compact = QuantumCircuit(len(active))
        for item in acting:
            compact.append(item.operation, [active.index(circuit.find_bit(qubit).index) for qubit in item.qubits])
        reduced = [
            SparsePauliOp(PauliList.from_symplectic(op.paulis.z[:, active], op.paulis.x[:, active]), op.coeffs)
            for op in operators
        ]
        noise = DeviceNoise(self.model, tuple(active), self.readout)
        return DensityMatrixProgram(compact, reduced, noise=noise, **options)


class _MatrixStep(ConstantModule):
    """Fixed gates and noise on some qubits: one transfer matrix."""

    matrix: Tensor

    def __init__(self, step: _Channel, num_qubits: int) -> None:
        super().__init__()
        self.add_constant("matrix", step.matrix)
        # axes of the coefficients, after the batch's: the last qubit first; the step's own are brought to the end
        own = [num_qubits - 1 - qubit for qubit in reversed(step.qubits)]
        self.order = [axis for axis in range(num_qubits) if axis not in own] + own
        self.num_qubits = num_qubits

    def forward(self, rows: Tensor) -> Tensor:
        return self._multiply(rows, self.matrix.T)

    def transpose(self, rows: Tensor) -> Tensor:
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


class _TurnStep(ConstantModule):
    """A rotation about a Pauli string by an angle of its own in each row."""

    moved: Tensor
    partner: Tensor
    sign: Tensor

    def __init__(self, label: str) -> None:
        super().__init__()
        n = len(label)
        axis = np.array(["IXYZ".index(letter) for letter in label])
        every = np.indices((4,) * n).reshape(n, -1).T  # (4**n, n), letters as 0 … 3
        partner = every ^ axis  # letters of the product: X·Y is Z up to a phase
        # e^{-iθQ/2} P e^{iθQ/2} = cos θ P − i sin θ Q P, and Q P is i^k times a Pauli string
        turns = np.where((axis == 0) | (partner == 0) | (axis == partner), 0, (partner - axis) % 3)
        power = np.where(turns == 1, 1, np.where(turns == 2, -1, 0)).sum(1)
        moved = power % 2 == 1  # Q and P anticommute
        self.add_constant("moved", moved.astype(float))
        self.add_constant("partner", partner @ 4 ** np.arange(n)[::-1])
        self.add_constant("sign", np.where(moved, np.real(-1j * 1j**power), 0.0))

    def forward(self, rows: Tensor, angle: Tensor) -> Tensor:
        angle = angle.unsqueeze(-1)  # (..., B, 1)
        kept = rows * (1 + self.moved * (torch.cos(angle) - 1))
        return kept + torch.sin(angle) * (self.sign * rows.index_select(-1, self.partner))

    def transpose(self, rows: Tensor, angle: Tensor) -> Tensor:
        return self(rows, -angle)  # transfer matrices of unitaries are orthogonal


def _module(step: _Turn | _Channel, num_qubits: int) -> nn.Module:
    return _TurnStep(step.label) if isinstance(step, _Turn) else _MatrixStep(step, num_qubits)


def _uses(angle: Any, params: set[Any]) -> bool:
    return isinstance(angle, ParameterExpression) and not params.isdisjoint(angle.parameters)


def _steps(circuit: QuantumCircuit, noise: DeviceNoise) -> Iterator[_Turn | _Channel]:
    """Yield rotations by free angles, and the transfer matrices of everything else."""
    for item in circuit.data:
        operation = item.operation
        qubits = tuple(circuit.find_bit(qubit).index for qubit in item.qubits)
        if operation.name in _IGNORED:
            continue
        alone = QuantumCircuit(len(qubits))
        alone.append(operation, range(len(qubits)))
        for op in flatten(alone):
            yield _elementary(op, qubits, circuit.num_qubits)
        error = noise.after(operation.name, qubits)
        if error is not None:
            yield _Channel(error, qubits)


def _elementary(op: Operation, qubits: tuple[int, ...], num_qubits: int) -> _Turn | _Channel:
    """Return an elementary operation, whose qubits count within ``qubits``, as a rotation or a transfer matrix."""
    if isinstance(op, Fixed):
        return _Channel(transfer_matrix(op.matrix), (qubits[op.qubit],))
    if isinstance(op, Permutation):
        matrix = np.zeros((len(op.image), len(op.image)))
        matrix[list(op.image), range(len(op.image))] = 1
        return _Channel(transfer_matrix(matrix), tuple(qubits[q] for q in op.qubits))
    letter, local = ("Z", op.qubits) if isinstance(op, ParityRotation) else (op.axis, (op.qubit,))
    where = tuple(qubits[q] for q in local)
    if isinstance(op.angle, ParameterExpression):
        return _Turn("".join(letter if q in where else "I" for q in reversed(range(num_qubits))), op.angle)
    axis = Pauli(letter * len(where)).to_matrix()
    unitary = np.cos(op.angle / 2) * np.eye(len(axis)) - 1j * np.sin(op.angle / 2) * axis
    return _Channel(transfer_matrix(unitary), where)


def _merge(steps: Iterator[_Turn | _Channel], num_qubits: int) -> Iterator[_Turn | _Channel]:
    """Multiply neighbouring matrices into one, on all qubits of a small circuit and on pairs in a larger one."""
    most = num_qubits if num_qubits <= _DENSE_QUBITS else 2
    pending: _Channel | None = None
    for step in steps:
        if isinstance(step, _Channel) and pending is not None:
            union = tuple(sorted({*pending.qubits, *step.qubits}))
            if len(union) <= most:
                product = _embed(step, union) @ _embed(pending, union)
                pending = _Channel(product, union)
                continue
        if pending is not None:
            yield pending
        pending = step if isinstance(step, _Channel) else None
        if isinstance(step, _Turn):
            yield step
    if pending is not None:
        yield pending


def _embed(step: _Channel, qubits: tuple[int, ...]) -> np.ndarray:
    """Return a transfer matrix on some of ``qubits`` as one on all of them, in their order."""
    k, n = len(step.qubits), len(qubits)
    tensor = step.matrix.reshape((4,) * (2 * k))  # outputs, the last qubit first, then inputs
    identity = np.eye(4**n).reshape((4,) * (2 * n))
    own = [n - 1 - qubits.index(qubit) for qubit in reversed(step.qubits)]
    result = np.tensordot(tensor, identity, axes=(list(range(k, 2 * k)), own))  # its axes: own, the rest, inputs
    rest = [axis for axis in range(n) if axis not in own]
    return result.transpose([*np.argsort(own + rest), *range(n, 2 * n)]).reshape(4**n, 4**n)


def _rows(observables: Sequence[BaseOperator], noise: DeviceNoise, num_qubits: int) -> np.ndarray:
    """Return observables as rows over Pauli strings, readout error included, shape ``(M, 4**n)``."""
    labels = pauli_labels(num_qubits)
    position = {label: i for i, label in enumerate(labels)}
    shifts = [_readout(noise, qubit) for qubit in range(num_qubits)]
    rows = np.zeros((len(observables), len(labels)))
    for m, observable in enumerate(observables):
        operator = observable if isinstance(observable, SparsePauliOp) else SparsePauliOp(observable)
        if operator.num_qubits != num_qubits:
            raise CircuitError(
                f"The circuit has {num_qubits} qubits, observable {m} {operator.num_qubits}; they must match."
            )
        for label, coefficient in zip(operator.paulis.to_labels(), operator.coeffs.real, strict=True):
            terms = {label: float(coefficient)}
            for qubit, (scale, offset) in enumerate(shifts):
                at = num_qubits - 1 - qubit
                if label[at] != "I":
                    bare = {name[:at] + "I" + name[at + 1 :]: value * offset for name, value in terms.items()}
                    terms = {name: value * scale for name, value in terms.items()} | bare
            for name, value in terms.items():
                rows[m, position[name]] += value
    return rows


def _served(basis: str) -> Iterator[str]:
    """Yield the 2ⁿ strings a basis serves; string m has the basis' letter on the qubits that are set in m."""
    n = len(basis)
    for mask in range(2**n):
        yield "".join(letter if mask >> (n - 1 - i) & 1 else "I" for i, letter in enumerate(basis))


def _readout(noise: DeviceNoise, qubit: int) -> tuple[float, float]:
    """Return α and β: with readout error a measured Z has the expectation of αZ + β."""
    matrix = noise.readout_matrix(qubit)
    if matrix is None:
        return 1.0, 0.0
    zero, one = matrix[0, 0] - matrix[0, 1], matrix[1, 0] - matrix[1, 1]
    return (zero - one) / 2, (zero + one) / 2
