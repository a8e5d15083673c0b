"""In which order fused blocks act on which states: separate ones are joined when a block acts on both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from qiskit_qattn.simulation.gate_fusion import Phases

Layout: TypeAlias = tuple[int, ...]  # qubits of a state, the most significant first


@dataclass(frozen=True)
class Join:
    """Two separate states become their product, in place of the first."""

    left: int
    right: int


@dataclass(frozen=True)
class Reorder:
    """The qubits of a state change places: axis ``order[i]`` becomes axis i."""

    state: int
    order: tuple[int, ...]


@dataclass(frozen=True)
class Apply:
    """A matrix acts on neighbouring axes of a state, after ``before`` others; ``matrix`` is its position."""

    state: int
    before: int
    matrix: int


@dataclass(frozen=True)
class Rotate:
    """Diagonal phases act on a state; ``phases`` is their position."""

    state: int
    phases: int


@dataclass(frozen=True)
class Shuffle:
    """The basis states of a state change places; ``permutation`` is the position of how."""

    state: int
    permutation: int


Instruction: TypeAlias = Join | Reorder | Apply | Rotate | Shuffle


class Schedule:
    """Which states there are while a circuit runs, and the instructions so far."""

    def __init__(self, num_qubits: int, *, whole: bool) -> None:
        self.instructions: list[Instruction] = []
        self.layouts: dict[int, Layout] = (
            {0: tuple(range(num_qubits))[::-1]} if whole else {q: (q,) for q in range(num_qubits)}
        )

    def apply(self, qubits: Sequence[int], matrix: int) -> Layout:
        """Let a matrix act on qubits; return the order in which it does."""
        state = self.join(qubits)
        layout = self.layouts[state]
        at = sorted(layout.index(q) for q in qubits)
        if at[-1] - at[0] >= len(at):  # not neighbours: they come first, the others after them
            order = (*at, *(i for i in range(len(layout)) if i not in at))
            self._reorder(state, order)
            at = list(range(len(at)))
        self.instructions.append(Apply(state, at[0], matrix))
        return self.layouts[state][at[0] : at[0] + len(at)]

    def separate(self, phases: Phases) -> list[tuple[int, Phases]]:
        """Return phases by the state they act on; states that one of them acts on together are joined."""
        for qubits in phases.sets:
            self.join(qubits)
        found: dict[int, list[int]] = {}
        for k, qubits in enumerate(phases.sets):
            found.setdefault(self._state_of(qubits[0]), []).append(k)
        return [
            (state, Phases(tuple(phases.sets[k] for k in ks), tuple(phases.angles[k] for k in ks), phases.of_data))
            for state, ks in found.items()
        ]

    def rotate(self, state: int, phases: int) -> Layout:
        """Let phases act on a state; return its layout."""
        self.instructions.append(Rotate(state, phases))
        return self.layouts[state]

    def shuffle(self, qubits: Sequence[int], permutation: int) -> Layout:
        """Let a permutation of basis states act on qubits; return the layout of the state that they are in."""
        state = self.join(qubits)
        self.instructions.append(Shuffle(state, permutation))
        return self.layouts[state]

    def join(self, qubits: Sequence[int]) -> int:
        """Join the states that some qubits are in, those with the highest qubits first, and return the result."""
        states = sorted({self._state_of(q) for q in qubits}, key=lambda s: max(self.layouts[s]), reverse=True)
        first, *others = states
        for other in others:
            self.instructions.append(Join(first, other))
            self.layouts[first] += self.layouts.pop(other)
        return first

    def _reorder(self, state: int, order: tuple[int, ...]) -> None:
        self.instructions.append(Reorder(state, order))
        self.layouts[state] = tuple(self.layouts[state][i] for i in order)

    def _state_of(self, qubit: int) -> int:
        return next(state for state, layout in self.layouts.items() if qubit in layout)
