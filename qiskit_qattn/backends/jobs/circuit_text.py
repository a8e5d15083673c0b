"""A circuit as text that is the same in every process, and its parameters under plain names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    ControlledGate,
    ControlModifier,
    Parameter,
    ParameterExpression,
    PowerModifier,
)
from qiskit.circuit.library import (
    Isometry,
    PermutationGate,
    UnitaryGate,
    get_standard_gate_name_mapping,
)

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.decomposition import definition_of
from qiskit_qattn.simulation.gates import standard_name

_STANDARD = frozenset(get_standard_gate_name_mapping())
_OPAQUE = {"barrier", "delay", "measure", "reset"}  # without a definition


def circuit_text(circuit: QuantumCircuit) -> str:
    """Return one line per instruction: name, parameters, qubits and classical bits by their index.

    Parameters are numbered as in ``circuit.parameters``. What no expectation depends on is left out: names of the
    circuit, its registers and parameters, the global phase, metadata. An instruction whose class is not Qiskit's is
    written as its definition, since its name may be the user's, or numbered differently by Qiskit in each process.

    Raises:
        CircuitError: For an instruction without a definition, or with a parameter that has no stable text.
    """
    head = f"{circuit.num_qubits} {circuit.num_clbits} {circuit.num_parameters}"
    return "\n".join([head, *_lines(plain_parameters(circuit))])


def plain_parameters(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit with its parameters, in their order, replaced by ``p0000000``, ``p0000001`` and so on."""
    return with_parameters(circuit, [Parameter(name) for name in plain_names(circuit.num_parameters)])


def plain_names(count: int) -> list[str]:
    """Return the names that :func:`plain_parameters` gives, in alphabetical order, as Qiskit sorts parameters."""
    return [f"p{index:07d}" for index in range(count)]


def with_parameters(circuit: QuantumCircuit, parameters: Sequence[Parameter]) -> QuantumCircuit:
    """Return the circuit with other parameters in place of its own, in their order; names may occur in both."""
    names = {old.name for old in circuit.parameters}
    if not names:
        return circuit
    if names & {new.name for new in parameters}:  # Qiskit refuses two parameters of one name in an expression
        prefix = "_" * max(map(len, names))  # longer than any of the names
        neutral = {old: Parameter(f"{prefix}{index:07d}") for index, old in enumerate(circuit.parameters)}
        circuit = circuit.assign_parameters(neutral)
    return circuit.assign_parameters(dict(zip(circuit.parameters, parameters, strict=True)))


def _lines(circuit: QuantumCircuit) -> list[str]:
    qubits = {bit: index for index, bit in enumerate(circuit.qubits)}
    clbits = {bit: index for index, bit in enumerate(circuit.clbits)}
    lines = []
    for item in circuit.data:
        where = [str(qubits[bit]) for bit in item.qubits] + [f"c{clbits[bit]}" for bit in item.clbits]
        lines.append(f"{_operation(item.operation)} {' '.join(where)}")
    return lines


def _operation(operation: Any) -> str:
    name = standard_name(operation)
    if name is not None and name == operation.name and (name in _STANDARD or name in _OPAQUE):
        params = ",".join(_number(name, value) for value in operation.params)
        state = f"@{operation.ctrl_state}" if isinstance(operation, ControlledGate) else ""
        unit = operation.unit if name == "delay" else ""
        return f"{name}{state}({params}{unit})"
    if _is_matrix(operation):
        matrix = np.ascontiguousarray(operation.params[0], dtype="<c16")
        return f"matrix[{matrix.tobytes().hex()}]"
    if isinstance(operation, AnnotatedOperation):
        return f"{_operation(operation.base_op)}[{_phase(operation.base_op)}{_modifiers(operation)}]"
    definition = definition_of(operation)
    if definition is None:
        raise CircuitError(
            f"Instruction {operation.name!r} cannot be sent to a device through the ledger: it is neither one of "
            f"Qiskit's gates nor has it a definition made of them."
        )
    return "{" + "; ".join(_lines(definition)) + "}"


def _is_matrix(operation: Any) -> bool:
    """Tell whether an operation is written as the array that defines it; each class has arrays of another shape."""
    if type(operation) is Isometry:
        return len(operation.params[0]) == 2**operation.num_qubits  # no ancillas
    return type(operation) in (UnitaryGate, PermutationGate)


def _modifiers(operation: AnnotatedOperation) -> str:
    """Return the modifiers of an annotated operation."""
    texts = []
    for modifier in operation.modifiers:
        text = type(modifier).__name__
        if isinstance(modifier, ControlModifier):
            text += f" {modifier.num_ctrl_qubits} {modifier.ctrl_state}"
        elif isinstance(modifier, PowerModifier):
            text += f" {float(modifier.power).hex()}"
        texts.append(text)
    return "; ".join(texts)


def _phase(operation: Any) -> str:
    """Return the phase of a definition, which counts once it is controlled, or raised to a power."""
    definition = None if standard_name(operation) else definition_of(operation)
    return "" if definition is None else f"phase {_number(operation.name, definition.global_phase)}; "


def _number(name: str, value: Any) -> str:
    """Return a parameter of an instruction in full precision."""
    if isinstance(value, ParameterExpression):
        if value.parameters:
            return str(value)
        value = value.numeric()
    if isinstance(value, int | float | np.integer | np.floating):
        return float(value).hex()
    raise CircuitError(f"Instruction {name!r} has a parameter of kind {type(value).__name__}, expected a number.")
