r"""The elementary operations that circuits are made of, and their inverses and controlled forms.

Every gate is a product of rotations about a Pauli axis, diagonal rotations :math:`e^{-i\theta Z_{mask}/2}`, fixed
matrices, permutations of basis states and a phase. Control by a state c of qubits keeps these kinds: with the projector

.. math:: \Pi_c = 2^{-m} \sum_S (-1)^{|S| - |S \cap c|} Z_S, \qquad
          C_c\, e^{-i\theta P/2} = \prod_S e^{\mp i 2^{-m} \theta\, Z_S \otimes P / 2}

over all subsets S of the m controls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, ParameterExpression
from qiskit.circuit.library import MCXGate, PermutationGate, UnitaryGate

from qiskit_qattn.errors import CircuitError

Angle: TypeAlias = float | ParameterExpression
Axis: TypeAlias = Literal["X", "Y", "Z"]

_DENSE = 8  # qubits on which a permutation may be any
_H = np.array([[1, 1], [1, -1]], dtype=complex) / np.sqrt(2)
_S = np.diag([1, 1j])
FROM_Z = {"X": _H, "Y": _S @ _H}  # C with C Z C† = X or Y


@dataclass(frozen=True, eq=False)
class Rotation:
    r"""One-qubit rotation :math:`e^{-i\theta P/2}`; ``angle`` is a number or an expression, in radians."""

    axis: Axis
    qubit: int
    angle: Angle

    @property
    def qubits(self) -> tuple[int, ...]:
        """The qubit."""
        return (self.qubit,)


@dataclass(frozen=True, eq=False)
class Fixed:
    """A one-qubit gate without parameters, as its 2×2 matrix."""

    qubit: int
    matrix: np.ndarray

    @property
    def qubits(self) -> tuple[int, ...]:
        """The qubit."""
        return (self.qubit,)


@dataclass(frozen=True, eq=False)
class ParityRotation:
    r"""Diagonal rotation :math:`e^{-i\theta Z\otimes\dots\otimes Z/2}` on ``qubits``."""

    qubits: tuple[int, ...]
    angle: Angle


@dataclass(frozen=True, eq=False)
class Permutation:
    """A map of basis states of ``qubits``: local state i goes to ``image[i]`` (qubits[0] least significant)."""

    qubits: tuple[int, ...]
    image: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Unitary:
    """A gate without parameters on several qubits, as its 2ᵏ×2ᵏ matrix (qubits[0] least significant)."""

    qubits: tuple[int, ...]
    matrix: np.ndarray


@dataclass(frozen=True, eq=False)
class Phase:
    r"""A global phase :math:`e^{i\varphi}`, which matters once it is controlled."""

    angle: Angle

    @property
    def qubits(self) -> tuple[int, ...]:
        """No qubit."""
        return ()


@dataclass(frozen=True, eq=False)
class Reset:
    """Put one qubit to |0⟩."""

    qubits: tuple[int]


@dataclass(frozen=True, eq=False)
class Measurement:
    """Measure one qubit."""

    qubits: tuple[int]


UnitaryOperation: TypeAlias = Rotation | Fixed | ParityRotation | Permutation | Unitary
Operation: TypeAlias = UnitaryOperation | Phase | Reset | Measurement


def pauli_rotation(letters: Sequence[Axis], qubits: Sequence[int], angle: Angle) -> Iterator[Operation]:
    r"""Yield :math:`e^{-i\theta P/2}` for a Pauli string P with ``letters[k]`` on ``qubits[k]``."""
    if not qubits:
        yield Phase(-angle / 2)
        return
    if len(qubits) == 1:
        yield Rotation(letters[0], qubits[0], angle)
        return
    turned = [(q, FROM_Z[letter]) for letter, q in zip(letters, qubits, strict=True) if letter != "Z"]
    yield from (Fixed(q, basis.conj().T) for q, basis in turned)
    yield ParityRotation(tuple(qubits), angle)
    yield from (Fixed(q, basis) for q, basis in turned)


def inverse(op: Operation) -> Operation:
    """Return the inverse of an operation that has one."""
    if isinstance(op, Rotation):
        return Rotation(op.axis, op.qubit, -op.angle)
    if isinstance(op, ParityRotation):
        return ParityRotation(op.qubits, -op.angle)
    if isinstance(op, Phase):
        return Phase(-op.angle)
    if isinstance(op, Permutation):
        return Permutation(op.qubits, tuple(int(i) for i in np.argsort(op.image)))
    if isinstance(op, Fixed):
        return Fixed(op.qubit, op.matrix.conj().T)
    assert isinstance(op, Unitary)
    return Unitary(op.qubits, op.matrix.conj().T)


def moved(op: UnitaryOperation, place: Mapping[int, int] | Sequence[int]) -> UnitaryOperation:
    """Return an operation on other qubits: what it does to qubit q it does to ``place[q]``."""
    if isinstance(op, Rotation):
        return Rotation(op.axis, place[op.qubit], op.angle)
    if isinstance(op, Fixed):
        return Fixed(place[op.qubit], op.matrix)
    return replace(op, qubits=tuple(place[q] for q in op.qubits))


def moved_qubits(op: Permutation) -> list[int] | None:
    """Return for each qubit of a permutation of qubits, by position, where it goes; None for other permutations."""
    count, image = len(op.qubits), np.asarray(op.image)
    units = image[1 << np.arange(count)]
    if (np.bitwise_count(units) != 1).any():
        return None
    targets = [int(unit).bit_length() - 1 for unit in units]
    state = np.arange(len(image))
    whole = np.sum([(state >> k & 1) << target for k, target in enumerate(targets)], axis=0)
    return targets if np.array_equal(image, whole) else None


def controlled(op: Operation, controls: tuple[int, ...], state: int) -> Iterator[Operation]:
    """Yield an operation that acts where ``controls`` are in a basis state, controls[0] its least significant bit."""
    if isinstance(op, Rotation | ParityRotation | Phase):
        axis: Axis = "Z"
        letters = [op.axis] if isinstance(op, Rotation) else [axis for _ in op.qubits]
        angle = -2 * op.angle if isinstance(op, Phase) else op.angle
        for subset in range(2 ** len(controls)):
            chosen = [q for k, q in enumerate(controls) if subset >> k & 1]
            sign = (-1) ** (subset & state).bit_count()
            part = angle * (sign / 2 ** len(controls))
            yield from pauli_rotation([*letters, *(axis for _ in chosen)], [*op.qubits, *chosen], part)
    elif isinstance(op, Permutation):
        size = 2 ** len(controls)
        image = np.arange(size * len(op.image))
        image[state::size] = np.asarray(op.image) * size + state
        yield Permutation((*controls, *op.qubits), tuple(image.tolist()))
    else:
        assert isinstance(op, Fixed | Unitary)
        size = 2 ** len(controls)
        matrix = np.eye(size * len(op.matrix), dtype=complex)
        matrix[state::size, state::size] = op.matrix
        yield Unitary((*controls, *op.qubits), matrix)


def as_circuit(operations: Iterable[UnitaryOperation], num_qubits: int) -> QuantumCircuit:
    """Return operations as a circuit of Qiskit's own gates; only RX, RY, RZ and RZZ have parameters.

    Raises:
        CircuitError: For a matrix that is not unitary, and on more than 8 qubits for a permutation of states that is
            neither one of qubits nor a controlled X.
    """
    circuit = QuantumCircuit(num_qubits)
    turns = {"X": circuit.rx, "Y": circuit.ry, "Z": circuit.rz}
    for op in operations:
        if isinstance(op, Rotation):
            turns[op.axis](op.angle, op.qubit)
        elif isinstance(op, ParityRotation):
            _append_parity(circuit, op)
        elif isinstance(op, Permutation):
            circuit.append(_permutation_gate(op), op.qubits)
        else:
            circuit.append(_unitary_gate(op.matrix), op.qubits)
    return circuit


def _unitary_gate(matrix: np.ndarray) -> Gate:
    try:
        return UnitaryGate(matrix)
    except ValueError as error:
        raise CircuitError(f"A gate has a matrix of shape {matrix.shape} that is not unitary.") from error


def _append_parity(circuit: QuantumCircuit, op: ParityRotation) -> None:
    *rest, last = op.qubits
    if not rest:
        circuit.rz(op.angle, last)
        return
    ladder = list(pairwise(rest))  # the parity of all but the last, on the one before it
    for one, other in ladder:
        circuit.cx(one, other)
    circuit.rzz(op.angle, rest[-1], last)
    for one, other in reversed(ladder):
        circuit.cx(one, other)


def _permutation_gate(op: Permutation) -> Gate:
    """Return the gate of a permutation: of qubits, a controlled X, or any on few qubits."""
    count, image = len(op.qubits), np.asarray(op.image)
    state = np.arange(len(image))
    moved = np.flatnonzero(image != state)
    if count > 1 and len(moved) == 2 and moved[1] - moved[0] == 2 ** (count - 1):  # the last bit flips, for one state
        return MCXGate(count - 1, ctrl_state=int(moved[0]))
    if (targets := moved_qubits(op)) is not None:
        return PermutationGate(np.argsort(targets))
    if count > _DENSE:
        raise CircuitError(f"A permutation of the basis states of {count} qubits has no circuit; at most {_DENSE}.")
    matrix = np.zeros((len(image), len(image)))
    matrix[image, state] = 1
    return UnitaryGate(matrix)
