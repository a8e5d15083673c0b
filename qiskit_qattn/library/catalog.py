"""The catalog: attention circuits by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

from qiskit_qattn.errors import CircuitError, ConfigError, counted, unknown_name
from qiskit_qattn.library.ansatzes import angle_ansatz, qasa_ansatz, qisa_ansatz, qsann_ansatz, real_amplitudes_ansatz
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.compound import choose_pairs, count_pairs, matrix_encoding, pair_amplitude
from qiskit_qattn.library.encodings import (
    Encoding,
    amplitude_encoding,
    angle_encoding,
    data_qubits,
    qasa_encoding,
    qsann_encoding,
    zz_encoding,
)
from qiskit_qattn.library.observables import (
    Readout,
    choose_outcomes,
    outcome_projector,
    random_observables,
    select_observables,
)
from qiskit_qattn.library.quixer import quixer_ansatz, quixer_encoding
from qiskit_qattn.library.unary import butterfly_ansatz, pyramid_ansatz, unary_encoding
from qiskit_qattn.untrusted import shown

_PROBE_SEED = 20260
_NUM_PROBES = 2


@dataclass(frozen=True)
class Recipe:
    """How a catalog entry is built.

    Attributes:
        encoding: Builds the encoding on n qubits.
        ansatz: Builds the ansatz on n qubits with a number of layers.
        reps: The default number of layers.
        first: Lists the Pauli strings on n qubits that are measured before any others.
        summary: What it is, in a line.
        readout: What is measured in place of single Pauli strings; ``first`` is not used then.
    """

    encoding: Callable[[int], Encoding]
    ansatz: Callable[[int, int], QuantumCircuit]
    reps: int
    first: Callable[[int], list[str]]
    summary: str
    readout: Readout | None = None


def _single_qubit(letters: str) -> Callable[[int], list[str]]:
    """Return a function of n that lists each letter on each qubit, letter by letter."""

    def strings(num_qubits: int) -> list[str]:
        return ["I" * (num_qubits - 1 - q) + letter + "I" * q for letter in letters for q in range(num_qubits)]

    return strings


def _data_qubits_z(num_qubits: int) -> list[str]:
    """List Z on each of QASA's data qubits."""
    return _single_qubit("Z")(num_qubits)[: data_qubits(num_qubits)]


_QISA = "amplitude encoding, RX·RY, CX ring, RY; arXiv 2603.03318"
CATALOG: dict[str, Recipe] = {
    "qisa-v1": Recipe(amplitude_encoding, qisa_ansatz, 1, _single_qubit("Z"), f"{_QISA}; q, k one ⟨Z₀⟩ each"),
    "qisa-v2": Recipe(amplitude_encoding, qisa_ansatz, 1, _single_qubit("Z"), f"{_QISA}; q, k, v all circuits"),
    "qisa-v3": Recipe(amplitude_encoding, qisa_ansatz, 1, _single_qubit("Z"), f"{_QISA}; q, k linear, v a circuit"),
    "qsann": Recipe(qsann_encoding, qsann_ansatz, 1, _single_qubit("ZYX"), "QSANN, arXiv 2205.05625"),
    "zz": Recipe(zz_encoding, real_amplitudes_ansatz, 2, _single_qubit("Z"), "ZZ feature map and real amplitudes"),
    "angle": Recipe(angle_encoding, angle_ansatz, 1, _single_qubit("Z"), "RX angles and CX ring, arXiv 2110.06510"),
    "qasa": Recipe(qasa_encoding, qasa_ansatz, 3, _data_qubits_z, "QASA, arXiv 2504.05336v4"),
    "probabilities": Recipe(
        amplitude_encoding,
        qisa_ansatz,
        1,
        _single_qubit("Z"),
        "amplitude encoding, QISA's ansatz; outcome probabilities",
        Readout(lambda num_qubits: 2**num_qubits, choose_outcomes, outcome_projector),
    ),
    "compound": Recipe(
        matrix_encoding,
        pyramid_ansatz,
        1,
        _single_qubit("X"),
        "matrix in pairs of qubits, RBS pyramid; arXiv 2209.08167",
        Readout(count_pairs, choose_pairs, pair_amplitude),
    ),
    "butterfly": Recipe(
        unary_encoding, butterfly_ansatz, 1, _single_qubit("X"), "RBS butterfly, unary; arXiv 2209.08167"
    ),
    "orthogonal": Recipe(unary_encoding, pyramid_ansatz, 1, _single_qubit("X"), "RBS pyramid, unary; arXiv 2209.08167"),
    "quixer": Recipe(quixer_encoding, quixer_ansatz, 1, _single_qubit("ZXY"), "Quixer on one token, arXiv 2406.04305"),
}
ALIASES = {"qisa": "qisa-v3"}


def register_circuit(name: str, recipe: Recipe) -> None:
    """Add an attention circuit to the catalog; adding the same recipe again has no effect.

    Raises:
        ConfigError: For the name of another recipe, or an alias.
    """
    if name in ALIASES or CATALOG.get(name, recipe) != recipe:
        raise ConfigError(f"The catalog has an attention circuit {name!r} already; choose another name.")
    CATALOG[name] = recipe


def list_circuits() -> list[str]:
    """Return the names in the catalog, without aliases."""
    return list(CATALOG)


def attention_circuit(
    name: str,
    num_qubits: int,
    *,
    reps: int | None = None,
    num_observables: int | None = None,
    observables: Literal["grouped", "random"] | Sequence[str] = "grouped",
    seed: int = 0,
) -> AttentionCircuit:
    """Build an attention circuit from the catalog.

    Args:
        name: ``qisa-v1``, ``qisa-v2``, ``qisa-v3`` (alias ``qisa``), ``qsann``, ``zz``, ``angle``, ``qasa``,
            ``probabilities``, ``orthogonal``, ``butterfly``, ``compound``, or any other name that
            :func:`list_circuits` returns.
        num_qubits: Number of qubits, 1 to 12; up to 128 for ``orthogonal`` and ``butterfly``, and from 2 on for
            ``compound``.
        reps: Number of ansatz layers; None takes the source's: 1, 2 for ``zz`` and 3 for ``qasa``.
        num_observables: Number of outputs; None means one per qubit, or all where there are fewer.
        observables: ``grouped`` takes distinct strings that are not always zero, in the fewest measurement bases;
            ``random`` draws them as the QISA paper does, with ``seed``; or the Pauli strings themselves (qubit 0 last).
            For circuits that read something else, ``grouped`` or the strings: outcomes such as ``0I1`` of
            ``probabilities``, and states with two 1s of ``compound``.
        seed: Seed of the random drawing.

    Raises:
        UnknownNameError: For a name that is not in the catalog; the message lists those that are.
        CircuitError: For a number of qubits, layers or observables that is not possible.
    """
    recipe = CATALOG.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if recipe is None:
        raise unknown_name("attention circuit", str(name), [*CATALOG, *ALIASES])
    for what, given in (("num_qubits", num_qubits), ("reps", reps), ("num_observables", num_observables)):
        if not (isinstance(given, Integral) or (given is None and what != "num_qubits")):
            raise CircuitError(f"{what} must be an integer, got {shown(given)}.")
    encoding = recipe.encoding(num_qubits)
    ansatz = recipe.ansatz(num_qubits, recipe.reps if reps is None else reps)
    count = num_qubits if num_observables is None else num_observables
    if not isinstance(observables, str) and num_observables not in (None, len(observables)):
        raise ConfigError(f"num_observables is {num_observables}, but {len(observables)} observables were given.")
    name = ALIASES.get(name, name)
    if recipe.readout is not None:
        if observables == "random":
            raise ConfigError(f"{name} measures no Pauli strings that could be drawn at random.")
        count = min(count, recipe.readout.most(num_qubits)) if num_observables is None else count
        return _read(name, encoding, ansatz, recipe.readout, observables, count)
    if not isinstance(observables, str):
        labels = tuple(observables)
    elif observables == "random":
        labels = random_observables(num_qubits, count, seed)
    elif observables == "grouped" and encoding.kind == "unary" and 1 <= count <= num_qubits:
        labels = tuple(recipe.first(num_qubits)[:count])  # none vanishes, and states may be too large to probe
    elif observables == "grouped":
        labels = select_observables(_probe_states(encoding, ansatz), count, recipe.first(num_qubits))
    else:
        raise unknown_name("choice of observables", observables, ["grouped", "random"])
    return AttentionCircuit(name, encoding, ansatz, labels)


def _read(
    name: str,
    encoding: Encoding,
    ansatz: QuantumCircuit,
    readout: Readout,
    observables: Literal["grouped"] | Sequence[str],
    count: int,
) -> AttentionCircuit:
    """Return the circuit with sums of Pauli strings as observables, those given or as many as asked for."""
    n = encoding.num_qubits
    if isinstance(observables, str) and observables != "grouped":
        raise unknown_name("choice of observables", observables, ["grouped"])
    if not 1 <= count <= (most := readout.most(n)):
        raise CircuitError(f"{name} on {counted(n, 'qubit')} reads from 1 to {most} values, {count} were asked for.")
    names = tuple(readout.choose(n, count) if isinstance(observables, str) else observables)
    if wrong := [each for each in names if len(each) != n]:
        raise CircuitError(
            f"What {name} reads on {counted(n, 'qubit')} are strings of {counted(n, 'letter')}, got {wrong}."
        )
    sums = tuple(readout.operator(each) for each in names)
    terms = itertools.zip_longest(*(each.paulis.to_labels() for each in sums))
    labels = tuple(dict.fromkeys(label for row in terms for label in row if label is not None))
    return AttentionCircuit(name, encoding, ansatz, labels, sums, names=names)


def _probe_states(encoding: Encoding, ansatz: QuantumCircuit) -> list[np.ndarray]:
    """Return states of the circuit for random inputs and weights, on which vanishing observables are recognised."""
    rng = np.random.default_rng(_PROBE_SEED)
    states = []
    for _ in range(_NUM_PROBES):
        if encoding.kind == "amplitude":
            vector = rng.normal(size=encoding.num_features)
            state = Statevector(vector / np.linalg.norm(vector))
        else:
            angles = rng.uniform(-np.pi, np.pi, len(encoding.params))
            state = Statevector(encoding.circuit.assign_parameters(dict(zip(encoding.params, angles, strict=True))))
        weights = rng.uniform(-np.pi, np.pi, ansatz.num_parameters)
        states.append(state.evolve(ansatz.assign_parameters(weights)).data)
    return states
