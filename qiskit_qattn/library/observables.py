"""Pauli observables: which ones a head measures, and how they share measurement bases."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.errors import CircuitError, counted

# H rotates X to Z; H·S† rotates Y to Z.
_TO_Z = {
    "Z": np.eye(2, dtype=complex),
    "X": np.array([[1, 1], [1, -1]], dtype=complex) / np.sqrt(2),
    "Y": np.array([[1, -1j], [1, 1j]], dtype=complex) / np.sqrt(2),
}
_DEAD = 1e-9


def measurement_bases(labels: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Group Pauli strings that are measured in one basis (qubit-wise commuting).

    Args:
        labels: Pauli strings in Qiskit's order (qubit 0 is the last letter).

    Returns:
        Pairs of a basis, one of ``X``, ``Y``, ``Z`` per qubit, and the positions of its strings in ``labels``.
        First fit in the given order; a qubit on which all strings of a group are I is measured in Z.
    """
    groups: list[tuple[list[str], list[int]]] = []
    for position, label in enumerate(labels):
        for letters, members in groups:
            if all(a in ("I", b) or b == "I" for a, b in zip(label, letters, strict=True)):
                letters[:] = [b if a == "I" else a for a, b in zip(label, letters, strict=True)]
                members.append(position)
                break
        else:
            groups.append((list(label), [position]))
    return [("".join(letters).replace("I", "Z"), members) for letters, members in groups]


def basis_rotation(basis: str) -> list[np.ndarray]:
    """Return, for qubits 0 to n−1, the 2×2 unitary that turns a measurement in ``basis`` into one in Z."""
    return [_TO_Z[letter] for letter in reversed(basis)]


def basis_expectations(state: np.ndarray, basis: str) -> np.ndarray:
    """Return ⟨P⟩ of the 2ⁿ strings that are measured in ``basis``; string m has its letters where bits of m are set.

    Args:
        state: Amplitudes, shape ``(2**n,)``.
        basis: One of ``X``, ``Y``, ``Z`` a qubit, qubit 0 last.
    """
    n = len(basis)
    tensor = state.reshape((2,) * n)  # axis 0 is qubit n−1
    for axis, letter in enumerate(basis):
        tensor = np.moveaxis(np.tensordot(_TO_Z[letter], tensor, axes=(1, axis)), 0, axis)
    values = np.abs(tensor) ** 2
    for axis in range(n):  # Walsh–Hadamard transform of the probabilities
        zero, one = np.take(values, 0, axis), np.take(values, 1, axis)
        values = np.stack((zero + one, zero - one), axis)
    return values.reshape(-1)


def _candidate_bases(num_qubits: int) -> Iterator[str]:
    """Yield Z…Z, X…X, Y…Y, then the other letter choices, which add the fewest new strings."""
    pure = ["Z" * num_qubits, "X" * num_qubits, "Y" * num_qubits]
    mixed = ("".join(letters) for letters in product("ZXY", repeat=num_qubits))
    yield from dict.fromkeys(pure)
    yield from (basis for basis in mixed if len(set(basis)) > 1)


def select_observables(probes: Sequence[np.ndarray], count: int, first: Sequence[str] = ()) -> tuple[str, ...]:
    """Choose ``count`` distinct Pauli strings that are not identically zero, in few measurement bases.

    Strings are taken basis by basis, all-Z by weight first, then all-X, all-Y, then mixed ones, and a string whose
    expectation vanishes on every probe state is skipped: real states, for instance, have no odd number of Y.

    Args:
        probes: States the circuit reaches for random inputs and weights, each of shape ``(2**n,)``.
        count: How many strings.
        first: Strings to take before the others, unless they always vanish.

    Returns:
        Strings in Qiskit's order (qubit 0 last).

    Raises:
        CircuitError: If ``count`` is below 1 or more than the number of strings that do not vanish.
    """
    num_qubits = int(probes[0].size).bit_length() - 1
    if count < 1:
        raise CircuitError(f"The number of observables must be at least 1, got {count}.")
    most = 4**num_qubits - 1
    if count > most:
        raise CircuitError(
            f"{counted(count, 'observable')} asked for, but on {counted(num_qubits, 'qubit')} there are only "
            f"{counted(most, 'Pauli string')} besides the "
            f"identity. Use fewer observables (a smaller head) or more qubits."
        )
    chosen: dict[str, None] = {}
    for label in first:
        if _alive(probes, label.replace("I", "Z"))[_mask(label)]:
            chosen[label] = None
    masks = sorted(range(1, 2**num_qubits), key=lambda m: (m.bit_count(), m))
    for basis in _candidate_bases(num_qubits):
        if len(chosen) >= count:
            break
        alive = _alive(probes, basis)
        chosen.update(dict.fromkeys(masked(basis, mask) for mask in masks if alive[mask]))
    if len(chosen) < count:
        raise CircuitError(
            f"{counted(count, 'observable')} asked for, but on {counted(num_qubits, 'qubit')} this circuit has "
            f"only {len(chosen)} Pauli "
            f"strings that are not always zero. Use fewer observables (a smaller head) or more qubits."
        )
    return tuple(chosen)[:count]


def random_observables(num_qubits: int, count: int, seed: int) -> tuple[str, ...]:
    """Draw Pauli strings as the QISA paper does: each letter I with probability 0.9, else X, Y or Z.

    As published, the strings may repeat, be the identity or have expectations that are always zero.

    Args:
        num_qubits: Length of the strings.
        count: How many strings.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("IXYZ"), size=(count, num_qubits), p=[0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3])
    return tuple("".join(row) for row in letters)


@dataclass(frozen=True)
class Readout:
    """What a circuit measures in place of single Pauli strings: operators that strings of letters stand for.

    Attributes:
        most: How many there are on n qubits.
        choose: Lists strings on n qubits, as many as are asked for.
        operator: Returns what a string stands for.
    """

    most: Callable[[int], int]
    choose: Callable[[int, int], list[str]]
    operator: Callable[[str], SparsePauliOp]


def choose_outcomes(num_qubits: int, count: int) -> list[str]:
    """Return the first ``count`` outcomes of as few qubits as have so many, from qubit 0 on; I on the others."""
    bits = max(1, (count - 1).bit_length())
    return ["I" * (num_qubits - bits) + f"{outcome:0{bits}b}" for outcome in range(count)]


def outcome_projector(outcome: str) -> SparsePauliOp:
    r"""Return the projector on an outcome, whose expectation is its probability.

    .. math:: \bigotimes_i \tfrac{1}{2} \big( I + (-1)^{b_i} Z \big)

    Args:
        outcome: 0, 1, or I for either, for each qubit; qubit 0 is last.

    Raises:
        CircuitError: For other letters, or I alone.
    """
    measured = [place for place, letter in enumerate(outcome) if letter in "01"]
    if not measured or set(outcome) - set("01I"):
        raise CircuitError(f"An outcome is of letters 0, 1 and I, not I alone; got {outcome!r}.")
    terms = []
    for chosen in product((False, True), repeat=len(measured)):
        label, sign = ["I"] * len(outcome), 1.0
        for place in itertools.compress(measured, chosen):
            label[place] = "Z"
            sign = -sign if outcome[place] == "1" else sign
        terms.append(("".join(label), sign / 2 ** len(measured)))
    return SparsePauliOp.from_list(terms)


def _alive(probes: Sequence[np.ndarray], basis: str) -> np.ndarray:
    """Return, for the 2ⁿ strings of a basis, which of them do not vanish on every probe."""
    return np.max([np.abs(basis_expectations(probe, basis)) for probe in probes], axis=0) > _DEAD


def _mask(label: str) -> int:
    """Return the bit mask of the qubits on which a string is not I."""
    return sum(1 << qubit for qubit, letter in enumerate(reversed(label)) if letter != "I")


def served(basis: str) -> list[str]:
    """Return the 2ⁿ strings that are measured in a basis; string m has its letters on the qubits that are set in m."""
    return [masked(basis, mask) for mask in range(2 ** len(basis))]


def masked(basis: str, mask: int) -> str:
    """Return ``basis`` with the letters of the qubits outside ``mask`` replaced by I."""
    n = len(basis)
    return "".join(letter if mask >> (n - 1 - i) & 1 else "I" for i, letter in enumerate(basis))
