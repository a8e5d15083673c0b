r"""Gate fusion: a circuit of many qubits as a few matrices on few qubits each, and data-dependent phases.

Gates without data are collected into clusters of at most :data:`WIDTH` qubits, in any order that moves a gate only past
gates on other qubits. A rotation that depends on data is diagonal between fixed changes of basis, which join the
clusters around it. Swaps, and all other permutations of qubits, only rename qubits and cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from qiskit_qattn.simulation.elementary import (
    Angle,
    ParityRotation,
    Permutation,
    UnitaryOperation,
    moved,
    moved_qubits,
)
from qiskit_qattn.simulation.program import depends_on, diagonal_data

WIDTH = 5  # qubits of a cluster: a matrix of 32 × 32 is applied about as fast as memory is read
_AHEAD = 400  # operations that are looked through for a cluster, so that long circuits are fused in linear time


@dataclass(frozen=True, eq=False)
class Cluster:
    """Operations without data that act on few qubits, in order.

    Attributes:
        qubits: Those they act on, ascending.
        operations: The operations.
    """

    qubits: tuple[int, ...]
    operations: tuple[UnitaryOperation, ...]


@dataclass(frozen=True, eq=False)
class Phases:
    r"""Diagonal rotations :math:`e^{-i \theta_k Z_{S_k} / 2}`.

    Attributes:
        sets: The qubits :math:`S_k` of each.
        angles: The angles :math:`\theta_k`.
    """

    sets: tuple[tuple[int, ...], ...]
    angles: tuple[Angle, ...]

    @property
    def qubits(self) -> tuple[int, ...]:
        """All qubits, ascending."""
        return tuple(sorted(set().union(*self.sets)))


FusedStep: TypeAlias = Cluster | Phases


def fuse(
    operations: Iterable[UnitaryOperation], num_qubits: int, input_params: Sequence[Any]
) -> tuple[list[FusedStep], tuple[int, ...]]:
    """Return a circuit's steps, and for each qubit where its amplitudes are at the end.

    Args:
        operations: The circuit, flattened.
        num_qubits: n.
        input_params: Parameters that carry data; angles that depend on any of them are data-dependent.
    """
    data = set(input_params)
    place = list(range(num_qubits))
    remaining = list(_renamed(diagonal_data(operations, data), place))
    steps: list[FusedStep] = []
    while remaining:
        ahead = remaining[:_AHEAD]
        taken = max((_cluster(ahead, first, data) for first in _first(ahead, data)), key=len, default=[])
        if taken:
            chosen = [ahead[i] for i in taken]
            steps.append(Cluster(tuple(sorted(set().union(*(op.qubits for op in chosen)))), tuple(chosen)))
        else:
            taken = _diagonal(ahead, data)
            phases = [op for i in taken if isinstance(op := ahead[i], ParityRotation)]
            steps.append(Phases(tuple(op.qubits for op in phases), tuple(op.angle for op in phases)))
        gone = set(taken)
        remaining = [op for i, op in enumerate(ahead) if i not in gone] + remaining[_AHEAD:]
    return steps, tuple(place)


def _renamed(operations: Iterable[UnitaryOperation], place: list[int]) -> Iterator[UnitaryOperation]:
    """Yield operations on the places of their qubits; permutations of qubits change ``place`` instead."""
    for op in operations:
        targets = moved_qubits(op) if isinstance(op, Permutation) else None
        if targets is None:
            yield moved(op, place)
            continue
        old = [place[q] for q in op.qubits]
        for k, target in enumerate(targets):
            place[op.qubits[target]] = old[k]


def _is_phase(op: UnitaryOperation, data: set[Any]) -> bool:
    """Return whether an operation is a step of its own: it depends on data, or is diagonal on many qubits."""
    return isinstance(op, ParityRotation) and (len(op.qubits) > WIDTH or depends_on(op.angle, data))


def _first(operations: Sequence[UnitaryOperation], data: set[Any]) -> Iterator[int]:
    """Yield which operations may begin a cluster: nothing before them acts on their qubits."""
    blocked = set[int]()
    for i, op in enumerate(operations):
        if blocked.isdisjoint(op.qubits) and not _is_phase(op, data):
            yield i
        blocked.update(op.qubits)


def _cluster(operations: Sequence[UnitaryOperation], first: int, data: set[Any]) -> list[int]:
    """Return which operations join the cluster that begins with one of them."""
    qubits, blocked, taken = set(operations[first].qubits), set[int](), []
    width = max(WIDTH, len(qubits))  # a larger matrix or permutation is a cluster by itself
    for i, op in enumerate(operations):
        joined = qubits.union(op.qubits)
        if not _is_phase(op, data) and blocked.isdisjoint(op.qubits) and len(joined) <= width:
            qubits = joined
            taken.append(i)
        else:
            blocked.update(op.qubits)
    return taken


def _diagonal(operations: Sequence[UnitaryOperation], data: set[Any]) -> list[int]:
    """Return which phases may come next; they commute with each other."""
    blocked, taken = set[int](), []
    for i, op in enumerate(operations):
        if _is_phase(op, data) and blocked.isdisjoint(op.qubits):
            taken.append(i)
        else:
            blocked.update(op.qubits)
    return taken
