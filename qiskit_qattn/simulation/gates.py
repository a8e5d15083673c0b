r"""Flatten any unitary QuantumCircuit to three kinds of elementary operations, up to a global phase.

Every standard gate is a product of rotations about a Pauli axis, diagonal rotations
:math:`e^{-i\theta Z_{mask}/2}`, fixed one-qubit matrices and permutations of basis states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, Instruction, ParameterExpression
from qiskit.circuit.library import Initialize, get_standard_gate_name_mapping
from qiskit.exceptions import QiskitError

from qiskit_qattn.errors import CircuitError

IGNORED = {"barrier", "delay", "id", "global_phase"}
_PAULI_ROTATIONS: dict[str, Literal["X", "Y", "Z"]] = {"rx": "X", "ry": "Y", "rz": "Z", "p": "Z", "u1": "Z"}
_NO_DEFINITION = {"measure", "reset", "initialize"}
Angle: TypeAlias = float | ParameterExpression


@dataclass(frozen=True, eq=False)
class Rotation:
    r"""One-qubit rotation :math:`e^{-i\theta P/2}`; ``angle`` is a number or an expression, in radians."""

    axis: Literal["X", "Y", "Z"]
    qubit: int
    angle: Angle


@dataclass(frozen=True, eq=False)
class Fixed:
    """A one-qubit gate without parameters, as its 2×2 matrix."""

    qubit: int
    matrix: np.ndarray


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


Operation = Rotation | Fixed | ParityRotation | Permutation
_PERMUTATIONS = {"cx": (0, 3, 2, 1), "swap": (0, 2, 1, 3), "ccx": (0, 1, 2, 7, 4, 5, 6, 3)}


def flatten(circuit: QuantumCircuit) -> list[Operation]:
    """Return the circuit as elementary operations in order.

    Args:
        circuit: Any circuit of unitary gates; gates without a rule of their own go through their definition.

    Raises:
        CircuitError: For measurements, resets, control flow and gates with neither a rule nor a definition.
    """
    return list(_flatten(circuit, tuple(range(circuit.num_qubits))))


def _flatten(circuit: QuantumCircuit, where: tuple[int, ...]) -> Iterator[Operation]:
    """Yield the operations of a circuit whose qubit i is ``where[i]``."""
    for item in circuit.data:
        qubits = tuple(where[circuit.find_bit(qubit).index] for qubit in item.qubits)
        yield from _expand(item.operation, qubits)


def _expand(gate: Instruction, qubits: tuple[int, ...]) -> Iterator[Operation]:
    """Yield the elementary operations of one instruction."""
    name, params = gate.name, getattr(gate, "params", [])
    standard = getattr(gate, "ctrl_state", None) in (None, 2 ** getattr(gate, "num_ctrl_qubits", 0) - 1)
    if name in IGNORED:
        return
    if name in _PAULI_ROTATIONS:
        yield Rotation(_PAULI_ROTATIONS[name], qubits[0], _angle(params[0]))
    elif name in ("u", "u3", "u2"):
        theta, phi, lam = params if name != "u2" else (np.pi / 2, *params)
        yield Rotation("Z", qubits[0], _angle(lam))
        yield Rotation("Y", qubits[0], _angle(theta))
        yield Rotation("Z", qubits[0], _angle(phi))
    elif name == "r":
        theta, phi = params
        yield Rotation("Z", qubits[0], _angle(-phi))
        yield Rotation("X", qubits[0], _angle(theta))
        yield Rotation("Z", qubits[0], _angle(phi))
    elif name == "rzz":
        yield ParityRotation(qubits, _angle(params[0]))
    elif name in ("cp", "cu1") and standard:
        # diag(1, 1, 1, e^iθ) is e^{iθ(1-Z)(1-Z)/4}: Z on either qubit and ZZ, up to a phase
        theta = params[0]
        yield Rotation("Z", qubits[0], _angle(theta / 2))
        yield Rotation("Z", qubits[1], _angle(theta / 2))
        yield ParityRotation(qubits, _angle(-theta / 2))
    elif name == "cz" and standard:
        yield Rotation("Z", qubits[0], np.pi / 2)
        yield Rotation("Z", qubits[1], np.pi / 2)
        yield ParityRotation(qubits, -np.pi / 2)
    elif name in _PERMUTATIONS and standard:
        yield Permutation(qubits, _PERMUTATIONS[name])
    elif len(qubits) == 1 and not is_parametric(gate) and (matrix := _matrix(gate)) is not None:
        yield Fixed(qubits[0], matrix)
    elif name not in _NO_DEFINITION and isinstance(gate.definition, QuantumCircuit):
        yield from _flatten(gate.definition, qubits)
    else:
        raise CircuitError(
            f"Instruction {name!r} on qubits {list(qubits)} is no unitary gate with a definition, so this circuit "
            f"cannot be simulated exactly. Remove measurements, resets and control flow; observables are measured "
            f"by the estimator."
        )


def _matrix(gate: Instruction) -> np.ndarray | None:
    """Return a gate's matrix, or None where it has none."""
    try:
        return np.asarray(gate.to_matrix(), dtype=complex)
    except (AttributeError, QiskitError):
        return None


@cache
def _standard_classes() -> dict[type, str]:
    """Return the names of Qiskit's own gates and instructions by their class."""
    named = {operation.base_class: name for name, operation in get_standard_gate_name_mapping().items()}
    return named | {Barrier: "barrier", Initialize: "initialize"}


def standard_name(operation: Any) -> str | None:
    """Return the name of the gate or instruction of Qiskit's own that this is, or None for any other.

    The class decides, since users choose names: a composite gate that somebody called ``cz`` is not Qiskit's. A
    subclass is not either, nor is a gate with open controls, which are told by ``ctrl_state``.
    """
    name = _standard_classes().get(getattr(operation, "base_class", type(operation)))
    controls = getattr(operation, "num_ctrl_qubits", 0)
    return name if getattr(operation, "ctrl_state", None) in (None, 2**controls - 1) else None


def is_parametric(gate: Any) -> bool:
    """Tell whether a gate still holds unbound parameters."""
    return any(isinstance(p, ParameterExpression) and p.parameters for p in getattr(gate, "params", []))


def _angle(value: Any) -> Angle:
    """Return a number for a number or a bound expression, else the expression."""
    if isinstance(value, ParameterExpression) and value.parameters:
        return value
    return float(value)
