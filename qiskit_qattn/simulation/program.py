r"""From a circuit to a short program: fused blocks of data-independent steps, separated by data-dependent phases.

Every unitary circuit is rewritten as

.. math:: U(x, \theta) = W_L(\theta)\, e^{i\Phi_L(x)}\, W_{L-1}(\theta) \cdots e^{i\Phi_1(x)}\, W_0(\theta)

where each :math:`\Phi_k` is diagonal and linear in gate angles: a rotation about X or Y that depends on data is a
fixed basis change, a diagonal rotation and the way back. Each :math:`W_k` is a list of four kinds of steps:
one-qubit gates on many qubits at once, diagonal phases, permutations of basis states, and matrices on several qubits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from qiskit.circuit import ParameterExpression

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.elementary import (
    FROM_Z,
    Angle,
    Fixed,
    ParityRotation,
    Permutation,
    Rotation,
    Unitary,
    UnitaryOperation,
)

MAX_QUBITS = 16


@dataclass(frozen=True, eq=False)
class LocalStep:
    """One-qubit gates: ``chains[q]`` holds the gates of qubit q in the order they act."""

    chains: tuple[tuple[Rotation | Fixed, ...], ...]

    @property
    def is_real(self) -> bool:
        """Whether all gates are real: rotations about Y, and matrices without an imaginary part."""
        gates = (gate for chain in self.chains for gate in chain)
        return all(g.axis == "Y" if isinstance(g, Rotation) else not g.matrix.imag.any() for g in gates)


@dataclass(frozen=True, eq=False)
class PhaseStep:
    r"""Multiply amplitude i by :math:`e^{i \sum_k c_{ik} \alpha_k}` for angles α."""

    angles: tuple[Angle, ...]
    coefficients: np.ndarray  # (2**n, K)


@dataclass(frozen=True, eq=False)
class PermuteStep:
    """Amplitude ``source[i]`` becomes amplitude i."""

    source: np.ndarray  # (2**n,)


@dataclass(frozen=True, eq=False)
class MatrixStep:
    """Multiply by a matrix on some of the qubits."""

    qubits: tuple[int, ...]
    matrix: np.ndarray  # (2**k, 2**k), qubits[0] least significant
    num_qubits: int

    @property
    def is_real(self) -> bool:
        """Whether the matrix has no imaginary part."""
        return not np.imag(self.matrix).any()

    def rows(self) -> np.ndarray:
        """Return the basis states in the order in which the matrix acts on the first of ``(2**k, 2**(n - k))``."""
        index = np.arange(2**self.num_qubits)
        local = sum(((index >> q) & 1) << k for k, q in enumerate(self.qubits))
        return np.argsort(local, kind="stable")


Step = LocalStep | PhaseStep | PermuteStep | MatrixStep


@dataclass(frozen=True, eq=False)
class Program:
    """Blocks W₀ … W_L and the data phases between them; ``len(blocks) == len(phases) + 1``."""

    num_qubits: int
    blocks: tuple[tuple[Step, ...], ...]
    phases: tuple[PhaseStep, ...]


@dataclass
class _LocalLayer:
    chains: dict[int, list[Rotation | Fixed]] = field(default_factory=dict)


@dataclass
class _MatrixLayer:
    operation: Unitary


@dataclass
class _DiagonalLayer:
    """Diagonal rotations, then a permutation; i ↦ ``image[i]``."""

    image: np.ndarray
    rotations: list[tuple[np.ndarray, Angle]] = field(default_factory=list)


_Layer = _LocalLayer | _DiagonalLayer | _MatrixLayer


def build_program(operations: Iterable[UnitaryOperation], num_qubits: int, input_params: Sequence[Any]) -> Program:
    """Arrange elementary operations into a :class:`Program`.

    Args:
        operations: The circuit, flattened.
        num_qubits: n; at most 16.
        input_params: Parameters that carry data; angles that depend on any of them are data-dependent.

    Raises:
        CircuitError: For more than 16 qubits.
    """
    if num_qubits > MAX_QUBITS:
        raise CircuitError(
            f"The exact engine stores all 2^n amplitudes and takes at most {MAX_QUBITS} qubits, got {num_qubits}."
        )
    data = set(input_params)
    layers = _arrange(diagonal_data(operations, data), num_qubits)
    return _cut(layers, num_qubits, data)


def depends_on(angle: Angle, params: set[Any]) -> bool:
    """Return whether an angle depends on any of ``params``."""
    return isinstance(angle, ParameterExpression) and not params.isdisjoint(angle.parameters)


def diagonal_data(operations: Iterable[UnitaryOperation], data: set[Any]) -> Iterator[UnitaryOperation]:
    """Turn data-dependent rotations into diagonal ones between fixed basis changes."""
    for op in operations:
        if isinstance(op, Rotation) and depends_on(op.angle, data):
            basis = FROM_Z.get(op.axis)
            if basis is not None:
                yield Fixed(op.qubit, basis.conj().T)
            yield ParityRotation((op.qubit,), op.angle)
            if basis is not None:
                yield Fixed(op.qubit, basis)
        else:
            yield op


def _arrange(operations: Iterable[UnitaryOperation], num_qubits: int) -> list[_Layer]:
    """Put each operation into the earliest layer of its kind that its qubits have not passed."""
    layers: list[_Layer] = []
    last = [0] * num_qubits  # the layer each qubit has reached
    index = np.arange(2**num_qubits)
    for op in operations:
        qubits = op.qubits
        if isinstance(op, Unitary):
            for q in qubits:
                last[q] = len(layers)
            layers.append(_MatrixLayer(op))
            continue
        at = max(last[q] for q in qubits)
        local = isinstance(op, Rotation | Fixed)
        if isinstance(op, Rotation) and op.axis == "Z" and at < len(layers) and isinstance(layers[at], _DiagonalLayer):
            op, local = ParityRotation(qubits, op.angle), False
        kind = _LocalLayer if local else _DiagonalLayer
        while at < len(layers) and not isinstance(layers[at], kind):
            at += 1
        if at == len(layers):
            layers.append(_LocalLayer() if local else _DiagonalLayer(index))
        layer = layers[at]
        if isinstance(layer, _LocalLayer):
            assert isinstance(op, Rotation | Fixed)
            layer.chains.setdefault(op.qubit, []).append(op)
        elif isinstance(op, ParityRotation):
            assert isinstance(layer, _DiagonalLayer)
            # A diagonal after a permutation is the permuted diagonal before it.
            layer.rotations.append((_parity(index, op.qubits)[layer.image], op.angle))
        else:
            assert isinstance(op, Permutation) and isinstance(layer, _DiagonalLayer)
            layer.image = permuted(index, op)[layer.image]
        for q in qubits:
            last[q] = at
    return layers


def _cut(layers: Sequence[_Layer], num_qubits: int, data: set[Any]) -> Program:
    """Split the layers at their data-dependent phases."""
    blocks: list[list[Step]] = [[]]
    phases: list[PhaseStep] = []
    for layer in layers:
        if isinstance(layer, _LocalLayer):
            blocks[-1].append(LocalStep(tuple(tuple(layer.chains.get(q, ())) for q in range(num_qubits))))
            continue
        if isinstance(layer, _MatrixLayer):
            blocks[-1].append(MatrixStep(layer.operation.qubits, layer.operation.matrix, num_qubits))
            continue
        fixed = [r for r in layer.rotations if not depends_on(r[1], data)]
        moving = [r for r in layer.rotations if depends_on(r[1], data)]
        if fixed:
            blocks[-1].append(_phase_step(fixed))
        if moving:
            phases.append(_phase_step(moving))
            blocks.append([])
        if not np.array_equal(layer.image, np.arange(2**num_qubits)):
            blocks[-1].append(PermuteStep(np.argsort(layer.image)))
    return Program(num_qubits, tuple(tuple(block) for block in blocks), tuple(phases))


def _phase_step(rotations: Sequence[tuple[np.ndarray, Angle]]) -> PhaseStep:
    r"""Collect rotations :math:`e^{-i\theta s/2}` with their signs s."""
    return PhaseStep(tuple(angle for _, angle in rotations), np.stack([-0.5 * signs for signs, _ in rotations], 1))


def _parity(index: np.ndarray, qubits: Sequence[int]) -> np.ndarray:
    """Return the eigenvalue ±1 of Z…Z on ``qubits`` for every basis state."""
    mask = sum(1 << q for q in qubits)
    return 1.0 - 2.0 * (np.bitwise_count(index & mask) & 1)


def permuted(index: np.ndarray, op: Permutation) -> np.ndarray:
    """Return the image of every basis state under a permutation of some qubits' states."""
    local = sum(((index >> q) & 1) << k for k, q in enumerate(op.qubits))
    image = np.asarray(op.image)[local]
    cleared = index & ~sum(1 << q for q in op.qubits)
    return cleared | sum(((image >> k) & 1) << q for k, q in enumerate(op.qubits))
