r"""From any QuantumCircuit to elementary operations.

Gates are identified by class. Qiskit's own gates with a rule here become exact products of elementary operations,
the phase included; time evolution becomes the exponential of its operator. Others are taken by their matrix if they
have one, as in Qiskit's ``Statevector``, or by their definition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    Barrier,
    BoxOp,
    ControlModifier,
    ForLoopOp,
    InverseModifier,
    ParameterExpression,
    PowerModifier,
    library,
)
from qiskit.circuit.library import (
    C3XGate,
    C4XGate,
    HamiltonianGate,
    Initialize,
    MCXGate,
    PauliEvolutionGate,
    PermutationGate,
    UnitaryGate,
    get_standard_gate_name_mapping,
)
from qiskit.exceptions import QiskitError

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.elementary import (
    Angle,
    Axis,
    Fixed,
    Measurement,
    Operation,
    ParityRotation,
    Permutation,
    Phase,
    Reset,
    Rotation,
    Unitary,
    UnitaryOperation,
    controlled,
    inverse,
)
from qiskit_qattn.simulation.evolution import matrix_evolution, operator_of, pauli_evolution

IDLE = {"id", "delay"}  # identities without noise
_IGNORED = {"barrier", *IDLE}
_PAULI_ROTATIONS: dict[str, Axis] = {"rx": "X", "ry": "Y", "rz": "Z"}
_PERMUTATIONS = {"cx": (0, 3, 2, 1), "swap": (0, 2, 1, 3), "ccx": (0, 1, 2, 7, 4, 5, 6, 3)}
_CONTROLLED_X = (MCXGate, C3XGate, C4XGate)
_SMALL = 8  # qubits up to which a power is formed as a matrix
_LISTED = 16  # qubits up to which basis states are listed


def flatten(circuit: QuantumCircuit) -> list[UnitaryOperation]:
    """Return the circuit as unitary operations in order, up to a phase.

    Resets of untouched qubits and final measurements change no expectation and are left out.

    Args:
        circuit: Any circuit of unitary gates; loops of a known length are unrolled.

    Raises:
        CircuitError: For other measurements and resets, control flow, and gates with neither a rule, nor a matrix, nor
            a definition.
    """
    found: list[UnitaryOperation] = []
    touched, measured = set[int](), set[int]()
    for op in elementary(circuit):
        if isinstance(op, Measurement):
            measured.update(op.qubits)
        elif isinstance(op, Phase):
            continue
        elif not measured.isdisjoint(op.qubits):
            raise refusal("measure", measured.intersection(op.qubits), "is followed by other operations")
        elif not isinstance(op, Reset):
            touched.update(op.qubits)
            found.append(op)
        elif not touched.isdisjoint(op.qubits):
            raise refusal("reset", op.qubits, "is no unitary gate")
    return found


def elementary(circuit: QuantumCircuit) -> Iterator[Operation]:
    """Yield a circuit's elementary operations in order; as :func:`flatten`, with phases, measurements and resets."""
    yield from _elementary(circuit, tuple(range(circuit.num_qubits)))


def _elementary(circuit: QuantumCircuit, where: tuple[int, ...]) -> Iterator[Operation]:
    """Yield the operations of a circuit whose qubit i is ``where[i]``."""
    yield Phase(_angle(circuit.global_phase))
    for item in circuit.data:
        qubits = tuple(where[circuit.find_bit(qubit).index] for qubit in item.qubits)
        yield from _expand(item.operation, qubits)


def _expand(gate: Any, qubits: tuple[int, ...]) -> Iterator[Operation]:
    """Yield the elementary operations of one instruction."""
    name = standard_name(gate)
    standard = getattr(gate, "_standard_gate", None)
    if name is None and standard is not None and _is_closed(gate):
        # a subclass: Qiskit's circuits contain the standard gate, whatever its definition says
        name = standard.name
        gate = standard.gate_class(*gate.params)
    if name is not None and (rule := _standard(name, gate.params, qubits)) is not None:
        yield from rule
    elif isinstance(gate, AnnotatedOperation):
        yield from _annotated(gate.base_op, gate.modifiers, qubits)
    elif isinstance(gate, PauliEvolutionGate) and type(gate).to_matrix is PauliEvolutionGate.to_matrix:
        yield from pauli_evolution(gate.operator, _angle(gate.time), qubits)
    elif is_pauli_product_rotation(gate):
        yield from pauli_evolution(gate.pauli(), _angle(gate.params[0]) / 2, qubits)
    elif type(gate) is HamiltonianGate:
        yield from matrix_evolution(np.asarray(gate.params[0]), _angle(gate.params[1]), qubits)
    elif _base_class(gate) in _CONTROLLED_X and len(qubits) <= _LISTED:
        size, state = 2**gate.num_ctrl_qubits, gate.ctrl_state
        image = list(range(2 * size))
        image[state], image[state + size] = state + size, state
        yield Permutation(qubits, tuple(image))
    elif type(gate) is ForLoopOp:
        yield from _loop(gate, qubits)
    elif type(gate) is BoxOp:
        yield from _elementary(gate.blocks[0], qubits)
    elif type(gate) is PermutationGate and len(qubits) <= _LISTED:
        states = np.arange(2 ** len(qubits))  # bit i of the image is bit pattern[i] of the state
        moved = np.sum([(states >> int(k) & 1) << i for i, k in enumerate(gate.pattern)], axis=0)
        yield Permutation(qubits, tuple(moved.tolist()))
    elif _definition_first(gate, qubits) or (matrix := _matrix(gate, qubits)) is None:
        yield from _elementary(_definition(gate, qubits), qubits)
    else:
        yield _constant(matrix, qubits)


def _standard(name: str, params: Sequence[Any], qubits: tuple[int, ...]) -> list[Operation] | None:
    """Return the operations of one of Qiskit's own gates that has a rule, or None."""
    if name == "initialize":
        return None
    if name in _IGNORED:
        return []
    angles = [_angle(value) for value in params]
    if name == "measure":
        return [Measurement((qubits[0],))]
    if name == "reset":
        return [Reset((qubits[0],))]
    if name == "global_phase":
        return [Phase(angles[0])]
    if name in _PAULI_ROTATIONS:
        return [Rotation(_PAULI_ROTATIONS[name], qubits[0], angles[0])]
    if name in ("p", "u1"):
        return [Rotation("Z", qubits[0], angles[0]), Phase(angles[0] / 2)]
    if name in ("u", "u2", "u3"):
        theta, phi, lam = angles if name != "u2" else (np.pi / 2, *angles)
        turns = [Rotation("Z", qubits[0], lam), Rotation("Y", qubits[0], theta), Rotation("Z", qubits[0], phi)]
        return [*turns, Phase((phi + lam) / 2)]
    if name == "r":
        theta, phi = angles
        return [Rotation("Z", qubits[0], -phi), Rotation("X", qubits[0], theta), Rotation("Z", qubits[0], phi)]
    if name == "rzz":
        return [ParityRotation(qubits, angles[0])]
    if name in ("cp", "cu1", "cz"):
        # diag(1, 1, 1, e^iθ) is e^{iθ(1-Z)(1-Z)/4}: Z on either qubit, ZZ, and a phase
        theta = angles[0] if name != "cz" else np.pi
        alone: list[Operation] = [Rotation("Z", qubit, theta / 2) for qubit in qubits]
        return [*alone, ParityRotation(qubits, -theta / 2), Phase(theta / 4)]
    if name in _PERMUTATIONS:
        return [Permutation(qubits, _PERMUTATIONS[name])]
    return None


def _annotated(base: Any, modifiers: Sequence[Any], qubits: tuple[int, ...]) -> Iterator[Operation]:
    """Yield an operation under modifiers, applied from first to last."""
    if not modifiers:
        yield from _expand(base, qubits)
        return
    *inner, last = modifiers
    if isinstance(last, ControlModifier):
        controls, targets = qubits[: last.num_ctrl_qubits], qubits[last.num_ctrl_qubits :]
        for op in _reversible(base, inner, targets):
            yield from controlled(op, controls, last.ctrl_state)
    elif isinstance(last, InverseModifier):
        yield from map(inverse, reversed(_reversible(base, inner, qubits)))
    elif not isinstance(last, PowerModifier):
        raise CircuitError(f"Modifier {last} is unknown; known: inverse, control and power.")
    elif not is_parametric(base) and len(qubits) <= _SMALL:
        yield _power(AnnotatedOperation(base, inner), last.power, qubits)
    elif last.power == int(last.power):
        operations = _reversible(base, inner, qubits)
        if last.power < 0:
            operations = [inverse(op) for op in reversed(operations)]
        for _ in range(abs(int(last.power))):
            yield from operations
    else:
        raise CircuitError(
            f"Power {last.power} of {base.name!r} on qubits {list(qubits)} cannot be simulated exactly: with "
            f"parameters, or on more than {_SMALL} qubits, powers must be whole numbers."
        )


def _power(operation: AnnotatedOperation, exponent: float, qubits: tuple[int, ...]) -> Operation:
    """Return a power of an operation without parameters."""
    try:
        matrix = operator_of(operation).power(exponent).data
    except QiskitError as error:
        raise refusal(operation.base_op.name, qubits, f"has no power ({error})") from error
    return _constant(matrix, qubits)


def _constant(matrix: np.ndarray, qubits: tuple[int, ...]) -> Operation:
    """Return a matrix on any number of qubits as an operation."""
    if not qubits:
        return Phase(float(np.angle(matrix.item())))
    return Fixed(qubits[0], matrix) if len(qubits) == 1 else Unitary(qubits, matrix)


def _reversible(base: Any, modifiers: Sequence[Any], qubits: tuple[int, ...]) -> list[Operation]:
    """Return an operation under modifiers, which must be unitary."""
    operations = list(_annotated(base, modifiers, qubits))
    if any(isinstance(op, Reset | Measurement) for op in operations):
        raise refusal(base.name, qubits, "is no unitary gate")
    return operations


def _loop(loop: ForLoopOp, qubits: tuple[int, ...]) -> Iterator[Operation]:
    """Yield a loop over known numbers, unrolled."""
    values, parameter, body = loop.params
    if not isinstance(values, range | tuple | list):
        raise refusal(loop.name, qubits, "runs over values known only at run time")
    for value in values:
        turn = body if parameter is None else body.assign_parameters({parameter: value}, strict=False)
        yield from _elementary(turn, qubits)


def _definition_first(gate: Any, qubits: tuple[int, ...]) -> bool:
    """Return whether a gate's definition is equal to its matrix, and cheaper."""
    if len(qubits) == 1 or type(gate) is UnitaryGate or _base_class(gate) not in _library():
        return False
    return gate.definition is not None


def _matrix(gate: Any, qubits: tuple[int, ...]) -> np.ndarray | None:
    """Return a gate's matrix, or None if it has none."""
    if is_parametric(gate):
        return None
    try:
        matrix = np.asarray(gate.to_matrix(), dtype=complex)
    except (AttributeError, TypeError, ValueError, QiskitError):
        return None
    if matrix.shape != (2 ** len(qubits),) * 2:
        raise refusal(gate.name, qubits, f"has a matrix of shape {matrix.shape}")
    return matrix


def _definition(gate: Any, qubits: tuple[int, ...]) -> QuantumCircuit:
    """Return a gate's definition.

    Raises:
        CircuitError: If it has none.
    """
    try:
        definition = gate.definition
    except (AttributeError, TypeError, ValueError, QiskitError) as error:
        raise refusal(gate.name, qubits, f"has no definition ({error})") from error
    if not isinstance(definition, QuantumCircuit):
        raise refusal(gate.name, qubits, "is no unitary gate with a definition")
    return definition


def refusal(name: str, qubits: Any, why: str) -> CircuitError:
    """Return the error for an instruction that the exact engines cannot simulate."""
    return CircuitError(
        f"Instruction {name!r} on qubits {sorted(qubits)} {why}, so this circuit cannot be simulated exactly. Circuits "
        f"may contain unitary gates, resets at the beginning, measurements at the end, and loops of a known length."
    )


@cache
def _gate_classes() -> dict[str, type]:
    """Return the classes of Qiskit's standard gates by their names."""
    return {name: operation.base_class for name, operation in get_standard_gate_name_mapping().items()}


@cache
def _standard_classes() -> dict[type, str]:
    """Return the names of Qiskit's own gates and instructions by their class."""
    return {kind: name for name, kind in _gate_classes().items()} | {Barrier: "barrier", Initialize: "initialize"}


@cache
def _library() -> frozenset[type]:
    """Return all gate classes of Qiskit's library, whose definitions are their matrices."""
    return frozenset(thing for thing in vars(library).values() if isinstance(thing, type))


def is_pauli_product_rotation(operation: Any) -> bool:
    """Tell whether an operation is Qiskit's ``PauliProductRotationGate``, which older ones lack."""
    return type(operation) is getattr(library, "PauliProductRotationGate", None)


def _base_class(operation: Any) -> type:
    return getattr(operation, "base_class", type(operation))


def standard_name(operation: Any) -> str | None:
    """Return the name of one of Qiskit's own gates or instructions, or None for any other.

    The class decides, since users choose names: a composite gate that somebody called ``cz`` is not Qiskit's CZ.
    Neither is a subclass, nor a gate with open controls (see ``ctrl_state``).
    """
    name = _standard_classes().get(_base_class(operation))
    return name if _is_closed(operation) else None


def _is_closed(operation: Any) -> bool:
    """Return whether a gate's controls, if it has any, all act on 1."""
    return getattr(operation, "ctrl_state", None) in (None, 2 ** getattr(operation, "num_ctrl_qubits", 0) - 1)


def is_parametric(gate: Any) -> bool:
    """Return whether a gate has unbound parameters."""
    return any(isinstance(p, ParameterExpression) and p.parameters for p in getattr(gate, "params", []))


def _angle(value: Any) -> Angle:
    """Return a number for a number or a bound expression, else the expression."""
    if isinstance(value, ParameterExpression) and value.parameters:
        return value
    try:
        return float(value)
    except TypeError as error:
        raise CircuitError(f"Angles are real numbers, got {value}.") from error
